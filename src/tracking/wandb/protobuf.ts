/** Messages of Protocol Buffers from a table of their fields, and their fields out of them. */

import { bytesField, message, varintField } from '../protobuf.ts';

const VARINT = 0;
const LENGTH_DELIMITED = 2;
/** Bytes of the fields whose width their type tells: eight bytes and four. */
const WIDTHS = new Map([
  [1, 8],
  [5, 4],
]);

/** A field's number and its value: a whole number from 0 to 2^53 − 1, a text, or bytes (a message within is bytes). */
export type Field = readonly [number: number, value: number | string | Uint8Array];

/** The bytes of a message. A number 0 is left out, for that is what is read where nothing stands. */
export function encodeMessage(fields: readonly Field[]): Buffer {
  const encode = ([number, value]: Field): Uint8Array =>
    typeof value === 'number' ? varintField(number, value) : bytesField(number, value);
  return message(...fields.filter(([, value]) => value !== 0).map(encode));
}

/**
 * Calls `visit` for each field of a message; a fixed-width field comes as its bytes.
 * @throws RangeError when the bytes are no message
 */
export function visitFields(bytes: Buffer, visit: (number: number, value: number | Buffer) => void): void {
  let at = 0;
  const readVarint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 63) throw new RangeError('a number does not end');
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = readVarint();
    const [number, type] = [Math.floor(tag / 8), tag % 8];
    if (type === VARINT) {
      visit(number, readVarint());
      continue;
    }
    const length = type === LENGTH_DELIMITED ? readVarint() : WIDTHS.get(type);
    if (length === undefined || at + length > bytes.length) throw new RangeError('a field does not end');
    visit(number, bytes.subarray(at, at + length));
    at += length;
  }
}
