/** What the golden files do not say about a training step: sums over tokens, memory use, the attention share. */

import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { forward, type LayerMemories } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, type ModelShape } from '../../src/model/shape.ts';
import { type LossAndGradients, lossAndGradients, type TrainingBatch } from '../../src/model/training.ts';
import { accumulateGradients, disposeGradients } from '../../src/optim/update.ts';
import { PURPOSE, randomInt, randomNormals } from '../../src/random.ts';
import { relativeError } from './golden.ts';

const shape: ModelShape = {
  ...modelSchema.parse({
    ...{ numLayers: 6, hiddenSize: 16, numHeads: 4, kvHeads: 2, headDim: 4, mlpWidth: 32, memoryLayers: 2 },
    ...{ initStd: 0.3, embeddingStd: 1 },
  }),
  vocabSize: 30,
};
const TOKENS = 12;
const positions = Int32Array.from({ length: TOKENS }, (_, t) => t);

const tokens = (step: number, sequences: number) =>
  Int32Array.from({ length: sequences * TOKENS }, (_, i) => randomInt(1, PURPOSE.test, step, i, shape.vocabSize));

/** Three memories of two tokens, the last of them empty. */
function makeMemories(index: number[][][], start: number): LayerMemories {
  const make = (number: number) => tf.tensor4d(randomNormals(2, PURPOSE.test, number, 3 * 2 * 2 * 4), [3, 2, 2, 4]);
  return {
    keys: [make(1), make(2)],
    values: [make(3), make(4)],
    lengths: tf.tensor1d([2, 1, 0], 'int32'),
    index: tf.tensor3d(index, undefined, 'int32'),
    start,
    chunkLength: 4,
    gradient: false,
  };
}

