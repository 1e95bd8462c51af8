import { once } from 'node:events';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { FaissCodec, FaissIndex, faissAvailable, faissSpelling } from '../../src/engine/native/faiss.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { temporaryFolder } from '../memory/fixtures.ts';

const available = faissAvailable();
const describeFaiss = available.ok ? describe : describe.skip;

const D = 16;

/** Vectors around a few centres, as texts about a few subjects are. */
function vectors(count: number, seed: number, dimensions = D): Float32Array {
  const centres = randomNormals(7, PURPOSE.test, 1, 20 * dimensions);
  const noise = randomNormals(seed, PURPOSE.test, 0, count * dimensions);
  return Float32Array.from(noise, (value, i) => {
    const row = Math.floor(i / dimensions);
    return 0.5 * value + centres[((row * 7) % 20) * dimensions + (i % dimensions)]!;
  });
}

/** Ids beyond 2^32, as the bank makes them. */
const idOf = (row: number): bigint => (BigInt(row % 3) << 32n) | BigInt(row);
const idsOf = (count: number, from = 0): BigInt64Array =>
  BigInt64Array.from({ length: count }, (_, i) => idOf(from + i));

/** All scores of a query in float64, nearest first. */
function bruteForce(data: Float32Array, query: Float32Array, metric: 'ip' | 'l2'): { id: bigint; score: number }[] {
  const scored = Array.from({ length: data.length / D }, (_, row) => {
    let score = 0;
    for (let i = 0; i < D; i++) {
      const value = data[row * D + i]!;
      score += metric === 'ip' ? value * query[i]! : (value - query[i]!) ** 2;
    }
    return { id: idOf(row), score };
  });
  return scored.sort((a, b) => (metric === 'ip' ? b.score - a.score : a.score - b.score));
}

async function built(factory: string, data: Float32Array, options: { metric?: 'ip' | 'l2'; threads?: number } = {}) {
  const index = FaissIndex.create(D, factory, { threads: 2, ...options });
  await index.train(data);
  await index.add(data, idsOf(data.length / D));
  return index;
}

/** Share of the true `k` nearest that are found. */
async function recall(index: FaissIndex, data: Float32Array, queries: Float32Array, k: number): Promise<number> {
  const { ids } = await index.search(queries, k);
  let hits = 0;
  for (let q = 0; q < queries.length / D; q++) {
    const truth = new Set(
      bruteForce(data, queries.subarray(q * D, (q + 1) * D), index.metric)
        .slice(0, k)
        .map(({ id }) => id),
    );
    hits += ids.subarray(q * k, (q + 1) * k).filter((id) => truth.has(id)).length;
  }
  return hits / (k * (queries.length / D));
}

it('says whether Faiss is there, or what is missing', () => {
  if (!available.ok) expect(available.why).toMatch(/addon/);
  if (!available.ok) expect(() => FaissIndex.create(4, 'Flat')).toThrow(/not available/);
  expect(faissSpelling('OPQ20x80-Residual2x14-PQ8x10')).toBe('OPQ20_80,Residual2x14,PQ8x10');
});

