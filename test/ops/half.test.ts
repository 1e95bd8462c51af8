import { describe, expect, it } from 'vitest';
import { type HalfType, packHalf, unpackHalf } from '../../src/ops/half.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

const ALL = Uint16Array.from({ length: 65_536 }, (_, half) => half);
const FORMATS = { float16: { fraction: 10, bias: 15 }, bfloat16: { fraction: 7, bias: 127 } };

/** The value by the definition of the format. */
function meaning(half: number, type: HalfType): number {
  const { fraction, bias } = FORMATS[type];
  const sign = half >>> 15 ? -1 : 1;
  const exponent = (half & 0x7fff) >>> fraction;
  const rest = half & (2 ** fraction - 1);
  if (exponent === 2 ** (15 - fraction) - 1) return rest === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * rest * 2 ** (1 - bias - fraction);
  return sign * (1 + rest * 2 ** -fraction) * 2 ** (exponent - bias);
}

describe.each(['float16', 'bfloat16'] as const)('%s', (type) => {
  it('means what the format says, for all 65,536 numbers', () => {
    const values = unpackHalf(ALL, type);
    expect(ALL.filter((half) => !Object.is(values[half], meaning(half, type)))).toHaveLength(0);
  });

  it('gives every number back, and NaN as NaN', () => {
    const there = unpackHalf(ALL, type);
    const back = packHalf(there, type);
    const same = (half: number): boolean =>
      Number.isNaN(there[half]) ? Number.isNaN(meaning(back[half]!, type)) : back[half] === half;
    expect(ALL.filter((half) => !same(half))).toHaveLength(0);
  });

  it('rounds to the nearest, ties to even', () => {
    const positive = Array.from({ length: 0x7c00 }, (_, half) => half).filter((half) => meaning(half + 1, type) < 1e30);
    const between = positive.flatMap((half) => {
      const [below, above] = [meaning(half, type), meaning(half + 1, type)];
      return [0.25, 0.5, 0.75].map((share) => ({
        value: below + share * (above - below),
        half: share < 0.5 || (share === 0.5 && half % 2 === 0) ? half : half + 1,
      }));
    });
    // Where a float32 cannot hold the point between, nothing is to be rounded.
    const exact = between.filter(({ value }) => Math.fround(value) === value);
    expect(exact.length).toBeGreaterThan(60_000);
    const rounded = packHalf(
      Float32Array.from(exact, ({ value }) => value),
      type,
    );
    expect(exact.filter(({ half }, i) => rounded[i] !== half)).toEqual([]);
    const negative = packHalf(
      Float32Array.from(exact, ({ value }) => -value),
      type,
    );
    expect(exact.filter(({ half }, i) => negative[i] !== (half | 0x8000))).toEqual([]);
  });

  it('is off by half a step at most for ordinary numbers', () => {
    const values = randomNormals(1, PURPOSE.test, 0, 10_000);
    const back = unpackHalf(packHalf(values, type), type);
    const far = values.filter(
      (value, i) => Math.abs(back[i]! - value) > Math.abs(value) * 2 ** -(FORMATS[type].fraction + 1),
    );
    expect(far).toHaveLength(0);
  });
});

it('turns what float16 cannot hold into infinity', () => {
  expect(Array.from(packHalf(Float32Array.of(65_519, 65_520, -1e9, Infinity), 'float16'))).toEqual([
    0x7bff, 0x7c00, 0xfc00, 0x7c00,
  ]);
});
