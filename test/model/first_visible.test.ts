/** Sequences of several documents, each of which is read as if it stood alone. */

import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { firstVisibleOf } from '../../src/model/first_visible.ts';
import { forward, type LayerMemories, logits, loss } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, type ModelShape } from '../../src/model/shape.ts';
import { type LossAndGradients, lossAndGradients, type TrainingBatch } from '../../src/model/training.ts';
import { accumulateGradients, disposeGradients } from '../../src/optim/update.ts';
import { PURPOSE, randomInt, randomNormals } from '../../src/random.ts';
import { ENGINES } from '../engines.ts';
import { relativeError } from './golden.ts';

describe('firstVisibleOf', () => {
  const BOS = 1;
  const of = (ids: number[], length: number) => [...firstVisibleOf(Int32Array.from(ids), length, BOS)];

  it('gives the place of the last begin, row by row', () => {
    expect(of([BOS, 7, BOS, 7, 7, 7, BOS, BOS], 4)).toEqual([0, 0, 2, 2, 0, 0, 2, 3]);
  });

  it('gives 0 in front of the first begin, also where the row before ended in a document', () => {
    expect(of([7, 7, BOS, 7, 7, 7], 3)).toEqual([0, 0, 2, 0, 0, 0]);
  });

  it('takes a document for each token, none, and nothing', () => {
    expect(of([BOS, BOS, BOS], 3)).toEqual([0, 1, 2]);
    expect(of([7, 7, 7], 3)).toEqual([0, 0, 0]);
    expect(of([], 3)).toEqual([]);
  });
});

const shape: ModelShape = {
  ...modelSchema.parse({
    ...{ numLayers: 3, hiddenSize: 16, numHeads: 4, kvHeads: 2, headDim: 4, mlpWidth: 32, memoryLayers: 2 },
    ...{ initStd: 0.3, embeddingStd: 1 },
  }),
  vocabSize: 30,
};
/** Tokens of the first document and of both. */
const [CUT, TOKENS] = [12, 31];
const CHUNK = 4;
const CHUNKS = Math.ceil(TOKENS / CHUNK);

const draw = (step: number): Int32Array =>
  Int32Array.from({ length: TOKENS }, (_, i) => randomInt(1, PURPOSE.test, step, i, shape.vocabSize));
const count = (length: number, first = 0): Int32Array => Int32Array.from({ length }, (_, i) => first + i);
const firstVisible = count(TOKENS).map((token) => (token < CUT ? 0 : CUT));

/** Tokens [from, to) of the text at their places, as a batch of one sequence. */
function part(from: number, to: number): TrainingBatch & { targets: Int32Array } {
  return { ids: draw(0).subarray(from, to), targets: draw(1).subarray(from, to), positions: count(to - from, from) };
}

/** Memories for the chunks from `chunk` on. */
function memoriesFrom(chunk: number): LayerMemories {
  const make = (number: number) => tf.tensor4d(randomNormals(2, PURPOSE.test, number, 3 * 2 * 2 * 4), [3, 2, 2, 4]);
  const index = count(CHUNKS - chunk, chunk).map((c) => (c % 4) - 1);
  return {
    ...{ keys: [make(1), make(2)], values: [make(3), make(4)], lengths: tf.tensor1d([2, 1, 2], 'int32') },
    ...{ index: tf.tensor3d(index, [1, index.length, 1], 'int32'), start: 0, chunkLength: CHUNK, gradient: false },
  };
}

