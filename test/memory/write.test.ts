import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { memorySchema, modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { Bank } from '../../src/memory/bank.ts';
import { type RetrievalEncoder, storedEncoder } from '../../src/memory/encoders/encoder.ts';
import { LexicalEncoder } from '../../src/memory/encoders/lexical.ts';
import { keptCount, memoryLayout, modelKey, rowLength } from '../../src/memory/layout.ts';
import { compileReferences, type ReferenceText, writeTexts } from '../../src/memory/write.ts';
import { encodeReferences } from '../../src/model/encode.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import { temporaryFolder } from './fixtures.ts';

const SHAPE = {
  ...modelSchema.parse({
    numLayers: 3,
    hiddenSize: 16,
    numHeads: 4,
    kvHeads: 2,
    headDim: 4,
    mlpWidth: 16,
    memoryLayers: 2,
  }),
  vocabSize: 50,
  initStd: 0.3,
  embeddingStd: 1,
};
const MEMORY = memorySchema.parse({ referenceTokens: 12, keptTokens: 4 });
const LAYOUT = memoryLayout(SHAPE, MEMORY);
const OPTIONS = { prefix: [1, 2, 3], memory: MEMORY };

const REFERENCES: ReferenceText[] = Array.from({ length: 20 }, (_, number) => {
  const length = 1 + ((number * 7) % 12);
  const tokens = Int32Array.from({ length }, (_, i) => 4 + randomInt(5, PURPOSE.test, number, i, 46));
  return { id: `r${number}`, document: 'd', title: '', text: [...tokens].join(' '), span: [0, length], tokens };
});

let model: Model;
beforeAll(async () => {
  await openEngine('cpu', 1);
  model = new Model(SHAPE, initParameters(SHAPE, 3));
});

/** Compiles all references into a new bank and opens it. */
async function compile(encoder: RetrievalEncoder, onProgress?: (done: number) => void): Promise<Bank> {
  const folder = join(await temporaryFolder(), 'bank');
  const identity = {
    modelKey: modelKey(SHAPE, MEMORY),
    tokenizerHash: 't',
    layout: LAYOUT,
    storage: 'float32' as const,
    encoder: storedEncoder(encoder),
  };
  const writer = await Bank.create(folder, identity);
  const batches = compileReferences(model, REFERENCES, { ...OPTIONS, encoder, batchTokens: 60, onProgress });
  await writer.append(batches, 'weights');
  return Bank.open(folder);
}

describe('compileReferences', () => {
  it('writes each reference as if it were alone, in batches that fit, and leaves no tensors', async () => {
    const encoder = await LexicalEncoder.fit(
      REFERENCES.map(({ tokens }) => tokens),
      32,
    );
    const first = await compile(encoder); // Also fills the caches that operations keep for each shape.
    const tensors = tf.memory().numTensors;
    const progress: number[] = [];
    const bank = await compile(encoder, (done) => progress.push(done));
    expect(tf.memory().numTensors).toBe(tensors);
    expect(bank.contentHash).toBe(first.contentHash);
    await first.close();
    expect(progress.at(-1)).toBe(20);
    expect(progress.length).toBeGreaterThan(3);
    expect(bank.ids().toSorted()).toEqual(REFERENCES.map(({ id }) => id).toSorted());
    for (const reference of REFERENCES) {
      const alone = await writeTexts(model, [reference.tokens], OPTIONS);
      const record = await bank.get(reference.id);
      const { kept, keptLength, ...text } = record;
      expect(text).toEqual(reference);
      expect(kept).toEqual(alone.kept);
      expect(keptLength).toBe(Math.min(4, reference.tokens.length));
      const row = await bank.readRows([reference.id]);
      expect(row).toHaveLength(rowLength(LAYOUT));
      expect(kept).toHaveLength(keptCount(LAYOUT));
      const worst = row.reduce((max, value, i) => Math.max(max, Math.abs(value - alone.rows[i]!)), 0);
      expect(worst).toBeLessThan(1e-5);
    }
    await bank.close();
  });

  it('lays a row out by layer, keys before values, head, token', async () => {
    const { rows } = await writeTexts(model, [REFERENCES[1]!.tokens, REFERENCES[2]!.tokens], OPTIONS);
    const texts = [1, 2].map((number) => [1, 2, 3, ...REFERENCES[number]!.tokens]);
    const longest = Math.max(...texts.map((text) => text.length));
    const ids = texts.map((text) => [...text, ...new Array<number>(longest - text.length).fill(0)]);
    const encoded = encodeReferences(
      model,
      ids,
      texts.map((text) => text.length),
      {
        prefixLength: 3,
        keptTokens: 4,
        tokenScores: MEMORY.tokenScores,
      },
    );
    const layers = [...encoded.keys, ...encoded.values].map((tensor) => tensor.arraySync());
    const part = (memory: number, layer: number, keyOrValue: number) =>
      (memory * 4 + layer * 2 + keyOrValue) * 2 * 4 * 4;
    for (const memory of [0, 1]) {
      for (const layer of [0, 1]) {
        for (const keyOrValue of [0, 1]) {
          const expected = layers[keyOrValue * 2 + layer]![memory]!.flat(2);
          const start = part(memory, layer, keyOrValue);
          expected.forEach((value, i) => {
            expect(rows[start + i]).toBeCloseTo(value, 5);
          });
        }
      }
    }
    tf.dispose([...encoded.keys, ...encoded.values, ...encoded.indices]);
  });

  it('writes references in context, in batches with others, as each in its own pass', async () => {
    const encoder = await LexicalEncoder.fit([], 8);
    const inContext = REFERENCES.map((reference, i) => ({
      ...reference,
      ...(i % 3 > 0 && { context: REFERENCES[i - 1]!.tokens }),
    }));
    let apart = 0;
    for await (const { records, rows } of compileReferences(model, inContext, {
      ...OPTIONS,
      encoder,
      batchTokens: 90,
    })) {
      const width = rows.length / records.length;
      for (const [i, record] of records.entries()) {
        const { tokens, context } = inContext.find(({ id }) => id === record.id)!;
        expect(record).not.toHaveProperty('context');
        const one = await writeTexts(model, [tokens], OPTIONS, context && [context]);
        const alone = await writeTexts(model, [tokens], OPTIONS);
        expect(record.kept).toEqual(one.kept);
        expect(Math.max(...record.kept)).toBeLessThan(tokens.length);
        for (let j = 0; j < width; j++) {
          const value = rows[i * width + j]!;
          expect(Math.abs(value - one.rows[j]!)).toBeLessThan(1e-5);
          if (context) apart = Math.max(apart, Math.abs(value - alone.rows[j]!));
        }
      }
    }
    expect(apart).toBeGreaterThan(0.01);
  });

  it('names references that cannot be written', async () => {
    const encoder = await LexicalEncoder.fit([], 8);
    const write = async (length: number): Promise<void> => {
      const reference = { ...REFERENCES[0]!, tokens: new Int32Array(length) };
      for await (const batch of compileReferences(model, [reference], { ...OPTIONS, encoder }))
        expect(batch).toBeUndefined();
    };
    await expect(write(13)).rejects.toThrow(/reference r0: it has 13 tokens, a reference has at most 12/);
    await expect(write(0)).rejects.toMatchObject({ code: 'input_empty' });
  });
});
