import fc from 'fast-check';
import { expect, test } from 'vitest';
import { histogramOf, isMedia } from '../../src/tracking/values.ts';

test('a histogram counts each finite value in its interval', () => {
  expect(histogramOf([0, 1, 2, 3, 4, Number.NaN, Number.POSITIVE_INFINITY], 4)).toEqual({
    type: 'histogram',
    edges: [0, 1, 2, 3, 4],
    counts: [1, 1, 1, 2],
  });
});

test('of one value, or of none', () => {
  expect(histogramOf([3, 3], 2)).toEqual({ type: 'histogram', edges: [2.5, 3, 3.5], counts: [0, 2] });
  expect(histogramOf([])).toEqual({ type: 'histogram', edges: [0, 0], counts: [0] });
});

test('of any values: edges rise, and every finite value is counted', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.float(), fc.constantFrom(1e20, 1e20 + 2 ** 14, 1e-45, 0))),
      fc.integer({ min: 1, max: 80 }),
      (values, intervals) => {
        const finite = values.filter(Number.isFinite);
        const { edges, counts } = histogramOf(values, intervals);
        expect(edges).toHaveLength(counts.length + 1);
        expect(edges.every(Number.isFinite)).toBe(true);
        expect(counts.reduce((sum, count) => sum + count, 0)).toBe(finite.length);
        expect(edges.every((edge, i) => i === 0 || edge >= edges[i - 1]!)).toBe(true);
        if (finite.length === 0) return;
        expect(edges[0]).toBeLessThanOrEqual(Math.min(...finite));
        expect(edges.at(-1)).toBeGreaterThanOrEqual(Math.max(...finite));
      },
    ),
    { numRuns: 300 },
  );
});

test('media are told from numbers, texts and what was not finite', () => {
  expect([null, undefined, 1, 'a', true].some(isMedia)).toBe(false);
  expect(isMedia({ type: 'text', text: '' })).toBe(true);
});
