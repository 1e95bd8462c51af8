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

/** The bytes of the Arrow file; the same records give the same bytes. `keptCount` is Lmem · K · S. */
export function encodeRecords(records: readonly MemoryRecord[], keptCount: number): Uint8Array {
  const length = records.length;
  const starts = new Int32Array(length + 1);
  records.forEach((record, i) => {
    starts[i + 1] = starts[i]! + record.tokens.length;
  });
  const tokens = new Int32Array(starts[length]!);
  const kept = new Int32Array(length * keptCount);
  records.forEach((record, i) => {
    tokens.set(record.tokens, starts[i]);
    kept.set(record.kept, i * keptCount);
  });
  const item = new Field('item', new Int32(), false);
  const integers = (values: Int32Array) => makeData({ type: new Int32(), data: values });
  const column = (pick: (record: MemoryRecord) => number) => makeVector(Int32Array.from(records, pick));
  const text = (pick: (record: MemoryRecord) => string) => vectorFromArray(records.map(pick), new Utf8());
  const table = new Table({
    id: text((record) => record.id),
    document: text((record) => record.document),
    title: text((record) => record.title),
    text: text((record) => record.text),
    start: column((record) => record.span[0]),
    end: column((record) => record.span[1]),
    tokens: makeVector(
      makeData({ type: new List(item), length, nullCount: 0, valueOffsets: starts, child: integers(tokens) }),
    ),
    kept: makeVector(
      makeData({ type: new FixedSizeList(keptCount, item), length, nullCount: 0, child: integers(kept) }),
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
    const tokens: Int32Array = lists?.children[0]?.values ?? new Int32Array(0);
    const starts: Int32Array = lists?.valueOffsets ?? new Int32Array(1);
    // Copies: the catalog must not keep the whole file in memory.
    return {
      ids: Array.from({ length: this.length }, (_, row) => String(this.#cell('id', row))),
      tokens: tokens.slice(0, starts[this.length]),
      starts: starts.slice(0, this.length + 1),
      keptLengths: Int32Array.from({ length: this.length }, (_, row) => Number(this.#cell('keptLength', row))),
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

  #integers(column: string, row: number): Int32Array {
    const vector = this.#cell(column, row) as { toArray(): Int32Array };
    return Int32Array.from(vector.toArray());
  }
}
