/**
 * Numbers of 16 bits: float16 (IEEE 754 binary16) and bfloat16 (the upper half of a float32). Rounding is to the nearest,
 * ties to even, as processors and PyTorch round.
 */

export type HalfType = 'float16' | 'bfloat16';

/** float32 values as 16-bit numbers. What float16 cannot hold (from 65,520 on) becomes infinite. */
export function packHalf(values: Float32Array, type: HalfType): Uint16Array {
  const halves = new Uint16Array(values.length);
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
  const pack = type === 'float16' ? float16Bits : bfloat16Bits;
  for (let i = 0; i < bits.length; i++) halves[i] = pack(bits[i]!);
  return halves;
}

/** 16-bit numbers as the float32 values that they are, exactly. */
export function unpackHalf(halves: Uint16Array, type: HalfType): Float32Array {
  const bits = new Int32Array(halves.length);
  const unpack = type === 'float16' ? bitsOfFloat16 : bitsOfBfloat16;
  for (let i = 0; i < halves.length; i++) bits[i] = unpack(halves[i]!);
  return new Float32Array(bits.buffer);
}

const INFINITY_BITS = 0x7f800000;
const scratch = new Float32Array(1);
const scratchBits = new Int32Array(scratch.buffer);

function bfloat16Bits(bits: number): number {
  if ((bits & 0x7fffffff) > INFINITY_BITS) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function bitsOfBfloat16(half: number): number {
  return half << 16;
}

function float16Bits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > INFINITY_BITS) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Below 2⁻¹⁴ a step of float16 is 2⁻²⁴, that of a float32 just above 0.5: the sum rounds as float16 does.
    scratchBits[0] = magnitude;
    scratch[0] = scratch[0]! + 0.5;
    return sign | (scratchBits[0]! - 0x3f000000);
  }
  return sign | ((magnitude - (112 << 23) + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

function bitsOfFloat16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) return sign | INFINITY_BITS | ((magnitude & 0x3ff) << 13);
  if (magnitude >= 0x400) return sign | ((magnitude << 13) + (112 << 23));
  scratch[0] = magnitude * 2 ** -24;
  return sign | scratchBits[0]!;
}
