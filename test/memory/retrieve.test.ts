import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { runSchema } from '../../src/config/schema.ts';
import { Bank } from '../../src/memory/bank.ts';
import { storedEncoder } from '../../src/memory/encoders/encoder.ts';
import { KeysMultiEncoder } from '../../src/memory/encoders/keys.ts';
import { LexicalEncoder } from '../../src/memory/encoders/lexical.ts';
import { restoreEncoder } from '../../src/memory/encoders/registry.ts';
import { overlap } from '../../src/memory/overlap.ts';
import { type ChunkMemoryOptions, chunkMemories, type MemorySearch, Retriever } from '../../src/memory/retrieve.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { batch, IDENTITY, memory, range, temporaryFolder } from './fixtures.ts';

const OPTIONS: ChunkMemoryOptions = {
  query: 'previous',
  candidates: 3,
  overlapThreshold: 0.9,
  chunkLength: 4,
  memoriesPerChunk: 3,
};

/** References of two tokens; a chunk finds those that share its first token, in the order of their names. */
function fakeSearch(references: Record<string, number[]>): MemorySearch {
  const tokens = (id: string): Int32Array => Int32Array.from(references[id] ?? []);
  return {
    tokens,
    search: async (chunks, count) =>
      chunks.map((chunk) =>
        Object.keys(references)
          .filter((id) => tokens(id)[0] === chunk[0])
          .slice(0, count)
          .map((id, i) => ({ id, score: 1 - i / 10 })),
      ),
  };
}

const REFERENCES = { a1: [1, 101], a2: [1, 102], b1: [2, 103], c1: [3, 104] };
/** Chunks that begin with 1, 2, 1, 3 and a short one. */
const SEQUENCE = Int32Array.from([1, 9, 9, 9, 2, 9, 9, 9, 1, 9, 9, 9, 3, 9, 9, 9, 2, 9]);

describe('chunkMemories', () => {
  it('asks with the chunk before, so that the first chunk has none, and reads those of earlier chunks too', async () => {
    const [result] = await chunkMemories([SEQUENCE], OPTIONS, fakeSearch(REFERENCES));
    expect(result!.own.map((found) => found?.id)).toEqual([undefined, 'a1', 'b1', 'a1', 'c1']);
    expect(result!.chunks).toEqual([[], ['a1'], ['b1', 'a1'], ['a1', 'b1'], ['c1', 'a1', 'b1']]);
    expect(result!.excluded).toBe(0);
  });

  it('asks with the chunk itself when told so', async () => {
    const [result] = await chunkMemories([SEQUENCE], { ...OPTIONS, query: 'own' }, fakeSearch(REFERENCES));
    expect(result!.own.map((found) => found?.id)).toEqual(['a1', 'b1', 'a1', 'c1', 'b1']);
    expect(result!.chunks[4]).toEqual(['b1', 'c1', 'a1']);
  });

  it('passes over references that overlap the whole sequence, also where another chunk holds them', async () => {
    const sequence = SEQUENCE.slice();
    sequence.set([1, 101], 12); // the text of a1, in the last whole chunk
    const [result] = await chunkMemories([sequence], OPTIONS, fakeSearch(REFERENCES));
    expect(result!.own.map((found) => found?.id)).toEqual([undefined, 'a2', 'b1', 'a2', 'a2']);
    expect(result!.excluded).toBe(1);
    const onlyFirst = await chunkMemories([sequence], { ...OPTIONS, candidates: 1 }, fakeSearch(REFERENCES));
    expect(onlyFirst[0]!.own.map((found) => found?.id)).toEqual([undefined, undefined, 'b1', undefined, undefined]);
  });

  it('treats sequences of a batch as if each were alone', async () => {
    const other = Int32Array.from([3, 9, 9, 9, 1, 9, 9, 9, 2, 9, 9, 9, 2, 9, 9, 9, 1, 9]);
    const search = fakeSearch(REFERENCES);
    for (const query of ['previous', 'own'] as const) {
      const alone = await Promise.all(
        [SEQUENCE, other].map((one) => chunkMemories([one], { ...OPTIONS, query }, search)),
      );
      expect(await chunkMemories([SEQUENCE, other], { ...OPTIONS, query }, search)).toEqual(alone.flat());
    }
  });

  it('never gives a sequence a reference above the threshold, nor more than its slots', async () => {
    const token = fc.integer({ min: 1, max: 4 });
    const references = fc.dictionary(
      fc.string({ minLength: 1, maxLength: 3 }),
      fc.array(token, { minLength: 1, maxLength: 5 }),
    );
    const property = async (texts: Record<string, number[]>, tokens: number[], threshold: number): Promise<void> => {
      const sequence = Int32Array.from(tokens);
      const search = fakeSearch(texts);
      const [result] = await chunkMemories([sequence], { ...OPTIONS, overlapThreshold: threshold }, search);
      expect(result!.chunks).toHaveLength(Math.ceil(tokens.length / 4));
      for (const ids of result!.chunks) {
        expect(new Set(ids).size).toBe(ids.length);
        expect(ids.length).toBeLessThanOrEqual(3);
        for (const id of ids) expect(overlap(sequence, search.tokens(id))).toBeLessThanOrEqual(threshold);
      }
    };
    const sequence = fc.array(token, { minLength: 1, maxLength: 30 });
    await fc.assert(fc.asyncProperty(references, sequence, fc.double({ min: 0, max: 1, noNaN: true }), property));
  });
});