describe.each(ENGINES)('documents of a sequence on %s', (engine) => {
  let model: Model;
  beforeAll(async () => {
    await openEngine(engine, 0, 'float32');
  });
  beforeEach(() => {
    model = new Model(shape, initParameters(shape, 4));
  });
  afterEach(() => model.dispose());

  const outputs = (batch: TrainingBatch, memories?: LayerMemories): Float32Array[] =>
    tf.tidy(() => {
      const { hidden } = forward(model, { ...batch, memories });
      const { tokenLosses } = loss(model, hidden, batch.targets);
      return [logits(model, hidden), tokenLosses].map((x) => Float32Array.from(x.dataSync()));
    });
  const tail = (values: Float32Array, tokens: number): Float32Array =>
    values.subarray(values.length - (values.length / TOKENS) * tokens);

  it.each([false, true])('the second gets the logits and losses that it gets alone, memories %s', (reading) => {
    const read = (chunk: number) => (reading ? memoriesFrom(chunk) : undefined);
    tf.tidy(() => {
      const separate = outputs({ ...part(0, TOKENS), firstVisible }, read(0));
      const together = outputs(part(0, TOKENS), read(0));
      const alone = outputs(part(CUT, TOKENS), read(CUT / CHUNK));
      // Scores depend on differences of positions only; the keys of memories have positions of their own.
      const shifted = outputs({ ...part(CUT, TOKENS), positions: count(TOKENS - CUT) });
      for (const [i, expected] of alone.entries()) {
        expect(relativeError(tail(separate[i]!, TOKENS - CUT), expected)).toBeLessThan(1e-5);
        if (!reading) expect(relativeError(tail(separate[i]!, TOKENS - CUT), shifted[i]!)).toBeLessThan(1e-4);
        expect(relativeError(tail(together[i]!, TOKENS - CUT), expected)).toBeGreaterThan(1e-2);
      }
    });
  });

  it('each gets the gradients that it gets alone', async () => {
    const both = await lossAndGradients(model, { ...part(0, TOKENS), firstVisible });
    const alone: LossAndGradients[] = [];
    for (const [from, to] of [
      [0, CUT],
      [CUT, TOKENS],
    ] as const)
      alone.push(await lossAndGradients(model, part(from, to)));
    expect(relativeError([both.lossSum], [alone[0]!.lossSum + alone[1]!.lossSum])).toBeLessThan(1e-5);
    const sum = alone.map(({ gradients }) => gradients).reduce((a, b) => accumulateGradients(a, b));
    for (const [name, gradient] of both.gradients) {
      expect(relativeError(gradient.dataSync(), sum.get(name)!.dataSync()), name).toBeLessThan(1e-4);
    }
    disposeGradients(sum);
    disposeGradients(both.gradients);
  });

  it.each(['nothing', 'a bank', 'references'] as const)(
    'gives the same bits with recomputation, reading %s, and leaves nothing behind',
    async (reading) => {
      const memories = reading === 'a bank' ? memoriesFrom(0) : undefined;
      const onlineReferences = {
        ...{ ids: draw(2).subarray(0, 14), lengths: [7, 5], prefixLength: 1, keptTokens: 3 },
        ...{ tokenScores: 'softmax' as const, index: tf.tensor3d([0, 1, 1], [1, 3, 1], 'int32') },
        ...{ start: 2, chunkLength: 11 },
      };
      const read = reading === 'references' ? { onlineReferences } : { memories };
      const run = async (recompute: boolean) => {
        const batch = { ...part(0, TOKENS), firstVisible, ...read, recompute };
        const { lossSum, gradients } = await lossAndGradients(model, batch);
        const values = [...gradients.values()].map((gradient) => Float32Array.from(gradient.dataSync()));
        disposeGradients(gradients);
        return [Float32Array.of(lossSum), ...values];
      };
      const kept = await run(false);
      const recomputed = await run(true);
      const before = tf.memory().numTensors;
      expect(await run(false)).toEqual(kept);
      expect(await run(true)).toEqual(recomputed);
      expect(tf.memory().numTensors).toBe(before);
      expect(recomputed).toEqual(kept);
      tf.dispose([memories, onlineReferences.index] as never);
    },
  );

  it('sees all from one document what it sees without the input, with the same bits', async () => {
    const plain = outputs(part(0, TOKENS));
    expect(outputs({ ...part(0, TOKENS), firstVisible: new Int32Array(TOKENS) })).toEqual(plain);
  });
});
