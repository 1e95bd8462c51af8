import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SampleOrder } from '../../src/data/sample_order.ts';
import type { TokenSegment } from '../../src/data/token_dataset.ts';

const T = 4;

/** Sources that hold so many whole sequences, and one token of the next. */
function segmentsOf(sequences: readonly number[]): TokenSegment[] {
  let start = 0;
  return sequences.map((count, i) => {
    const segment = { name: `source ${i}`, start, tokens: T * count + 1 };
    start += segment.tokens;
    return segment;
  });
}

/** Of every source, how often each of its sequences is seen in `epochs` epochs from epoch `first` on. */
function seen(order: SampleOrder, segments: TokenSegment[], seed: number, first: number, epochs: number): number[][] {
  const counts = segments.map(({ tokens }) => new Array<number>(Math.floor((tokens - 1) / T)).fill(0));
  for (let i = first * order.numSamples; i < (first + epochs) * order.numSamples; i++) {
    const at = order.startAt(seed, i);
    const source = segments.findIndex(({ start, tokens }) => start <= at && at + T < start + tokens);
    const sequence = (at - segments[source]!.start) / T;
    expect(Number.isInteger(sequence)).toBe(true);
    counts[source]![sequence]! += 1;
  }
  return counts;
}

describe('SampleOrder', () => {
  const sizes = fc.array(fc.nat(40), { minLength: 1, maxLength: 5 }).filter((all) => all.some((size) => size > 0));

  it('shows every sequence of every source once an epoch, in an order of its own', () => {
    fc.assert(
      fc.property(fc.nat(), sizes, fc.nat(5), (seed, counts, epoch) => {
        const segments = segmentsOf(counts);
        const order = new SampleOrder(segments, T);
        expect(
          seen(order, segments, seed, epoch, 1)
            .flat()
            .every((count) => count === 1),
        ).toBe(true);
      }),
      { numRuns: 60 },
    );
    const order = new SampleOrder(segmentsOf([50]), T);
    const epoch = (seed: number, number: number) =>
      Array.from({ length: 50 }, (_, i) => order.startAt(seed, number * 50 + i));
    expect(epoch(1, 0)).not.toEqual(epoch(1, 1));
    expect(epoch(1, 0)).not.toEqual(epoch(2, 0));
  });

  it('gives each source exactly its share of an epoch, and shows all of it equally often', () => {
    const weights = fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 5, maxLength: 5 });
    fc.assert(
      fc.property(fc.nat(), sizes, weights, fc.integer({ min: 1, max: 4 }), (seed, counts, given, epochs) => {
        const segments = segmentsOf(counts);
        const order = new SampleOrder(segments, T, new Map(segments.map(({ name }, i) => [name, given[i]!])));
        const total = given.reduce((sum, weight, i) => sum + (counts[i]! > 0 ? weight : 0), 0);
        const times = seen(order, segments, seed, 0, epochs);
        for (const [i, own] of times.entries()) {
          if (own.length === 0) continue;
          const sum = own.reduce((a, b) => a + b, 0);
          const share = (order.numSamples * given[i]!) / total;
          expect(sum % epochs).toBe(0);
          expect(Math.abs(sum / epochs - share)).toBeLessThan(1);
          expect(Math.max(...own) - Math.min(...own)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('mixes the sources throughout the epoch', () => {
    const segments = segmentsOf([300, 300]);
    const order = new SampleOrder(
      segments,
      T,
      new Map([
        ['source 0', 3],
        ['source 1', 1],
      ]),
    );
    for (let part = 0; part < 4; part++) {
      const starts = Array.from({ length: 150 }, (_, i) => order.startAt(7, 150 * part + i));
      const first = starts.filter((start) => start < segments[1]!.start).length;
      expect(first).toBeGreaterThan(90);
      expect(first).toBeLessThan(135);
    }
  });
});
