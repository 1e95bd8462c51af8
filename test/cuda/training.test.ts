/** Training and decoding as a whole on the cuda engine, beside the native one. */

import { afterAll, beforeAll, expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { KeyValueCache } from '../../src/model/cache.ts';
import { encodeReferences } from '../../src/model/encode.ts';
import { forward, logits } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';
import { lossAndGradients, type TrainingBatch } from '../../src/model/training.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import { counted, cuda, expectClose, integers, NATIVE, open, type Way } from './engine_support.ts';
import { describeCuda } from './support.ts';

const SHAPE = {
  ...{ numLayers: 3, hiddenSize: 32, numHeads: 4, kvHeads: 2, headDim: 16, mlpWidth: 40, memoryLayers: 2 },
  init: 'depth' as const,
  ...{ vocabSize: 61, ropeTheta: 10000, normEpsilon: 1e-5, tieEmbeddings: false, initStd: 0.1, embeddingStd: 1 },
};
const [BATCH, TOKENS] = [2, 19];
const RULE = { prefixLength: 2, keptTokens: 3, tokenScores: 'softmax' as const };
const READING = { start: 2, chunkLength: 6 };
const REFERENCES = { ids: Int32Array.from({ length: 3 * 9 }, (_, i) => (i * 7) % 61), lengths: [9, 5, 2], ...RULE };

const ids = Int32Array.from({ length: BATCH * TOKENS }, (_, i) => (i * i * 31) % SHAPE.vocabSize);
const positions = Int32Array.from({ length: TOKENS }, (_, i) => i);
const text = { ids, targets: ids.map((id, i) => (i % 7 === 3 ? -1 : id)), positions };
const index = (): tf.Tensor3D => integers([0, 1, 2, -1, 1, 0, 2, 2, 1, 0, 0, 1], [BATCH, 3, 2]) as tf.Tensor3D;

/** What a step reads besides its text. */
type Reads = 'nothing' | 'own documents' | 'a bank' | 'references';

/** The batch of a step, and what to dispose of after it. */
function batchFor(model: Model, reads: Reads, recompute: boolean): { batch: TrainingBatch; made: tf.Tensor[] } {
  const base = { ...text, recompute };
  if (reads === 'nothing') return { batch: base, made: [] };
  if (reads === 'own documents') {
    return { batch: { ...base, firstVisible: ids.map((_, i) => Math.floor((i % TOKENS) / 7) * 7) }, made: [] };
  }
  const places = index();
  if (reads === 'references') {
    return { batch: { ...base, onlineReferences: { ...REFERENCES, index: places, ...READING } }, made: [places] };
  }
  const { keys, values, indices, keptLengths } = encodeReferences(model, REFERENCES.ids, REFERENCES.lengths, RULE);
  const lengths = tf.tensor1d(keptLengths, 'int32');
  const memories = { keys, values, lengths, index: places, gradient: false, ...READING };
  return { batch: { ...base, memories }, made: [...keys, ...values, ...indices, lengths, places] };
}

/** Trains a small model some steps; names and values of losses, shares, first gradients and weights. */
async function train(way: Way, reads: Reads, steps: number, recompute = false): Promise<Results> {
  await open(way);
  const before = counted();
  const results: Results = new Map();
  const model = new Model(SHAPE, initParameters(SHAPE, 1));
  const options = { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.05, clipNorm: 1 };
  const optimizer = new AdamW(model.parameters, options);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const { batch, made } = batchFor(model, reads, recompute);
    const { lossSum, count, gradients, memoryShare } = await lossAndGradients(model, batch);
    tf.dispose(made);
    losses.push(lossSum / count, memoryShare ?? 0);
    if (step === 0) {
      for (const [name, gradient] of gradients) results.set(`d ${name}`, await gradient.data<'float32'>());
    }
    await clipAndUpdate(optimizer, gradients, { learningRate: 3e-3, clipNorm: 1, tokens: count });
    disposeGradients(gradients);
  }
  results.set('losses', Float32Array.from(losses));
  for (const [name, values] of await model.weights()) results.set(name, values);
  optimizer.dispose();
  model.dispose();
  expect(counted().tensors).toBe(before.tensors);
  if (way.engine === 'cuda') expect(counted()).toEqual(before);
  return results;
}