describeFaiss('FaissIndex', () => {
  const data = vectors(3000, 1);
  const queries = vectors(25, 2);

  it('finds exactly what brute force in float64 finds, with its ids, for few queries and for many', async () => {
    for (const metric of ['ip', 'l2'] as const) {
      const index = await built('Flat', data, { metric });
      expect(index).toMatchObject({ size: 3000, dimensions: D, trained: true });
      for (const count of [1, 25]) {
        const { ids, scores } = await index.search(queries.subarray(0, count * D), 5);
        for (let q = 0; q < count; q++) {
          const truth = bruteForce(data, queries.subarray(q * D, (q + 1) * D), metric).slice(0, 5);
          expect([...ids.subarray(q * 5, q * 5 + 5)]).toEqual(truth.map(({ id }) => id));
          truth.forEach(({ score }, i) => {
            expect(scores[q * 5 + i]).toBeCloseTo(score, 3);
          });
        }
      }
    }
  });

  it('finds most of it with graphs, inverted lists, codes and transforms, more of it when it looks further', async () => {
    const cases: [factory: string, parameter: string | undefined, values: [number, number], least: number][] = [
      ['HNSW16', 'efSearch', [8, 128], 0.95],
      ['IVF32,Flat', 'nprobe', [1, 32], 0.999],
      ['PCA12,IVF16,PQ4x6', 'nprobe', [1, 16], 0.3],
      ['IDMap2,HNSW16', 'efSearch', [8, 128], 0.95],
      ['IVF16,SQ8', 'nprobe', [1, 16], 0.9],
      ['SQ8', undefined, [0, 0], 0.9],
    ];
    for (const [factory, parameter, [low, high], least] of cases) {
      const index = await built(factory, data);
      if (parameter) await index.set(parameter, low);
      const before = await recall(index, data, queries, 10);
      if (parameter) await index.set(parameter, high);
      const after = await recall(index, data, queries, 10);
      expect(after, factory).toBeGreaterThanOrEqual(Math.max(before, least));
      if (parameter) expect(before, factory).toBeLessThan(after);
    }
  });

  it('removes, counts, gives ranges of ids, finds within a radius and gives vectors back', async () => {
    for (const factory of ['Flat', 'IVF16,Flat']) {
      const index = await built(factory, data, { metric: 'l2' });
      if (factory !== 'Flat') await index.set('nprobe', 16);
      expect(await index.idRange()).toEqual([0n, idOf(2999)]);
      expect(await index.reconstruct(idsOf(3, 1000))).toEqual(data.slice(1000 * D, 1003 * D));
      const truth = bruteForce(data, queries.subarray(0, D), 'l2');
      const radius = (truth[9]!.score + truth[10]!.score) / 2;
      const range = await index.searchRange(queries.subarray(0, 2 * D), radius);
      expect(range.limits).toHaveLength(3);
      expect(new Set(range.ids.subarray(0, range.limits[1]))).toEqual(new Set(truth.slice(0, 10).map(({ id }) => id)));
      const gone = BigInt64Array.from([truth[0]!.id, truth[1]!.id, 5_000_000n]);
      expect(await index.remove(gone)).toBe(2);
      expect(index.size).toBe(2998);
      const { ids } = await index.search(queries.subarray(0, D), 3);
      expect([...ids]).toEqual(truth.slice(2, 5).map(({ id }) => id));
      await expect(index.reconstruct(gone.subarray(0, 1))).rejects.toThrow();
      expect(await index.remove(idsOf(3000))).toBe(2998);
      expect(await index.idRange()).toBeUndefined();
    }
  });

  it('fills up with −1 where there are too few', async () => {
    const index = FaissIndex.create(D, 'Flat');
    expect(await index.search(queries.subarray(0, D), 2)).toMatchObject({ ids: BigInt64Array.from([-1n, -1n]) });
    const many = await index.search(data.subarray(0, 64 * D), 2);
    expect(many.ids.every((id) => id === -1n)).toBe(true);
    expect(many.scores.every((score) => score === -Infinity)).toBe(true);
    await index.add(data.subarray(0, D), idsOf(1));
    expect((await index.search(queries.subarray(0, D), 2)).ids).toEqual(BigInt64Array.from([0n, -1n]));
    expect((await index.search(new Float32Array(0), 2)).ids).toHaveLength(0);
  });

  it('writes and reads itself, also mapped from the file, which then cannot be changed', async () => {
    const folder = await temporaryFolder();
    for (const factory of ['Flat', 'HNSW16', 'IVF16,Flat', 'PCA12,IVF16,PQ4x6']) {
      const index = await built(factory, data);
      const path = join(folder, `${factory}.faiss`);
      await index.write(path);
      const expected = await index.search(queries, 4);
      for (const map of factory.includes('IVF') ? [false, true] : [false]) {
        const again = await FaissIndex.read(path, { map, threads: 2 });
        expect(again.size).toBe(3000);
        expect(await again.search(queries, 4)).toEqual(expected);
        if (!map) continue;
        expect(again.memoryBytes).toBeLessThan(index.memoryBytes);
        await expect(again.remove(idsOf(1))).rejects.toThrow(/mapped/);
        await expect(again.add(data.subarray(0, D), idsOf(1))).rejects.toThrow(/mapped/);
        // Faiss goes on reading a mapped file ahead, in threads of its own: it is cut below.
        await again.close();
      }
      const bytes = await readFile(path);
      await writeFile(path, bytes.subarray(0, bytes.length / 2));
      await expect(FaissIndex.read(path)).rejects.toThrow();
    }
    await expect(FaissIndex.read(join(folder, 'none'))).rejects.toThrow(/none/);
  });

  it('gives the same bits each time: trained, added to and searched on the same number of threads', async () => {
    for (const [factory, threads] of [
      ['Flat', 2],
      ['IVF32,Flat', 1],
      ['IVF32,Flat', 2],
      ['PCA12,IVF16,PQ4x6', 2],
      ['HNSW16', 1], // On more the links of a graph depend on which thread comes first.
    ] as const) {
      const first = await built(factory, data, { threads });
      const expected = await first.bytes();
      const found = await first.search(queries, 10);
      for (let times = 0; times < 3; times++) {
        const index = await built(factory, data, { threads });
        expect(Buffer.compare(await index.bytes(), expected), factory).toBe(0);
        expect(await index.search(queries, 10)).toEqual(found);
      }
    }
    // Searching a graph that is there changes nothing.
    const graph = await built('HNSW16', data, { threads: 1 });
    const found = await graph.search(queries, 10);
    graph.threads = 2;
    expect(await graph.search(queries, 10)).toEqual(found);
  });

  it('runs calls on one index in the order in which they were made', async () => {
    const index = FaissIndex.create(D, 'Flat', { threads: 2 });
    const answers = await Promise.all([
      index.add(data.subarray(0, D), idsOf(1)),
      index.search(queries.subarray(0, D), 1),
      index.add(data, idsOf(3000, 1)),
      index.search(queries.subarray(0, D), 1),
      index.remove(idsOf(3001)),
      index.search(queries.subarray(0, D), 1),
    ]);
    expect(answers[1]!.ids[0]).toBe(0n);
    expect(answers[3]!.ids[0]).not.toBe(-1n);
    expect(answers[4]).toBe(3001);
    expect(answers[5]!.ids[0]).toBe(-1n);
  });

  it('turns what is wrong into errors', async () => {
    expect(() => FaissIndex.create(D, 'Nonsense7')).toThrow(/Nonsense7/);
    expect(() => FaissIndex.create(0, 'Flat')).toThrow(/dimensions/);
    expect(() => FaissIndex.create(D, 'PQ5')).toThrow();
    const index = FaissIndex.create(D, 'IVF64,Flat');
    await expect(index.add(data.subarray(0, D), idsOf(1))).rejects.toThrow(/trained/);
    await expect(index.search(queries, 3)).rejects.toThrow(/trained/);
    await expect(index.train(data.subarray(0, 10 * D))).rejects.toThrow(/64/);
    await expect(index.train(data.subarray(0, D + 1))).rejects.toThrow(RangeError);
    await index.train(data);
    await expect(index.add(data.subarray(0, D), idsOf(2))).rejects.toThrow(RangeError);
    await expect(index.add(data.subarray(0, D), BigInt64Array.of(-1n))).rejects.toThrow(/at least 0/);
    await expect(index.search(queries, 0)).rejects.toThrow(/k must/);
    await expect(index.search(queries.subarray(1), 1)).rejects.toThrow(RangeError);
    await expect(index.set('efSearch', 4)).rejects.toThrow(/efSearch/);
    await expect(index.search([1, 2] as unknown as Float32Array, 1)).rejects.toThrow();
    const moved = queries.slice();
    structuredClone(moved, { transfer: [moved.buffer] });
    await expect(index.add(moved, idsOf(1))).rejects.toThrow(/transferred/);
    const graph = await built('HNSW16', data);
    await expect(graph.remove(idsOf(1))).rejects.toThrow(/remove_ids/);
    await graph.close();
    await expect(graph.search(queries, 1)).rejects.toThrow();
  });

  it('holds no memory after many searches, and gives it back when closed', async () => {
    const index = await built('IVF32,Flat', data);
    const many = vectors(4000, 3); // 256 KB of queries
    const searchMany = async (times: number): Promise<number> => {
      for (let i = 0; i < times; i++) await index.search(many, 2);
      return process.memoryUsage().rss;
    };
    const before = await searchMany(50);
    expect((await searchMany(200)) - before).toBeLessThan(40e6); // 51 MB of queries, 26 MB of results
    expect(index.memoryBytes).toBeGreaterThan(data.byteLength);
    await index.close();
    expect(index.memoryBytes).toBe(0);
  }, 60_000);
});

