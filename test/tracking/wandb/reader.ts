/**
 * A reader of Weights & Biases' file, written from the descriptions of its parts and not from our writer: LevelDB's log
 * format (with the seven bytes at the begin and the CRC-32 of zlib), the wire format of protocol buffers, and the field
 * numbers of wandb_internal.proto. Fails on everything that is not exactly so.
 */

import { readFileSync } from 'node:fs';

export interface ReadRecord {
  num: number;
  type: string;
  /** Fields of the record's message by number. */
  fields: Fields;
}

type Fields = Map<number, (bigint | Uint8Array)[]>;

const TYPES: Record<number, string> = {
  2: 'history',
  3: 'summary',
  5: 'config',
  6: 'files',
  7: 'stats',
  13: 'output_raw',
  17: 'run',
  18: 'exit',
  21: 'header',
};

export function readFile(path: string): ReadRecord[] {
  return readLog(readFileSync(path)).map(parseRecord);
}

/** The records of a log. @throws Error for every fault, also a record that does not end */
export function readLog(file: Uint8Array): Uint8Array[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const text = String.fromCharCode(...file.subarray(0, 4));
  if (text !== ':W&B' || view.getUint16(4, true) !== 0xbee1 || file[6] !== 0) throw new Error('no header');
  const records: Uint8Array[] = [];
  let pending: number[] | undefined;
  for (let blockStart = 0; blockStart < file.length; blockStart += 0x8000) {
    const blockEnd = Math.min(blockStart + 0x8000, file.length);
    let position = blockStart === 0 ? 7 : blockStart;
    while (blockEnd - position >= 7) {
      const [checksum, length, kind] = [
        view.getUint32(position, true),
        view.getUint16(position + 4, true),
        file[position + 6],
      ];
      const dataStart = position + 7;
      if (dataStart + length > blockEnd) throw new Error(`the chunk at ${position} leaves its block`);
      const data = file.subarray(dataStart, dataStart + length);
      if (checksumOf(file.subarray(position + 6, dataStart + length)) !== checksum) {
        throw new Error(`wrong checksum at ${position}`);
      }
      if (kind === 1 || kind === 2) {
        if (pending !== undefined) throw new Error(`a record begins inside another at ${position}`);
        pending = [];
      } else if ((kind !== 3 && kind !== 4) || pending === undefined) {
        throw new Error(`a chunk of kind ${kind} at ${position}`);
      }
      for (const byte of data) pending.push(byte);
      if (kind === 1 || kind === 4) {
        records.push(Uint8Array.from(pending));
        pending = undefined;
      }
      position = dataStart + length;
    }
    if (file.subarray(position, blockEnd).some((byte) => byte !== 0)) throw new Error(`no zeros from ${position} on`);
  }
  if (pending !== undefined) throw new Error('the last record does not end');
  return records;
}

/** CRC-32 of ISO 3309, bit by bit. */
function checksumOf(bytes: Uint8Array): number {
  let register = 0xffffffff;
  for (const byte of bytes) {
    register ^= byte;
    for (let bit = 0; bit < 8; bit++) register = register & 1 ? (register >>> 1) ^ 0xedb88320 : register >>> 1;
  }
  return ~register >>> 0;
}

export function parseRecord(bytes: Uint8Array): ReadRecord {
  const fields = parseMessage(bytes);
  const [type] = [...fields.keys()].filter((number) => number !== 1);
  if (type === undefined || fields.size > 2 || TYPES[type] === undefined) throw new Error(`a record of type ${type}`);
  const [message] = fields.get(type)!;
  return { num: number(fields, 1), type: TYPES[type], fields: parseMessage(message as Uint8Array) };
}

/** Varints and length-delimited fields; ours has no others. */
export function parseMessage(bytes: Uint8Array): Fields {
  const fields: Fields = new Map();
  let position = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (position >= bytes.length) throw new Error('a varint does not end');
      const byte = BigInt(bytes[position++]!);
      value |= (byte & 0x7fn) << shift;
      if (byte < 0x80n) return value;
    }
  };
  while (position < bytes.length) {
    const tag = varint();
    const field = Number(tag >> 3n);
    let value: bigint | Uint8Array;
    if ((tag & 7n) === 0n) {
      value = varint();
    } else if ((tag & 7n) === 2n) {
      const length = Number(varint());
      if (position + length > bytes.length) throw new Error('a field does not end');
      value = bytes.subarray(position, position + length);
      position += length;
    } else {
      throw new Error(`wire type ${tag & 7n}`);
    }
    fields.set(field, [...(fields.get(field) ?? []), value]);
  }
  return fields;
}

export function number(fields: Fields, field: number): number {
  return Number(fields.get(field)?.at(-1) ?? 0);
}

export function text(fields: Fields, field: number): string {
  const value = fields.get(field)?.at(-1);
  return value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : '';
}

export function texts(fields: Fields, field: number): string[] {
  return (fields.get(field) ?? []).map((value) => Buffer.from(value as Uint8Array).toString('utf8'));
}

export function messages(fields: Fields, field: number): Fields[] {
  return (fields.get(field) ?? []).map((value) => parseMessage(value as Uint8Array));
}

/** Items `{key = 1 or nested_key = 2, value_json = 16}` as nested objects of the JSON texts. */
export function items(fields: Fields, field: number): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const item of messages(fields, field)) {
    const path = item.has(1) ? [text(item, 1)] : texts(item, 2);
    let target = result;
    for (const name of path.slice(0, -1)) {
      target[name] ??= {};
      target = target[name] as Record<string, unknown>;
    }
    target[path.at(-1)!] = text(item, 16);
  }
  return result;
}

/** Rows of the history, with their steps. */
export function historyOf(records: ReadRecord[]): { step: number; values: Record<string, unknown> }[] {
  return records
    .filter(({ type }) => type === 'history')
    .map(({ fields }) => ({ step: number(messages(fields, 2)[0]!, 1), values: items(fields, 1) }));
}

export function stepsOf(path: string): number[] {
  return historyOf(readFile(path)).map(({ step }) => step);
}

/** What summaries say in the end. */
export function summaryOf(records: ReadRecord[]): Record<string, unknown> {
  return Object.assign({}, ...records.filter(({ type }) => type === 'summary').map(({ fields }) => items(fields, 1)));
}
