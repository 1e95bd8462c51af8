/** As much of the wire format of Protocol Buffers (version 3) as the records of a run need. */

const VARINT = 0;
const EIGHT_BYTES = 1;
const LENGTH_DELIMITED = 2;
const FOUR_BYTES = 5;

/** A field's number and its value: a whole number from 0 to 2^53 − 1, a text, or bytes (a message within is bytes). */
export type Field = readonly [number: number, value: number | string | Uint8Array];

/** The bytes of a message. A number 0 is left out, for that is what is read where nothing stands. */
export function encodeMessage(fields: readonly Field[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const [number, value] of fields) {
    if (typeof value === 'number') {
      if (value !== 0) parts.push(varint(number * 8 + VARINT), varint(value));
      continue;
    }
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    parts.push(varint(number * 8 + LENGTH_DELIMITED), varint(bytes.byteLength), bytes);
  }
  return Buffer.concat(parts);
}

/** Seven bits a byte, the lowest first. Beyond 2^31 JavaScript's shifts fail, so it divides. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Uint8Array.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
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
    const length = type === LENGTH_DELIMITED ? readVarint() : widths.get(type);
    if (length === undefined || at + length > bytes.length) throw new RangeError('a field does not end');
    visit(number, bytes.subarray(at, at + length));
    at += length;
  }
}

const widths = new Map([
  [EIGHT_BYTES, 8],
  [FOUR_BYTES, 4],
]);
