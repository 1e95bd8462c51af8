/** Writes protocol buffer messages (the wire format of protobuf.dev): a message is its fields one after the other. */

const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;
/** Bytes of 2^53 − 1, seven bits each. */
const LONGEST_VARINT = 8;

export function message(...fields: readonly Uint8Array[]): Buffer {
  return Buffer.concat(fields);
}

/** @param value a whole number from 0 to 2^53 − 1 */
export function varintField(field: number, value: number): Buffer {
  return Buffer.from([...tag(field, WIRE.varint), ...varint(value)]);
}

export function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.from([...tag(field, WIRE.fixed64), ...bytes]);
}

export function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.from([...tag(field, WIRE.fixed32), ...bytes]);
}

/** A text, bytes, or a message inside the message. */
export function bytesField(field: number, value: string | Uint8Array): Buffer {
  const length = typeof value === 'string' ? Buffer.byteLength(value) : value.length;
  // A run of a million steps has some ten million of these: one piece of memory for each, and no arrays.
  const bytes = Buffer.allocUnsafe(2 * LONGEST_VARINT + length);
  const start = putVarint(bytes, putVarint(bytes, 0, field * 8 + WIRE.bytes), length);
  if (typeof value === 'string') bytes.write(value, start);
  else bytes.set(value, start);
  return bytes.subarray(0, start + length);
}

/** A list of doubles in one field. */
export function doublesField(field: number, values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8);
  for (const [i, value] of values.entries()) bytes.writeDoubleLE(value, i * 8);
  return bytesField(field, bytes);
}

function tag(field: number, wire: number): number[] {
  return varint(field * 8 + wire);
}

function varint(value: number): number[] {
  const bytes = Buffer.allocUnsafe(LONGEST_VARINT);
  return [...bytes.subarray(0, putVarint(bytes, 0, value))];
}

/** Seven bits a byte, lowest first; by division, since a shift sees only 32 bits. @returns the place behind it */
function putVarint(bytes: Buffer, at: number, value: number): number {
  let rest = value;
  let end = at;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes[end++] = (rest % 128) | 128;
  bytes[end++] = rest;
  return end;
}
