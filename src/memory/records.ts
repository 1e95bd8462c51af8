/** Memory records as an Arrow IPC file, readable with any Arrow implementation. */

import {
  Field,
  FixedSizeList,
  Int32,
  List,
  makeData,
  makeVector,
  Table,
  tableFromIPC,
  tableToIPC,
  Uint8,
  Uint16,
  Utf8,
  vectorFromArray,
} from 'apache-arrow';
import type { MemoryRecord } from './layout.ts';

/** The columns that every memory of a bank is looked up by; held in memory as long as the bank is open. */
export interface Catalog {
  ids: string[];
  /** Token ids, one memory after the other. */
  tokens: Int32Array;
  /** Memory i has tokens [starts[i], starts[i + 1]). */
  starts: Int32Array;
  keptLengths: Int32Array;
}

type Integers = Int32Array | Uint16Array | Uint8Array;

/** An array as narrow as the numbers of the records allow. */
function integers(
  length: number,
  records: readonly MemoryRecord[],
  pick: (record: MemoryRecord) => ArrayLike<number> & Iterable<number>,
): Integers {
  let [least, greatest] = [0, 0];
  for (const record of records) {
    for (const value of pick(record)) {
      if (value < least) least = value;
      if (value > greatest) greatest = value;
    }
  }
  if (least >= 0 && greatest < 2 ** 8) return new Uint8Array(length);
  return least >= 0 && greatest < 2 ** 16 ? new Uint16Array(length) : new Int32Array(length);
}

function integerType(values: Integers): Int32 | Uint16 | Uint8 {
  if (values instanceof Uint8Array) return new Uint8();
  return values instanceof Uint16Array ? new Uint16() : new Int32();
}

function integerData(values: Integers) {
  if (values instanceof Uint8Array) return makeData({ type: new Uint8(), data: values });
  return values instanceof Uint16Array
    ? makeData({ type: new Uint16(), data: values })
    : makeData({ type: new Int32(), data: values });
}

/** The bytes of the Arrow file; the same records give the same bytes. `keptCount` is Lmem · K · S. */
export function encodeRecords(records: readonly MemoryRecord[], keptCount: number): Uint8Array {
  const length = records.length;
  const starts = new Int32Array(length + 1);
  records.forEach((record, i) => {
    starts[i + 1] = starts[i]! + record.tokens.length;
  });
  const tokens = integers(starts[length]!, records, (record) => record.tokens);
  const kept = integers(length * keptCount, records, (record) => record.kept);
  records.forEach((record, i) => {
    tokens.set(record.tokens, starts[i]);
    kept.set(record.kept, i * keptCount);
  });
  const item = (values: Integers) => new Field('item', integerType(values), false);
  const column = (pick: (record: MemoryRecord) => number) => {
    const values = integers(length, records, (record) => [pick(record)]);
    records.forEach((record, i) => {
      values[i] = pick(record);
    });
    if (values instanceof Uint8Array) return makeVector(values);
    return values instanceof Uint16Array ? makeVector(values) : makeVector(values);
  };
  const text = (pick: (record: MemoryRecord) => string) => vectorFromArray(records.map(pick), new Utf8());
  const table = new Table({
    id: text((record) => record.id),
    document: text((record) => record.document),
    title: text((record) => record.title),
    text: text((record) => record.text),
    start: column((record) => record.span[0]),
    end: column((record) => record.span[1]),
    tokens: makeVector(
      makeData({
        type: new List(item(tokens)),
        length,
        nullCount: 0,
        valueOffsets: starts,
        child: integerData(tokens),
      }),
    ),
    kept: makeVector(
      makeData({ type: new FixedSizeList(keptCount, item(kept)), length, nullCount: 0, child: integerData(kept) }),
    ),
    keptLength: column((record) => record.keptLength),
  });
  return tableToIPC(table, 'file');
}

/** A decoded file of records. */
export class RecordTable {
  readonly length: number;
  #table: Table;

  constructor(bytes: Uint8Array) {
    this.#table = tableFromIPC(bytes);
    this.length = this.#table.numRows;
  }

  catalog(): Catalog {
    // The file is written as one record batch, so the first chunk is the whole column.
    const lists = this.#table.getChild('tokens')?.data[0];
    const tokens: Integers = lists?.children[0]?.values ?? new Int32Array(0);
    const starts: Int32Array = lists?.valueOffsets ?? new Int32Array(1);
    const keptLengths: Integers = this.#table.getChild('keptLength')?.data[0]?.values ?? new Int32Array(0);
    // Copies: the catalog must not keep the whole file in memory.
    return {
      ids: this.texts('id'),
      tokens: Int32Array.from(tokens.subarray(0, starts[this.length])),
      starts: starts.slice(0, this.length + 1),
      keptLengths: Int32Array.from(keptLengths.subarray(0, this.length)),
    };
  }

  record(row: number): MemoryRecord {
    return {
      id: String(this.#cell('id', row)),
      document: String(this.#cell('document', row)),
      title: String(this.#cell('title', row)),
      text: String(this.#cell('text', row)),
      span: [Number(this.#cell('start', row)), Number(this.#cell('end', row))],
      tokens: this.#integers('tokens', row),
      kept: this.#integers('kept', row),
      keptLength: Number(this.#cell('keptLength', row)),
    };
  }

  #cell(column: string, row: number): unknown {
    return this.#table.getChild(column)?.get(row);
  }

  /** A whole column of texts; a cell at a time takes Arrow a hundred times as long. */
  texts(column: 'id' | 'document' | 'title' | 'text'): string[] {
    const data = this.#table.getChild(column)?.data[0];
    const offsets: Int32Array = data?.valueOffsets ?? new Int32Array(1);
    const { buffer, byteOffset, byteLength }: Uint8Array = data?.values ?? new Uint8Array(0);
    const bytes = Buffer.from(buffer, byteOffset, byteLength);
    return Array.from({ length: this.length }, (_, row) => bytes.toString('utf8', offsets[row], offsets[row + 1]));
  }

  #integers(column: string, row: number): Int32Array {
    const vector = this.#cell(column, row) as { toArray(): Integers };
    return Int32Array.from(vector.toArray());
  }
}
