import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exceeds, overlap } from '../../src/memory/overlap.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';

/** The definition, slowly: the best common subsequence over all windows of 2·|r| + 1 tokens of t. */
function slowOverlap(t: number[], r: number[]): number {
  let best = 0;
  for (let start = 0; start < t.length; start++) {
    const window = t.slice(start, start + 2 * r.length + 1);
    let row = new Array<number>(r.length + 1).fill(0);
    for (const token of window) {
      const next = [0];
      for (let j = 1; j <= r.length; j++) {
        next[j] = token === r[j - 1] ? row[j - 1]! + 1 : Math.max(row[j]!, next[j - 1]!);
      }
      row = next;
    }
    best = Math.max(best, row[r.length]!);
  }
  return r.length === 0 ? 0 : best / r.length;
}

const tokens = (maxLength: number) => fc.array(fc.integer({ min: 0, max: 6 }), { maxLength });

describe('overlap', () => {
  it('is the definition of paper §3.5', () => {
    fc.assert(
      fc.property(tokens(60), tokens(12), (t, r) => {
        expect(overlap(Int32Array.from(t), Int32Array.from(r))).toBe(slowOverlap(t, r));
      }),
      { numRuns: 400 },
    );
  });

  it('is the definition for references of more than one machine word', () => {
    fc.assert(
      fc.property(tokens(200), fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 30, maxLength: 70 }), (t, r) => {
        expect(overlap(Int32Array.from(t), Int32Array.from(r))).toBe(slowOverlap(t, r));
      }),
      { numRuns: 60 },
    );
  });

  it('says whether a threshold is exceeded as the quotient says it', () => {
    const threshold = fc.oneof(
      fc.constantFrom(0, 0.5, 2 / 3, 0.667, 0.9, 1),
      fc.double({ min: 0, max: 1, noNaN: true }),
    );
    fc.assert(
      fc.property(tokens(60), tokens(12), threshold, (t, r, limit) => {
        expect(exceeds(Int32Array.from(t), Int32Array.from(r), limit)).toBe(slowOverlap(t, r) > limit);
      }),
      { numRuns: 400 },
    );
  });

  it('does not add up matches that lie farther apart than twice the reference', () => {
    const far = Int32Array.from([1, 0, 0, 0, 0, 2]);
    expect(overlap(far, Int32Array.from([1, 2]))).toBe(0.5);
    expect(overlap(far.subarray(0, 5), Int32Array.from([1, 0]))).toBe(1);
    expect(overlap(Int32Array.from([1, 0, 0, 0, 2]), Int32Array.from([1, 2]))).toBe(1);
  });

  it('finds a reference hidden in a long sequence, and rejects common words quickly', () => {
    const word = (step: number, i: number, size: number): number => randomInt(3, PURPOSE.test, step, i, size);
    const sequence = Int32Array.from({ length: 2048 }, (_, i) => word(1, i, 200));
    const reference = Int32Array.from({ length: 128 }, (_, i) => word(2, i, 200));
    const started = performance.now();
    for (let i = 0; i < 50; i++) expect(exceeds(sequence, reference, 0.9)).toBe(false);
    expect(performance.now() - started).toBeLessThan(2000);
    sequence.set(
      reference.filter((_, i) => i % 16 !== 3),
      1000,
    );
    expect(exceeds(sequence, reference, 0.9)).toBe(true);
    expect(exceeds(sequence, reference, 0.98)).toBe(false);
  });
});