/** The length of the difference beside that of what is expected. */
function relativeError(actual: Float32Array, expected: Float32Array): number {
  const squares = (values: Float32Array): number => values.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(squares(actual.map((value, i) => value - expected[i]!)) / Math.max(squares(expected), 1e-12));
}

type Results = Map<string, Float32Array>;

/**
 * Single weights may differ by twice the learning rate a step: Adam's first updates have its size whatever the gradient, and
 * of one near zero rounding may turn the sign. So arrays are compared as a whole.
 */
function expectSimilar(actual: Results, expected: Results, tolerance: number): void {
  expect([...actual.keys()]).toEqual([...expected.keys()]);
  for (const [name, values] of actual) expect(relativeError(values, expected.get(name)!), name).toBeLessThan(tolerance);
  expectClose([actual.get('losses')!], [expected.get('losses')!], tolerance / 10);
}

describeCuda('training on the cuda engine', () => {
  beforeAll(async () => {
    // The library for products keeps its workspace once it has run.
    await open(cuda('float32'));
    tf.tidy(() => void tf.matMul(tf.ones([2, 2]), tf.ones([2, 2])));
  });

  it.each(['nothing', 'own documents', 'a bank', 'references'] as const)('reading %s', async (reads) => {
    const expected = await train(NATIVE, reads, 3);
    const exact = await train(cuda('float32'), reads, 3);
    expectSimilar(exact, expected, 1e-5);
    expect(await train(cuda('float32'), reads, 3)).toEqual(exact);
    const half = await train(cuda('bfloat16'), reads, 3);
    expectSimilar(half, expected, 1.5e-2);
    expect(half.get('losses')).not.toEqual(exact.get('losses'));
    expect(await train(cuda('bfloat16'), reads, 3)).toEqual(half);
  });

  it.each(['float32', 'bfloat16'] as const)('gives the same bits with recomputation, in %s', async (precision) => {
    for (const reads of ['a bank', 'references'] as const) {
      const expected = await train(cuda(precision), reads, 1);
      expect(await train(cuda(precision), reads, 1, true)).toEqual(expected);
    }
  });
});

describeCuda('decoding on the cuda engine', () => {
  afterAll(async () => await open(NATIVE));

  /** Logits of a prompt and three tokens behind it, with memories, one call after the other. */
  async function decode(way: Way): Promise<Float32Array[]> {
    await open(way);
    const before = counted();
    const model = new Model(SHAPE, initParameters(SHAPE, 1));
    const { batch, made } = batchFor(model, 'a bank', false);
    const cache = new KeyValueCache();
    const outputs: Float32Array[] = [];
    for (const [first, count] of [
      [0, 9],
      [9, 1],
      [10, 2],
      [12, 1],
    ] as const) {
      const part = [0, 1].flatMap((row) => [...ids.subarray(row * TOKENS + first, row * TOKENS + first + count)]);
      const scores = tf.tidy(() => {
        const input = { ids: Int32Array.from(part), positions: positions.subarray(first, first + count) };
        return logits(model, forward(model, { ...input, memories: batch.memories!, cache }).hidden);
      });
      outputs.push(await scores.data<'float32'>());
      scores.dispose();
    }
    cache.dispose();
    tf.dispose(made);
    model.dispose();
    expect(counted().tensors).toBe(before.tensors);
    if (way.engine === 'cuda') expect(counted()).toEqual(before);
    return outputs;
  }

  it('gives the logits of the native engine', async () => {
    const expected = await decode(NATIVE);
    expectClose(await decode(cuda('float32')), expected, 2e-5);
    const half = await decode(cuda('bfloat16'));
    expectClose(half, expected, 3e-2);
    expect(await decode(cuda('bfloat16'))).toEqual(half);
  });
});
