/** From series to lines, and numbers as people read them. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Series } from '../../../src/dashboard/api.ts';
import { align, curveOf, nearest, smooth, spread, stackedShares } from '../../../src/dashboard/page/curves.ts';
import { anything, bytes, duration, formatOf, number, percent, short } from '../../../src/dashboard/page/format.ts';

function series(key: string, mean: (number | null)[], x = mean.map((_, i) => i + 1)): Series {
  return { key, x, mean, min: mean, max: mean };
}

describe('curves', () => {
  it('leaves out points without a value', () => {
    const curve = curveOf({ key: 'a', x: [1, 2, 3], mean: [1, null, 3], min: [0, null, 2], max: [2, null, 4] });
    expect(curve).toEqual({ x: [1, 3], y: [1, 3], low: [0, 2], high: [2, 4] });
  });

  it('smooths as the formula says, and alike however many rows a point stands for', () => {
    const values = [4, 2, 6];
    const one = { x: [1, 2, 3], y: values };
    const expected = [4, (0.5 * 4 + 2) / 1.5, (0.25 * 4 + 0.5 * 2 + 6) / 1.75];
    for (const [i, value] of smooth(one, 0.5, 1).entries()) expect(value).toBeCloseTo(expected[i]!, 12);
    // Two rows a point: what is before weighs the square.
    expect(smooth(one, 0.5, 2)[1]).toBeCloseTo((0.25 * 4 + 2) / 1.25, 12);
    expect(smooth(one, 0, 1)).toEqual(values);
    expect(smooth(one, 0.9, 1, 3)[2]).toBeCloseTo(6, 12);
  });

  it('keeps a smoothed line between the least and the greatest value', () => {
    const values = fc.array(fc.double({ min: -1e6, max: 1e6, noNaN: true }), { minLength: 1 });
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 0.999, noNaN: true }), (y, weight) => {
        const [low, high] = [Math.min(...y) - 1e-3, Math.max(...y) + 1e-3];
        const line = smooth({ x: y.map((_, i) => i), y }, weight, 1);
        expect(line.every((value) => value !== null && value >= low && value <= high)).toBe(true);
      }),
    );
  });

  it('lays shares on each other up to one', () => {
    const [first, second] = stackedShares([series('a', [1, 0, null]), series('b', [3, 0, 2])]);
    expect(first).toEqual({ x: [1, 2, 3], low: [0, 0, 0], y: [0.25, null, 0] });
    expect(second).toEqual({ x: [1, 2, 3], low: [0.25, 0, 0], y: [1, null, 1] });
  });

  it('puts lines of different points over one axis', () => {
    const { x, at } = align([
      { x: [1, 3], y: [1, 2] },
      { x: [2, 3], y: [5, 6] },
    ]);
    expect(x).toEqual([1, 2, 3]);
    expect(at).toEqual([
      [0, undefined, 1],
      [undefined, 0, 1],
    ]);
    expect(align([])).toEqual({ x: [], at: [] });
  });

  it('finds the nearest point, as a search through all does', () => {
    const axis = fc.uniqueArray(fc.integer({ min: -1000, max: 1000 }), { minLength: 1 });
    fc.assert(
      fc.property(axis, fc.integer({ min: -1200, max: 1200 }), (points, value) => {
        const x = points.sort((a, b) => a - b);
        const distances = x.map((point) => Math.abs(point - value));
        expect(distances[nearest(x, value)]).toBe(Math.min(...distances));
      }),
    );
    expect(nearest([], 1)).toBe(-1);
  });

  it('spreads rows of a table evenly, first and last among them', () => {
    expect(spread(3, 10)).toEqual([0, 1, 2]);
    const chosen = spread(1000, 100);
    expect([chosen.length, chosen[0], chosen.at(-1), new Set(chosen).size]).toEqual([100, 0, 999, 100]);
  });
});

describe('numbers', () => {
  it.each([
    [number(1.23456), '1.235'],
    [number(0), '0'],
    [number(12), '12'],
    [number(12345.6), '12,346'],
    [number(1.5e-5), '1.50e-5'],
    [number(null), '–'],
    [number(Number.NaN), '–'],
    [short(1234567), '1.23M'],
    [short(999), '999'],
    [bytes(1_500_000), '1.50 MB'],
    [bytes(12), '12 B'],
    [duration(41), '41 s'],
    [duration(185), '3 min 05 s'],
    [duration(59.7), '1 min 00 s'],
    [duration(7800), '2 h 10 min'],
    [duration(273_600), '3 d 4 h'],
    [percent(0.1234), '12.3 %'],
    [anything({ kind: 'wsd' }), '{"kind":"wsd"}'],
    [anything(undefined), 'not set'],
    [anything(0.1 + 0.2), '0.3'],
    [formatOf('train/learning_rate')(0.0004), '0.0004'],
    [formatOf('bank/cache_hit_rate')(0.5), '50.0 %'],
    [formatOf('hardware/process_rss_bytes')(2e9), '2.00 GB'],
    [formatOf('time/data_ms')(0.5), '0.5000 ms'],
  ])('writes %s', (text, expected) => {
    expect(text).toBe(expected);
  });
});
