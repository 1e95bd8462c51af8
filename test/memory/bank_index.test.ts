import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { FaissIndex, faissAvailable } from '../../src/engine/native/faiss.ts';
import { UserError } from '../../src/errors.ts';
import { Bank } from '../../src/memory/bank.ts';
import { BankIndex, chooseIndex } from '../../src/memory/bank_index.ts';
import type { RetrievalEncoder } from '../../src/memory/encoders/encoder.ts';
import { indexesOnDisk } from '../../src/memory/index_files.ts';
import { Retriever } from '../../src/memory/retrieve.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { batch, IDENTITY, memory, range, temporaryFolder } from './fixtures.ts';

beforeAll(() => openEngine('cpu', 1));

const { dimensions } = IDENTITY.encoder;
/** Query number `chunk[0]` is a vector of its own. */
const ENCODER = {
  dimensions,
  encodeQueries: async (chunks: readonly Int32Array[]) =>
    Float32Array.from(chunks.flatMap((chunk) => [...randomNormals(5, PURPOSE.test, chunk[0]!, dimensions)])),
} as Partial<RetrievalEncoder> as RetrievalEncoder;
const QUERIES = range(0, 12).map((number) => Int32Array.of(number));

const cosine = (a: Float32Array, b: Float32Array): number => {
  const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
};

/** Sorting all cosines. */
function expected(numbers: readonly number[], k: number): string[][] {
  return QUERIES.map((chunk) => {
    const query = randomNormals(5, PURPOSE.test, chunk[0]!, dimensions);
    const scored = numbers.map((number) => ({ id: `m${number}`, score: cosine(query, memory(number).vector) }));
    return scored
      .sort((a, b) => b.score - a.score)
      .slice(0, k)
      .map(({ id }) => id);
  });
}

async function found(folder: string, k: number): Promise<string[][]> {
  const bank = await Bank.open(folder);
  const retriever = await Retriever.fromBank(bank, ENCODER);
  expect(retriever.size).toBe(bank.size);
  const results = await retriever.search(QUERIES, k);
  for (const memories of results) {
    for (const [i, { score }] of memories.entries())
      expect(score).toBeLessThanOrEqual(memories[i - 1]?.score ?? 1.00001);
  }
  await retriever.close();
  await bank.close();
  return results.map((memories) => memories.map(({ id }) => id));
}

/** A bank of memories 0 to 59 with an index. */
async function indexed(factory: string, search: Record<string, number> = {}): Promise<string> {
  const folder = join(await temporaryFolder(), 'bank');
  await (await Bank.create(folder, IDENTITY, { segmentMemories: 16 })).append([batch(range(0, 60))], 'w');
  const bank = await Bank.open(folder);
  const spec = chooseIndex({ index: factory, search }, bank.size, bank.identity.encoder)!;
  const index = await BankIndex.build(bank, spec).finally(() => bank.close());
  await index?.save();
  await index?.close();
  return folder;
}

describe('chooseIndex', () => {
  const encoder = (kind: string, dimensions = 256) => ({ dimensions, description: { kind }, state: new Uint8Array(0) });
  const auto = { index: 'auto' };

  it('compares with all memories of a small bank, and takes a graph or lists for a large one', () => {
    expect(chooseIndex(auto, 1000, encoder('keys'))).toBeUndefined();
    expect(chooseIndex({ index: 'exact' }, 1e9, encoder('keys'))).toBeUndefined();
    expect(chooseIndex({ index: 'HNSW32' }, 0, encoder('keys'))).toBeUndefined();
    if (!faissAvailable().ok) return;
    expect(chooseIndex(auto, 100_000, encoder('keys'))).toMatchObject({
      factory: 'HNSW32',
      parameters: { efSearch: 512 },
      reason: expect.stringContaining('100000'),
    });
    expect(chooseIndex(auto, 300_000, encoder('keys'))).toMatchObject({
      factory: 'IVF4096,Flat',
      parameters: { nprobe: 512 },
    });
    expect(chooseIndex(auto, 1e8, encoder('keys'))!.factory).toBe('OPQ64_256,IVF65536_HNSW32,PQ64');
  });

  it('needs no index for vectors that are mostly zero', () => {
    expect(chooseIndex(auto, 1e8, encoder('lexical'))).toBeUndefined();
  });

  it.runIf(faissAvailable().ok)('takes search parameters', () => {
    expect(chooseIndex({ index: 'IVF16,Flat' }, 100, encoder('lexical', 6))).toMatchObject({
      factory: 'IVF16,Flat',
      parameters: { nprobe: 8 },
    });
    expect(chooseIndex({ index: 'HNSW8', search: { efSearch: 7 } }, 100, encoder('keys'))!.parameters).toEqual({
      efSearch: 7,
    });
  });
});