describeFaiss('FaissCodec', () => {
  it('encodes and decodes within its error, also after it was stored, in the family that the paper names', async () => {
    const wide = vectors(1200, 4, 80);
    for (const [factory, codeBytes, bound] of [
      ['SQ8', 80, 1e-4],
      ['SQfp16', 160, 1e-6],
      ['PQ8x4', 4, 0.5],
      ['RQ4x6', 3, 0.5],
      ['OPQ20x80-Residual2x5-PQ8x8', 2 + 8, 0.4],
    ] as const) {
      const codec = FaissCodec.create(80, factory, { threads: 2 });
      await codec.train(wide);
      expect(codec.codeBytes, factory).toBe(codeBytes);
      const codes = await codec.encode(wide);
      const decoded = await codec.decode(codes);
      const error = wide.reduce((sum, value, i) => sum + (value - decoded[i]!) ** 2, 0);
      const energy = wide.reduce((sum, value) => sum + value ** 2, 0);
      expect(error / energy, factory).toBeLessThan(bound);
      const again = await FaissCodec.restore(await codec.bytes(), { threads: 2 });
      expect(await again.decode(codes)).toEqual(decoded);
      expect(await again.encode(wide.subarray(0, 800))).toEqual(codes.subarray(0, 10 * codeBytes));
      await expect(again.decode(codes.subarray(0, codeBytes * 2 + 1))).rejects.toThrow(RangeError);
    }
    await expect(FaissCodec.create(80, 'PQ8').encode(wide)).rejects.toThrow(/trained/);
    // The paper's own: 2^14 centroids in each half, so it asks for at least 16384 vectors to train on.
    const paper = FaissCodec.create(80, 'OPQ20x80-Residual2x14-PQ8x10');
    expect(paper.codeBytes).toBe(4 + 10);
    await expect(paper.train(wide)).rejects.toThrow(/16384/);
  }, 120_000);
});

