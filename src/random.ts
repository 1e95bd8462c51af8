/**
 * Counter-based randomness: a value is a pure function of (seed, purpose, step, index), so no generator state
 * exists that a checkpoint could lose. The bits come from Philox4x32-10 (Salmon et al., "Parallel random numbers:
 * as easy as 1, 2, 3", SC 2011).
 */

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
const FEISTEL_ROUNDS = 8;

/** What a random value is for. Each purpose is its own stream; numbers are part of the file formats, never reuse one. */
export const PURPOSE = {
  initParameters: 1,
  sampleOrder: 2,
  sampling: 3,
  split: 4,
  plainSteps: 5,
  growthOrder: 6,
  world: 7,
  test: 8,
  evaluation: 9,
  mixture: 10,
  bankDrift: 11,
  tuning: 12,
  codecSample: 13,
} as const;
export type Purpose = (typeof PURPOSE)[keyof typeof PURPOSE];

function mulHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const middle1 = aHigh * bLow + (low >>> 16);
  const middle2 = aLow * bHigh + (middle1 & 0xffff);
  // Both halves stay below 2^53, so plain number arithmetic is exact.
  return (aHigh * bHigh + Math.floor(middle1 / 65536) + Math.floor(middle2 / 65536)) >>> 0;
}

/**
 * One Philox4x32-10 block.
 * @param counter four 32-bit words
 * @param key two 32-bit words
 * @returns four uniform 32-bit words
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = mulHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = mulHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Uniform 32-bit words of block `index` of the stream (seed, purpose, step). All arguments are non-negative integers below 2^53. */
export function randomBits(
  seed: number,
  purpose: Purpose,
  step: number,
  index: number,
): [number, number, number, number] {
  const key = [seed >>> 0, (Math.floor(seed / 2 ** 32) ^ Math.imul(purpose, WEYL_0)) >>> 0] as const;
  return philox([index >>> 0, Math.floor(index / 2 ** 32) >>> 0, step >>> 0, Math.floor(step / 2 ** 32) >>> 0], key);
}

/** A float64 in [0, 1) with 53 random bits. */
export function randomUniform(seed: number, purpose: Purpose, step: number, index: number): number {
  const [a, b] = randomBits(seed, purpose, step, index);
  return ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
}

/** An integer in [0, bound), without measurable bias for bounds below 2^40. */
export function randomInt(seed: number, purpose: Purpose, step: number, index: number, bound: number): number {
  return Math.floor(randomUniform(seed, purpose, step, index) * bound);
}

/** `count` independent standard normal values (Box–Muller), value i depending on (seed, purpose, step, i) alone. */
export function randomNormals(seed: number, purpose: Purpose, step: number, count: number): Float32Array {
  const out = new Float32Array(count);
  for (let i = 0; i < count; i += 4) {
    const words = randomBits(seed, purpose, step, i / 4);
    for (let pair = 0; pair < 2; pair++) {
      const radius = Math.sqrt(-2 * Math.log((words[2 * pair]! + 0.5) / 4294967296));
      const angle = (2 * Math.PI * words[2 * pair + 1]!) / 4294967296;
      if (i + 2 * pair < count) out[i + 2 * pair] = radius * Math.cos(angle);
      if (i + 2 * pair + 1 < count) out[i + 2 * pair + 1] = radius * Math.sin(angle);
    }
  }
  return out;
}

/**
 * Position `index` under a keyed permutation of [0, size): a Feistel network over the smallest even-bit domain that
 * holds `size`, walked until it lands inside. Any position is computable alone, in O(1) expected time. Eight rounds:
 * with four, the order of two items among five is visibly not uniform.
 * @throws RangeError when `index` is outside [0, size) or `size` is above 2^52
 */
export function permute(seed: number, purpose: Purpose, epoch: number, index: number, size: number): number {
  if (!Number.isSafeInteger(size) || size > 2 ** 52 || !Number.isInteger(index) || index < 0 || index >= size) {
    throw new RangeError(`permute: index ${index} is outside [0, ${size})`);
  }
  if (size === 1) return 0;
  // A loop, because Math.log2 rounds: it takes 2^50 + 1 for 2^50, and the walk would never land inside.
  let half = 2;
  while (half * half < size) half *= 2;
  let value = index;
  do {
    let left = Math.floor(value / half);
    let right = value % half;
    for (let round = 0; round < FEISTEL_ROUNDS; round++) {
      const mixed = randomBits(seed, purpose, epoch * FEISTEL_ROUNDS + round, right)[0] % half;
      [left, right] = [right, (left ^ mixed) >>> 0];
    }
    value = left * half + right;
  } while (value >= size);
  return value;
}
