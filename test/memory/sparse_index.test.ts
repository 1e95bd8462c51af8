import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import * as bank from '../../src/engine/native/bank.ts';
import { normalised } from '../../src/memory/index.ts';
import { SparseIndex } from '../../src/memory/sparse_index.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

/** Vectors of which about a third of the numbers is not zero, [n, d]. */
function sparse(seed: number, count: number, dimensions: number): Float32Array {
  const keep = randomNormals(seed, PURPOSE.test, 1, count * dimensions);
  return randomNormals(seed, PURPOSE.test, 0, count * dimensions).map((value, i) => (keep[i]! > 0.4 ? value : 0));
}

/** Sorting all inner products of the normalised vectors. */
function sorted(vectors: Float32Array, query: Float32Array, dimensions: number): { id: number; score: number }[] {
  const count = vectors.length / dimensions;
  const scored = Array.from({ length: count }, (_, id) => {
    const vector = vectors.subarray(id * dimensions, (id + 1) * dimensions);
    return { id, score: query.reduce((sum, value, i) => sum + value * vector[i]!, 0) };
  });
  return scored.sort((a, b) => b.score - a.score || a.id - b.id);
}

async function check(count: number, queryCount: number, k: number, dimensions: number, threads: number): Promise<void> {
  const vectors = sparse(1, count, dimensions);
  const queries = sparse(2, queryCount, dimensions);
  const index = new SparseIndex(dimensions, threads);
  const half = Math.floor(count / 2);
  const numbers = Array.from({ length: count }, (_, i) => i);
  index.add(numbers.slice(0, half), vectors.subarray(0, half * dimensions));
  // The block that is open is searched, and goes on growing.
  await index.search(queries, k);
  index.add(numbers.slice(half), vectors.subarray(half * dimensions));
  expect(index.size).toBe(count);
  const { ids, scores } = await index.search(queries, k);
  const [normal, asked] = [normalised(vectors, dimensions), normalised(queries, dimensions)];
  for (let q = 0; q < queryCount; q++) {
    const expected = sorted(normal, asked.subarray(q * dimensions, (q + 1) * dimensions), dimensions);
    const there = Math.min(k, count);
    for (let slot = 0; slot < there; slot++) {
      expect(scores[q * k + slot]).toBeCloseTo(expected[slot]!.score, 5);
      const found = expected.find(({ id }) => id === ids[q * k + slot]);
      expect(found?.score).toBeCloseTo(expected[slot]!.score, 5);
    }
    expect(new Set(ids.subarray(q * k, q * k + there)).size).toBe(there);
    for (let slot = there; slot < k; slot++) {
      expect(ids[q * k + slot]).toBe(-1);
      expect(scores[q * k + slot]).toBe(-Infinity);
    }
  }
}

describe.each(['native', 'portable'])('SparseIndex, %s', (way) => {
  const choose = (): void => {
    if (way === 'portable') vi.spyOn(bank, 'nativeBank').mockReturnValue(undefined);
  };

  it('finds what sorting all inner products finds', async () => {
    choose();
    const size = (max: number) => fc.integer({ min: 1, max });
    await fc.assert(fc.asyncProperty(size(400), size(5), size(9), size(20), size(3), check), { numRuns: 40 });
  });

  it('goes through several blocks', async () => {
    choose();
    await check(2 * bank.SPARSE_BLOCK + 5, 2, 4, 6, 2);
  });

  it('gives equal scores in the order of ids', async () => {
    choose();
    const index = new SparseIndex(3);
    const count = bank.SPARSE_BLOCK + 40;
    const ids = Array.from({ length: count }, (_, i) => 10 * i);
    const same = new Float32Array(3 * count).map((_, i) => (i % 3 === 1 ? 2 : 0));
    index.add(ids, same);
    const found = await index.search(Float32Array.from([0, 5, 0, 1, 0, 0]), 3);
    expect([...found.ids]).toEqual([0, 10, 20, 0, 10, 20]);
    expect([...found.scores]).toEqual([1, 1, 1, 0, 0, 0]);
  });
});

describe('SparseIndex', () => {
  it('gives the same bits with any number of threads', async () => {
    const dimensions = 32;
    const count = 3 * bank.SPARSE_BLOCK + 100;
    const vectors = sparse(3, count, dimensions);
    const queries = sparse(4, 7, dimensions);
    const results = await Promise.all(
      [1, 2, 5].map((threads) => {
        const index = new SparseIndex(dimensions, threads);
        index.add([...Array(count).keys()], vectors);
        return index.search(queries, 6);
      }),
    );
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  it('answers without vectors and without queries', async () => {
    const index = new SparseIndex(2);
    expect([...(await index.search(Float32Array.from([1, 0]), 2)).ids]).toEqual([-1, -1]);
    index.add([0], Float32Array.from([0, 1]));
    expect((await index.search(new Float32Array(0), 2)).ids).toHaveLength(0);
  });

  it('refuses wrong sizes and ids that do not ascend', () => {
    const index = new SparseIndex(2);
    expect(() => index.add([0], new Float32Array(3))).toThrow(RangeError);
    index.add([4], new Float32Array(2));
    expect(() => index.add([4], new Float32Array(2))).toThrow(RangeError);
  });
});

describe.runIf(bank.nativeBank())('the native functions', () => {
  const native = bank.nativeBank()!;
  const block = { size: 2, starts: Int32Array.of(0, 1, 2), rows: Uint16Array.of(0, 1), values: Float32Array.of(1, 1) };
  const search = (given: typeof block) =>
    native.sparseSearch([given], new Float32Array(2), 2, 1, 1, new Int32Array(1), new Float32Array(1));

  it('refuse blocks that do not fit', () => {
    for (const wrong of [
      { ...block, starts: Int32Array.of(0, 2, 1) },
      { ...block, starts: Int32Array.of(0, 1, 3) },
      { ...block, starts: Int32Array.of(0, 2) },
      { ...block, rows: Uint16Array.of(0) },
      { ...block, size: bank.SPARSE_BLOCK + 1 },
    ]) {
      expect(() => search(wrong)).toThrow(RangeError);
    }
  });

  it('keep a row that is not there inside of the block', async () => {
    await search({ ...block, rows: Uint16Array.of(65_535, 40_000) });
  });
});