describe('Retriever', () => {
  const texts = range(0, 12).map((number) => memory(number).record.tokens);

  it('finds the same over a bank as over the references themselves, without what was deleted', async () => {
    const encoder = await LexicalEncoder.fit(texts, 32);
    const folder = join(await temporaryFolder(), 'bank');
    const identity = { ...IDENTITY, encoder: storedEncoder(encoder) };
    const writer = await Bank.create(folder, identity, { segmentMemories: 5 });
    await writer.append([{ ...batch(range(0, 12)), vectors: await encoder.encodeReferences({ tokens: texts }) }], 'w1');
    await writer.delete(['m0', 'm6']);
    const bank = await Bank.open(folder);
    const restored = restoreEncoder(bank.identity.encoder, {
      layout: bank.identity.layout,
      decode: () => Promise.reject(new Error('a lexical query needs no text')),
      queries: () => Promise.reject(new Error('a lexical query needs no model')),
      config: runSchema.parse({ name: 'test' }),
    });
    const fromBank = await Retriever.fromBank(bank, restored);
    const references = range(0, 12)
      .filter((number) => number !== 0 && number !== 6)
      .map((number) => memory(number).record);
    const fromReferences = await Retriever.fromReferences(references, encoder);
    expect(fromBank.size).toBe(10);
    const found = await fromBank.search(texts, 4);
    expect(found).toEqual(await fromReferences.search(texts, 4));
    expect(found[3]![0]).toEqual({ id: 'm3', score: expect.closeTo(1, 5) });
    expect(found.flat().map(({ id }) => id)).not.toContain('m6');
    expect(fromBank.tokens('m3')).toEqual(texts[3]);
    expect(fromReferences.tokens('m3')).toEqual(texts[3]);
    expect(await fromBank.search([texts[3]!], 99)).toMatchObject([{ length: 10 }]);
    expect(await fromBank.search([], 3)).toEqual([]);
    await bank.close();
  });

  it('orders what the pooled keys find by every kept key, for an encoder that scores again', async () => {
    const { layout } = IDENTITY;
    const dimensions = layout.memoryLayers * layout.kvHeads * layout.headDim;
    const query = randomNormals(9, PURPOSE.test, 0, dimensions);
    const encoder = new KeysMultiEncoder(layout, async (chunks) => Float32Array.from(chunks.flatMap(() => [...query])));
    const folder = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(folder, { ...IDENTITY, encoder: storedEncoder(encoder) });
    const memories = batch(range(0, 12));
    const keptLengths = memories.records.map(({ keptLength }) => keptLength);
    const written = { ...memories, texts: [], tokens: [], keptLengths };
    await writer.append([{ ...memories, vectors: await encoder.encodeReferences(written) }], 'w1');
    const bank = await Bank.open(folder);
    const [found] = await (await Retriever.fromBank(bank, encoder)).search([texts[0]!], 5);
    const vector = await encoder.encodeQueries([texts[0]!]);
    const exact = encoder.rescore(vector, { rows: await bank.readRows(bank.ids()), keptLengths });
    const expected = bank.ids().map((id, i) => ({ id, score: exact[i]! }));
    expected.sort((a, b) => b.score - a.score);
    expect(found).toEqual(expected.slice(0, 5));
    await bank.close();
  });
});
