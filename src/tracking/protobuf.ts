/** Writes protocol buffer messages (the wire format of protobuf.dev): a message is its fields one after the other. */

const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

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
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([Buffer.from([...tag(field, WIRE.bytes), ...varint(bytes.length)]), bytes]);
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

/** Seven bits a byte, lowest first; by division, since a shift sees only 32 bits. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  bytes.push(rest);
  return bytes;
}