describe('lossAndGradients', () => {
  let model: Model;
  beforeAll(async () => {
    await openEngine('cpu', 0);
  });
  beforeEach(() => {
    model = new Model(shape, initParameters(shape, 4));
  });
  afterEach(() => model.dispose());

  const batch = (sequences: number, ids = tokens(0, sequences), targets = tokens(1, sequences)): TrainingBatch => ({
    ids,
    targets,
    positions,
  });

  it('micro-batches add up to the whole batch', async () => {
    const whole = await lossAndGradients(model, batch(3));
    const [ids, targets] = [tokens(0, 3), tokens(1, 3)];
    const parts: LossAndGradients[] = [];
    for (const b of [0, 1, 2]) {
      const [from, to] = [b * TOKENS, (b + 1) * TOKENS];
      parts.push(await lossAndGradients(model, batch(1, ids.slice(from, to), targets.slice(from, to))));
    }
    const sum = parts.reduce((total, part) => total + part.lossSum, 0);
    expect(relativeError([sum], [whole.lossSum])).toBeLessThan(1e-5);
    expect(parts.map(({ count }) => count)).toEqual([TOKENS, TOKENS, TOKENS]);
    const total = parts.map(({ gradients }) => gradients).reduce((a, b) => accumulateGradients(a, b));
    for (const [name, gradient] of whole.gradients) {
      expect(relativeError(total.get(name)!.dataSync(), gradient.dataSync()), name).toBeLessThan(1e-4);
    }
    disposeGradients(total);
    disposeGradients(whole.gradients);
  });

  it('takes ids as rows, flat, or as a tensor', async () => {
    const ids = tokens(0, 2);
    const rows = [ids.subarray(0, TOKENS), ids.subarray(TOKENS)];
    const tensor = tf.tensor2d(ids, [2, TOKENS], 'int32');
    const losses: number[] = [];
    for (const form of [ids, rows, tensor]) {
      const { lossSum, gradients } = await lossAndGradients(model, { ...batch(2), ids: form });
      losses.push(lossSum);
      disposeGradients(gradients);
    }
    tensor.dispose();
    expect(losses[1]).toBe(losses[0]);
    expect(losses[2]).toBe(losses[0]);
  });

  it('gives no gradient and no loss when no token counts', async () => {
    const { lossSum, count, gradients } = await lossAndGradients(
      model,
      batch(1, tokens(0, 1), new Int32Array(TOKENS).fill(-1)),
    );
    expect([lossSum, count]).toEqual([0, 0]);
    for (const gradient of gradients.values()) expect(Math.max(...gradient.abs().dataSync())).toBe(0);
    disposeGradients(gradients);
  });

  it('needs less memory with recomputation, for the same gradients', async () => {
    const peak = async (recompute: boolean) => {
      const before = tf.memory().numBytes;
      let result: LossAndGradients | undefined;
      const { peakBytes } = await tf.profile(async () => {
        result = await lossAndGradients(model, { ...batch(8), recompute });
        return [];
      });
      return { bytes: peakBytes - before, gradients: result!.gradients };
    };
    const kept = await peak(false);
    const recomputed = await peak(true);
    expect(recomputed.bytes).toBeLessThan(0.6 * kept.bytes);
    for (const [name, gradient] of kept.gradients) {
      expect(relativeError(recomputed.gradients.get(name)!.dataSync(), gradient.dataSync()), name).toBeLessThan(1e-6);
    }
    disposeGradients(kept.gradients);
    disposeGradients(recomputed.gradients);
  });

  describe('memoryShare', () => {
    const share = async (index: number[][][], start: number) => {
      const memories = makeMemories(index, start);
      const { gradients, memoryShare } = await lossAndGradients(model, { ...batch(1), memories });
      disposeGradients(gradients);
      tf.dispose([memories.keys, memories.values, memories.lengths, memories.index] as tf.TensorContainer);
      return memoryShare;
    };

    it('is 0 when no chunk has a memory with tokens', async () => {
      expect(
        await share(
          [
            [
              [-1, -1],
              [2, -1],
              [-1, 2],
            ],
          ],
          0,
        ),
      ).toBe(0);
    });

    it('averages over the tokens that can read a memory, not over all', async () => {
      const last = await share([[[-1], [-1], [0]]], 0);
      expect(last).toBeGreaterThan(0.01);
      expect(last).toBeLessThan(1);
    });

    it('leaves out the tokens before the start', async () => {
      // Tokens 8 … 11 read memory 0 in both.
      const [all, late] = [await share([[[-1], [-1], [0]]], 0), await share([[[0]]], 8)];
      expect(late).toBeCloseTo(all!, 6);
    });

    it('counts the tokens behind the last chunk to it', async () => {
      // Tokens 6 … 11 read memory 0 in both.
      const [short, full] = [await share([[[-1], [0]]], 2), await share([[[-1], [0], [0]]], 2)];
      expect(short).toBeCloseTo(full!, 6);
    });
  });

  describe('headShares', () => {
    /** Chunks of four tokens from token 2 on: which memories each may read, with an empty one among them. */
    const index = [
      [
        [0, 1],
        [2, -1],
        [1, -1],
      ],
      [
        [-1, -1],
        [0, 2],
        [2, 1],
      ],
    ];
    const START = 2;

    /** Means over the tokens of chunks with a memory that is not empty, token by token. */
    function slowShares(memories: LayerMemories): number[] {
      const shares = tf.tidy(() => forward(model, { ...batch(2), memories }).shares!);
      const { numHeads } = shape;
      const means = shares.map((share) => {
        const mass = share.arraySync();
        const sums = new Array<number>(numHeads).fill(0);
        let readers = 0;
        for (const [b, sequence] of mass.entries()) {
          for (const [t, heads] of sequence.entries()) {
            if (t < START) continue;
            const chunk = Math.min(index[b]!.length - 1, Math.floor((t - START) / 4));
            // Memory 2 has no tokens.
            if (!index[b]![chunk]!.some((memory) => memory === 0 || memory === 1)) continue;
            readers++;
            for (const [h, slots] of heads.entries()) for (const value of slots) sums[h]! += value;
          }
        }
        return sums.map((sum) => sum / readers);
      });
      tf.dispose(shares);
      return means.flat();
    }

    it('is the mean of each layer and head, and changes no bit of anything else', async () => {
      const memories = makeMemories(index, START);
      const plain = await lossAndGradients(model, { ...batch(2), memories });
      const before = tf.memory().numTensors;
      const { headShares, ...rest } = await lossAndGradients(model, { ...batch(2), memories }, { headShares: true });
      expect(tf.memory().numTensors - before).toBe(rest.gradients.size);
      expect(plain.headShares).toBeUndefined();
      expect([rest.lossSum, rest.count, rest.memoryShare]).toEqual([plain.lossSum, plain.count, plain.memoryShare]);
      for (const [name, gradient] of plain.gradients) {
        expect(rest.gradients.get(name)!.dataSync(), name).toEqual(gradient.dataSync());
      }
      const expected = slowShares(memories);
      expect(headShares).toHaveLength(shape.memoryLayers * shape.numHeads);
      for (const [i, share] of expected.entries()) expect(headShares![i]).toBeCloseTo(share, 6);
      expect(new Set(expected.map((share) => share.toFixed(4))).size).toBeGreaterThan(4);
      const mean = expected.reduce((sum, share) => sum + share, 0) / expected.length;
      expect(rest.memoryShare).toBeCloseTo(mean, 6);
      disposeGradients(plain.gradients);
      disposeGradients(rest.gradients);
      tf.dispose([memories.keys, memories.values, memories.lengths, memories.index] as tf.TensorContainer);
    });

    it('is absent without memories, and 0 when none has tokens', async () => {
      const without = await lossAndGradients(model, batch(1), { headShares: true });
      expect(without.headShares).toBeUndefined();
      const memories = makeMemories([[[2], [2], [-1]]], 0);
      const empty = await lossAndGradients(model, { ...batch(1), memories }, { headShares: true });
      expect([...empty.headShares!]).toEqual(new Array(8).fill(0));
      disposeGradients(without.gradients);
      disposeGradients(empty.gradients);
      tf.dispose([memories.keys, memories.values, memories.lengths, memories.index] as tf.TensorContainer);
    });
  });
});
