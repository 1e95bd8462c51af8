/** Training as a whole on the native engine: the same bits, whatever the threads the same numbers, and no leaks. */

import { expect, it } from 'vitest';
import { normalisedError } from '../../bench/gpu/compare.ts';
import { openEngine } from '../../src/engine/engine.ts';
import type { NativeBackend } from '../../src/engine/native/backend.ts';
import * as tf from '../../src/engine/tf.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';
import { lossAndGradients } from '../../src/model/training.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import { describeNative, normals } from './support.ts';

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

  it('gives the same on one, two and four threads, up to rounding', async () => {
    const one = await train(1, 3);
    for (const threads of [2, 4]) {
      const several = await train(threads, 3);
      for (const [i, values] of one.entries()) {
        expect(normalisedError(several[i]!, values), `array ${i}, ${threads} threads`).toBeLessThan(1e-5);
      }
    }
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
