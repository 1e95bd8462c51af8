import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PURPOSE, permute, philox, randomBits, randomInt, randomNormals, randomUniform } from '../src/random.ts';

const ALL = 0xffffffff;

describe('philox', () => {
  // From kat_vectors of Random123, the authors' implementation.
  test.each([
    { counter: [0, 0, 0, 0], key: [0, 0], expected: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
    { counter: [ALL, ALL, ALL, ALL], key: [ALL, ALL], expected: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd] },
    {
      counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      key: [0xa4093822, 0x299f31d0],
      expected: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    },
  ])('known answer for counter $counter', ({ counter, key, expected }) => {
    expect(philox(counter as [number, number, number, number], key as [number, number])).toEqual(expected);
  });
});

test('every argument changes the bits', () => {
  const base = randomBits(1, PURPOSE.test, 2, 3).join();
  expect(randomBits(1, PURPOSE.test, 2, 3).join()).toBe(base);
  const others = [
    randomBits(2, PURPOSE.test, 2, 3),
    randomBits(1 + 2 ** 32, PURPOSE.test, 2, 3),
    randomBits(1, PURPOSE.sampling, 2, 3),
    randomBits(1, PURPOSE.test, 3, 3),
    randomBits(1, PURPOSE.test, 2 + 2 ** 32, 3),
    randomBits(1, PURPOSE.test, 2, 4),
    randomBits(1, PURPOSE.test, 2, 3 + 2 ** 32),
  ].map((words) => words.join());
  expect(new Set([base, ...others]).size).toBe(8);
});

test('purposes have numbers of their own', () => {
  expect(new Set(Object.values(PURPOSE)).size).toBe(Object.keys(PURPOSE).length);
});

test('uniform values fill [0, 1) evenly', () => {
  const count = 20_000;
  const bins = new Array<number>(10).fill(0);
  for (let i = 0; i < count; i++) {
    const value = randomUniform(7, PURPOSE.test, 0, i);
    bins[Math.floor(value * 10)]! += 1;
  }
  // Five standard deviations of a bin: 5 · √(20,000 · 0.1 · 0.9).
  for (const bin of bins) expect(Math.abs(bin - 2000)).toBeLessThan(212);
});

test('randomInt stays below its bound and reaches every value', () => {
  const seen = new Set<number>();
  for (let i = 0; i < 200; i++) seen.add(randomInt(7, PURPOSE.test, 1, i, 5));
  expect([...seen].sort()).toEqual([0, 1, 2, 3, 4]);
});

test('normal values: moments, and a longer draw begins like a shorter one', () => {
  const values = randomNormals(3, PURPOSE.test, 0, 40_000);
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const square = values.reduce((sum, x) => sum + x * x, 0) / values.length;
  const fourth = values.reduce((sum, x) => sum + x ** 4, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.025);
  expect(Math.abs(square - 1)).toBeLessThan(0.035);
  expect(Math.abs(fourth - 3)).toBeLessThan(0.3);
  for (const count of [0, 1, 2, 3, 5, 7]) {
    expect(randomNormals(3, PURPOSE.test, 0, count)).toEqual(values.slice(0, count));
  }
});

describe('permute', () => {
  test('is a bijection of [0, size)', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(1000), fc.integer({ min: 1, max: 300 }), (seed, epoch, size) => {
        const image = Array.from({ length: size }, (_, i) => permute(seed, PURPOSE.test, epoch, i, size));
        expect(image.toSorted((a, b) => a - b)).toEqual(Array.from({ length: size }, (_, i) => i));
      }),
      { numRuns: 60 },
    );
  });

  test('orders few items evenly', () => {
    // All ordered pairs (place of 0, place of 1) among five, over many epochs: 20 cells of about 300.
    const counts = new Map<string, number>();
    for (let epoch = 0; epoch < 6000; epoch++) {
      const pair = [0, 1].map((i) => permute(9, PURPOSE.test, epoch, i, 5)).join();
      counts.set(pair, (counts.get(pair) ?? 0) + 1);
    }
    const chiSquare = [...counts.values()].reduce((sum, n) => sum + (n - 300) ** 2 / 300, 0);
    expect(counts.size).toBe(20);
    // 43.8 is exceeded by chance once in a thousand (19 degrees of freedom).
    expect(chiSquare).toBeLessThan(43.8);
  });

  test('epochs differ', () => {
    const order = (epoch: number) =>
      Array.from({ length: 50 }, (_, i) => permute(1, PURPOSE.test, epoch, i, 50)).join();
    expect(order(0)).not.toBe(order(1));
  });

  test('works for sizes that no array could have, also just above a power of two', () => {
    for (const size of [2 ** 33, 2 ** 50 + 1, 2 ** 52]) {
      const image = [0, 1, size - 1].map((i) => permute(5, PURPOSE.test, 0, i, size));
      expect(new Set(image).size).toBe(3);
      for (const value of image) expect(value >= 0 && value < size && Number.isSafeInteger(value)).toBe(true);
    }
  });

  test.each([
    [-1, 5],
    [5, 5],
    [0.5, 5],
    [0, 0],
    [0, 2 ** 52 + 1],
  ])('refuses index %d of %d', (index, size) => {
    expect(() => permute(1, PURPOSE.test, 0, index, size)).toThrow(RangeError);
  });
});
