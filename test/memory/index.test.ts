import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ExactIndex, normalised } from '../../src/memory/index.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

describe('ExactIndex', () => {
  it('finds what sorting all cosines finds', async () => {
    const property = async (count: number, queryCount: number, k: number, dimensions: number): Promise<void> => {
      const vectors = randomNormals(1, PURPOSE.test, count, count * dimensions);
      const queries = randomNormals(2, PURPOSE.test, count, queryCount * dimensions);
      const index = new ExactIndex(dimensions);
      const half = Math.floor(count / 2);
      index.add([...Array(half).keys()], vectors.subarray(0, half * dimensions));
      index.add(
        Array.from({ length: count - half }, (_, i) => half + i),
        vectors.subarray(half * dimensions),
      );
      const { ids, scores } = await index.search(queries, k);
      for (let q = 0; q < queryCount; q++) {
        const query = queries.subarray(q * dimensions, (q + 1) * dimensions);
        const all = Array.from({ length: count }, (_, id) => {
          const vector = vectors.subarray(id * dimensions, (id + 1) * dimensions);
          return { id, score: dot(query, vector) / Math.sqrt(dot(query, query) * dot(vector, vector)) };
        });
        const expected = all.sort((a, b) => b.score - a.score).slice(0, k);
        expect([...ids.subarray(q * k, q * k + expected.length)]).toEqual(expected.map(({ id }) => id));
        for (const [i, { score }] of expected.entries()) expect(scores[q * k + i]).toBeCloseTo(score, 5);
        for (let slot = expected.length; slot < k; slot++) {
          expect(ids[q * k + slot]).toBe(-1);
          expect(scores[q * k + slot]).toBe(-Infinity);
        }
      }
    };
    const size = (max: number) => fc.integer({ min: 1, max });
    const dimensions = fc.integer({ min: 3, max: 12 }); // In fewer, rounding decides between vectors of one direction.
    await fc.assert(fc.asyncProperty(size(600), size(9), size(7), dimensions, property), { numRuns: 60 });
  });

  it('gives equal scores in the order of ids, whatever the order of adding', async () => {
    const index = new ExactIndex(2);
    index.add([5, 1, 9, 3], Float32Array.from([2, 0, 1, 0, 0, 1, 7, 0]));
    expect([...(await index.search(Float32Array.from([1, 0]), 3)).ids]).toEqual([1, 3, 5]);
  });

  it('leaves zero vectors alone and refuses wrong sizes', () => {
    expect([...normalised(Float32Array.from([0, 0, 3, 4]), 2)]).toEqual([0, 0, Math.fround(0.6), Math.fround(0.8)]);
    expect(() => new ExactIndex(3).add([1], new Float32Array(2))).toThrow(RangeError);
  });
});

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * b[i]!, 0);
}
