/** Whole training steps on the native engine: golden files of the oracle, equal bits, flat memory. */

import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import type { NativeBackend } from '../../src/engine/native/backend.ts';
import * as tf from '../../src/engine/tf.ts';
import { encodeReferences, keptPlaces } from '../../src/model/encode.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';
import { lossAndGradients, type TrainingBatch } from '../../src/model/training.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import {
  type GoldenCase,
  goldenMemories,
  goldenModel,
  goldenReading,
  goldenReferences,
  goldenText,
  readGolden,
  relativeError,
} from '../model/golden.ts';
import { describeNative, normalisedError, normals } from './support.ts';

const VALUE_TOLERANCE = 1e-5;
const GRADIENT_TOLERANCE = 1e-4;

async function expectGradients(golden: GoldenCase, batch: Partial<TrainingBatch>): Promise<void> {
  const model = goldenModel(golden);
  const { lossSum, gradients } = await lossAndGradients(model, { ...goldenText(golden), ...batch });
  expect(relativeError([lossSum], [golden.expected.lossSum])).toBeLessThan(VALUE_TOLERANCE);
  for (const [name, gradient] of gradients) {
    const expected = golden.expected.gradients[name]!;
    const error = relativeError(gradient.dataSync(), expected.data, golden.expected.validTargets);
    expect(error, name).toBeLessThan(GRADIENT_TOLERANCE);
  }
  disposeGradients(gradients);
  model.dispose();
}

describeNative('golden files on the native engine', () => {
  beforeAll(async () => {
    await openEngine('native', 2);
  });

  it.each(['forward_untied_h4k2', 'forward_untied_h3k1', 'forward_tied_h4k2', 'forward_tied_h3k1'])(
    '%s',
    async (name) => {
      for (const recompute of [false, true]) await expectGradients(readGolden(name), { recompute });
    },
  );

  it.each(['bank_h4k2', 'bank_h3k1'])('%s', async (name) => {
    const golden = readGolden(name);
    for (const gradient of [false, true]) {
      const memories = goldenMemories(golden, gradient);
      await expectGradients(golden, { memories });
      tf.dispose(memories as never);
    }
  });

  it.each(['online_h4k2_softmax', 'online_h3k1_exp'])('%s', async (name) => {
    const golden = readGolden(name);
    const onlineReferences = { ...goldenReferences(golden), ...goldenReading(golden) };
    for (const recompute of [false, true]) await expectGradients(golden, { onlineReferences, recompute });
    onlineReferences.index.dispose();
  });

  it.each(['selection_h4k2', 'selection_h3k1'])('%s', async (name) => {
    const golden = readGolden(name);
    const model = goldenModel(golden);
    const { ids, lengths, ...options } = goldenReferences(golden);
    for (const tokenScores of ['softmax', 'exp'] as const) {
      const encoded = encodeReferences(model, ids, lengths, { ...options, tokenScores });
      const { keptLengths, keys, values, indices } = encoded;
      const kept = await keptPlaces(encoded, options.prefixLength);
      const expected = golden.expected[tokenScores].kept;
      expect([...keptLengths]).toEqual(golden.expected.keptLengths.data);
      const [, layers, heads, keptTokens] = expected.shape as [number, number, number, number];
      for (const [i, place] of expected.data.entries()) {
        const length = keptLengths[Math.floor(i / (layers * heads * keptTokens))]!;
        if (i % keptTokens < length) expect(kept[i]).toBe(place);
      }
      tf.dispose([keys, values, indices] as never);
    }
    model.dispose();
  });

  it.each(['training_untied', 'training_tied'])('%s: ten clipped AdamW steps', async (name) => {
    const golden = readGolden(name);
    const { inputs, expected } = golden;
    const model = goldenModel(golden);
    const optimizer = new AdamW(model.parameters, inputs.optimizer);
    for (const [i, learningRate] of inputs.learningRates.entries()) {
      const { lossSum, count, gradients } = await lossAndGradients(model, goldenText(golden));
      expect(relativeError([lossSum / count], [expected.losses[i]!])).toBeLessThan(VALUE_TOLERANCE);
      const options = { learningRate, clipNorm: inputs.optimizer.clipNorm, tokens: count };
      const { gradientNorm } = await clipAndUpdate(optimizer, gradients, options);
      expect(relativeError([gradientNorm], [expected.gradientNorms[i]!])).toBeLessThan(GRADIENT_TOLERANCE);
      disposeGradients(gradients);
    }
    const weights = await model.weights();
    for (const [parameter, { first }] of Object.entries(expected.parametersAfter10)) {
      expect(relativeError(weights.get(parameter)!.subarray(0, 8), first), parameter).toBeLessThan(GRADIENT_TOLERANCE);
    }
    optimizer.dispose();
    model.dispose();
  });
});

