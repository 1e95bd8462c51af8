/** Reads TensorBoard's event files from the description of their format; shares nothing with what writes them. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface ReadEvent {
  time: number;
  step: number;
  version?: string;
  values: { tag: string; number?: number; text?: string; plugin?: string; histogram?: number[][]; image?: ReadImage }[];
}

export interface ReadImage {
  height: number;
  width: number;
  colours: number;
  png: Buffer;
}

/** Every record of a file; throws at one that is not whole. */
export function readRecords(bytes: Buffer): Buffer[] {
  const records: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    if (bytes.readUInt32LE(at + 8) !== mask(slowCrc32c(bytes.subarray(at, at + 8)))) throw new Error(`length at ${at}`);
    const data = bytes.subarray(at + 12, at + 12 + length);
    if (bytes.readUInt32LE(at + 12 + length) !== mask(slowCrc32c(data))) throw new Error(`data at ${at}`);
    records.push(data);
    at += 16 + length;
  }
  return records;
}

/** The events of the one event file in a folder. */
export function readFolder(folder: string): ReadEvent[] {
  const names = readdirSync(folder).filter((name) => name.includes('tfevents'));
  if (names.length !== 1) throw new Error(`${names.length} event files in ${folder}`);
  return readRecords(readFileSync(join(folder, names[0]!))).map(readEvent);
}

export function readEvent(bytes: Buffer): ReadEvent {
  const event: ReadEvent = { time: 0, step: 0, values: [] };
  for (const { field, value } of fields(bytes)) {
    if (field === 1) event.time = (value as Buffer).readDoubleLE();
    else if (field === 2) event.step = Number(value);
    else if (field === 3) event.version = String(value);
    else if (field === 5) event.values = fields(value as Buffer).map((inner) => readValue(inner.value as Buffer));
    else throw new Error(`field ${field} of an event`);
  }
  return event;
}

function readValue(bytes: Buffer): ReadEvent['values'][number] {
  const read: ReadEvent['values'][number] = { tag: '' };
  for (const { field, value } of fields(bytes)) {
    const content = value as Buffer;
    if (field === 1) read.tag = content.toString();
    else if (field === 2) read.number = content.readFloatLE();
    else if (field === 4) {
      const [height, width, colours, png] = fields(content).map((inner) => inner.value);
      read.image = { height: Number(height), width: Number(width), colours: Number(colours), png: png as Buffer };
    } else if (field === 5) read.histogram = fields(content).map((inner) => doubles(inner.value as Buffer));
    else if (field === 8)
      read.text = fields(content)
        .find((inner) => inner.field === 8)!
        .value.toString();
    else if (field === 9) read.plugin = fields(fields(content)[0]!.value as Buffer)[0]!.value.toString();
    else throw new Error(`field ${field} of a value`);
  }
  return read;
}

function doubles(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readDoubleLE(i * 8));
}

/** Number, and a bigint for varints, bytes for all else. */
function fields(bytes: Buffer): { field: number; value: bigint | Buffer }[] {
  const found = [];
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error('a varint ends too early');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Buffer => {
    if (at + length > bytes.length) throw new Error('a field ends too early');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const wire = tag % 8;
    const value =
      wire === 0 ? varint() : take(wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 ? Number(varint()) : Number.NaN);
    found.push({ field: (tag - wire) / 8, value });
  }
  return found;
}

/** Bit by bit, from the polynomial. */
export function slowCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const isSet = ((crc ^ (byte >> bit)) & 1) === 1;
      crc >>>= 1;
      if (isSet) crc = (crc ^ 0x82f63b78) >>> 0;
    }
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function mask(crc: number): number {
  const turned = (BigInt(crc) >> 15n) | ((BigInt(crc) << 17n) & 0xffffffffn);
  return Number((turned + 0xa282ead8n) & 0xffffffffn);
}