describe.runIf(faissAvailable().ok)('an index beside the bank', () => {
  it.each(['Flat', 'HNSW16', 'IVF2,Flat', 'SQ8'])('%s finds what sorting all cosines finds', async (factory) => {
    const folder = await indexed(factory);
    expect(await indexesOnDisk(folder)).toHaveLength(1);
    expect(await found(folder, 5)).toEqual(expected(range(0, 60), 5));
  });

  it('is the same file each time', async () => {
    const names = await Promise.all(
      [indexed('HNSW16'), indexed('HNSW16')].map(async (folder) => indexesOnDisk(await folder)),
    );
    expect(names[0]).toEqual(names[1]);
  });

  it('never gives what was deleted, and finds what was added since, without being made again', async () => {
    const folder = await indexed('HNSW16');
    const before = await indexesOnDisk(folder);
    const writer = await Bank.openForWriting(folder, { segmentMemories: 16 });
    const gone = range(0, 60).filter((number) => number % 3 === 0);
    await writer.delete(gone.map((number) => `m${number}`));
    await writer.append([batch(range(60, 75))], 'w');
    await writer.prune([]);
    const there = range(0, 75).filter((number) => !gone.includes(number));
    expect(await found(folder, 5)).toEqual(expected(there, 5));
    expect(await found(folder, 55)).toEqual(expected(there, 55));
    expect(await indexesOnDisk(folder)).toEqual(before);
  });

  it('goes with the first of its segments', async () => {
    const folder = await indexed('HNSW16');
    const writer = await Bank.openForWriting(folder, { segmentMemories: 16 });
    await writer.delete(['m3']);
    await writer.compact();
    await writer.prune([]);
    expect(await indexesOnDisk(folder)).toEqual([]);
    expect(await found(folder, 3)).toEqual(
      expected(
        range(0, 60).filter((number) => number !== 3),
        3,
      ),
    );
  });

  it('that is damaged is named, with what to do', async () => {
    for (const file of ['index.faiss', 'index.json']) {
      const folder = await indexed('HNSW16');
      const [name = ''] = await indexesOnDisk(folder);
      const path = join(folder, name, file);
      const bytes = await readFile(path);
      bytes[bytes.length >> 1]! ^= 0x55;
      await writeFile(path, bytes);
      const error = await found(folder, 3).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(UserError);
      expect((error as UserError).message).toContain(name);
      expect((error as UserError).action).toContain('bank tune');
      expect(await readdir(folder)).toContain(name);
    }
  });

  it('that Faiss cannot make is refused in words', async () => {
    await expect(indexed('Bogus7')).rejects.toMatchObject({ code: 'config_invalid', where: 'retrieval.index' });
    await expect(indexed('HNSW8', { nprobe: 3 })).rejects.toMatchObject({
      code: 'config_invalid',
      where: 'retrieval.search.nprobe',
    });
  });

  it.each(['IVF100,Flat', 'PQ2', 'IVF2,PQ2'])('of the kind %s is not made of too few memories', async (factory) => {
    const folder = await indexed(factory);
    expect(await indexesOnDisk(folder)).toEqual([]);
    expect(await found(folder, 5)).toEqual(expected(range(0, 60), 5));
  });

  it('of lists does not ask for more than the lists that it visits hold', async () => {
    const folder = await indexed('IVF8,Flat', { nprobe: 1 });
    const bank = await Bank.open(folder);
    const searches = vi.spyOn(FaissIndex.prototype, 'search');
    const retriever = await Retriever.fromBank(bank, ENCODER);
    const results = await retriever.search(QUERIES, 40);
    expect(searches).toHaveBeenCalledTimes(1);
    expect(results.every((memories) => memories.length > 0 && memories.length < 40)).toBe(true);
    searches.mockRestore();
    await bank.close();
  });
});