const SHAPE = {
  ...{ numLayers: 2, hiddenSize: 48, numHeads: 6, kvHeads: 2, headDim: 16, mlpWidth: 80, memoryLayers: 2 },
  init: 'depth' as const,
  ...{ vocabSize: 131, ropeTheta: 10000, normEpsilon: 1e-5, tieEmbeddings: false, initStd: 0.1, embeddingStd: 1 },
};
const BATCH = 4;
const TOKENS = 50;

/** Trains a small model that reads memories and hands its state back. */
async function train(threads: number, steps: number, afterStep?: (step: number) => void): Promise<Float32Array[]> {
  await openEngine('native', threads);
  const model = new Model(SHAPE, initParameters(SHAPE, 1));
  const optimizer = new AdamW(model.parameters, {
    beta1: 0.9,
    beta2: 0.98,
    epsilon: 1e-8,
    weightDecay: 0.05,
    clipNorm: 1,
  });
  const ids = Int32Array.from({ length: BATCH * TOKENS }, (_, i) => (i * i * 31) % SHAPE.vocabSize);
  const positions = Int32Array.from({ length: TOKENS }, (_, i) => i);
  const memoryShape = [5, SHAPE.kvHeads, 4, SHAPE.headDim];
  const memories = {
    keys: [1, 2].map((seed) => normals(memoryShape, seed) as tf.Tensor4D),
    values: [3, 4].map((seed) => normals(memoryShape, seed) as tf.Tensor4D),
    lengths: tf.tensor1d([4, 3, 0, 4, 1], 'int32'),
    index: tf.tensor3d(
      Int32Array.from({ length: BATCH * 3 * 2 }, (_, i) => (i % 6) - 1),
      [BATCH, 3, 2],
      'int32',
    ),
    ...{ start: 2, chunkLength: 16, gradient: true },
  };
  const losses = new Float32Array(steps);
  for (let step = 0; step < steps; step++) {
    const { lossSum, count, gradients } = await lossAndGradients(model, { ids, targets: ids, positions, memories });
    losses[step] = lossSum / count;
    await clipAndUpdate(optimizer, gradients, { learningRate: 1e-3, clipNorm: 1, tokens: count });
    disposeGradients(gradients);
    afterStep?.(step);
  }
  const weights = [...(await model.weights()).values()];
  tf.dispose(memories as never);
  optimizer.dispose();
  model.dispose();
  return [losses, ...weights];
}

describeNative('training on the native engine', () => {
  it('gives the same bits in two runs, for each number of threads', async () => {
    for (const threads of [1, 2, 3]) expect(await train(threads, 5)).toEqual(await train(threads, 5));
  });

  it('gives the same on one thread and on two, up to rounding', async () => {
    const [one, two] = [await train(1, 3), await train(2, 3)];
    for (const [i, values] of one.entries()) expect(normalisedError(two[i]!, values), `array ${i}`).toBeLessThan(1e-5);
  });

  it('needs no more memory over 200 steps', async () => {
    const tensors: number[] = [];
    const buffers: { used: number; free: number }[] = [];
    const resident: number[] = [];
    const [losses] = await train(2, 200, () => {
      tensors.push(tf.memory().numTensors);
      buffers.push((tf.backend() as NativeBackend).bufferBytes());
      resident.push(process.memoryUsage().rss);
    });
    expect(losses!.at(-1)).toBeLessThan(losses![0]!);
    expect(new Set(tensors.slice(5)).size).toBe(1);
    expect(buffers.at(-1)).toEqual(buffers[5]);
    expect((resident.at(-1)! - resident[100]!) / 2 ** 20).toBeLessThan(30);
  });
});