describeFaiss('Faiss in several threads of JavaScript', () => {
  const CHILD = `import('tsx/esm/api').then(({ register }) => {
    register();
    return import(${JSON.stringify(new URL('./faiss_child.ts', import.meta.url).href)});
  });`;

  it('answers the same beside each other, and lets a thread end in the middle of a search', async () => {
    const start = async () => {
      const worker = new Worker(CHILD, { eval: true, execArgv: [] });
      const [ids] = (await once(worker, 'message')) as [BigInt64Array];
      return { worker, ids };
    };
    const [first, second] = await Promise.all([start(), start()]);
    expect(first.ids).toEqual(second.ids);
    // Both are searching without end now.
    await first.worker.terminate();
    const third = await start();
    expect(third.ids).toEqual(second.ids);
    await Promise.all([second.worker.terminate(), third.worker.terminate()]);
    const index = FaissIndex.create(4, 'Flat');
    await index.add(Float32Array.of(1, 0, 0, 0), BigInt64Array.of(3n));
    expect((await index.search(Float32Array.of(1, 0, 0, 0), 1)).ids[0]).toBe(3n);
  }, 60_000);

  it('is a real file that another process could read', async () => {
    const path = join(await temporaryFolder(), 'x.faiss');
    const index = FaissIndex.create(4, 'Flat');
    await index.add(Float32Array.of(1, 0, 0, 0), BigInt64Array.of(3n));
    await index.write(path);
    expect((await readFile(path)).subarray(0, 4).toString('latin1')).toBe('IxM2');
    expect((await stat(path)).size).toBeGreaterThan(16);
  }, 60_000);
});
