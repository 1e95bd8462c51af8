/** Validation reads the same memories, whether they were written before or are encoded in the step. */

import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { encodeReferences } from '../../src/model/encode.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, type ModelShape } from '../../src/model/shape.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import type { MicroBatch } from '../../src/train/stage.ts';
import { meanLoss } from '../../src/train/validation.ts';

const shape: ModelShape = {
  ...modelSchema.parse({
    ...{ numLayers: 2, hiddenSize: 16, numHeads: 2, kvHeads: 1, headDim: 8, mlpWidth: 32, memoryLayers: 2 },
    ...{ initStd: 0.5, embeddingStd: 1 },
  }),
  vocabSize: 30,
};
const TOKENS = 8;
const OPTIONS = { prefixLength: 2, keptTokens: 3, tokenScores: 'softmax' } as const;
const lengths = [7, 5];

const draw = (step: number, count: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => randomInt(3, PURPOSE.test, step, i, shape.vocabSize));

let model: Model;
beforeAll(async () => {
  await openEngine('cpu', 0);
});
beforeEach(() => {
  model = new Model(shape, initParameters(shape, 5));
});
afterEach(() => model.dispose());

function batch(read: Pick<MicroBatch['input'], 'memories' | 'onlineReferences' | 'firstVisible'>): MicroBatch {
  const targets = draw(1, 2 * TOKENS);
  targets[3] = -1;
  const positions = Int32Array.from({ length: TOKENS }, (_, t) => 9 + t);
  return {
    input: { ids: draw(0, 2 * TOKENS), targets, positions, ...read },
    dataMs: 0,
    retrievalMs: 0,
    dispose: () => {},
  };
}

it('is the same with written memories and with references encoded in the step, and leaks nothing', async () => {
  const ids = draw(2, 2 * 7);
  const index = tf.tensor3d([[[0, 1]], [[1, -1]]], undefined, 'int32');
  const reading = { index, start: 0, chunkLength: TOKENS };
  const { keys, values, keptLengths } = encodeReferences(model, ids, lengths, OPTIONS);
  const memories = { keys, values, lengths: tf.tensor1d(keptLengths, 'int32'), ...reading, gradient: false };
  const onlineReferences = { ids, lengths, ...OPTIONS, ...reading };

  const written = await meanLoss(model, 1, async () => batch({ memories }));
  const before = tf.memory().numTensors;
  const online = await meanLoss(model, 1, async () => batch({ onlineReferences }));
  expect(tf.memory().numTensors).toBe(before);
  expect(online).toBeCloseTo(written, 5);
  expect(await meanLoss(model, 1, async () => batch({}))).not.toBeCloseTo(written, 3);
});

it('is the mean over the tokens of all batches that count', async () => {
  const one = await meanLoss(model, 1, async () => batch({}));
  expect(await meanLoss(model, 3, async () => batch({}))).toBeCloseTo(one, 5);
});

it('reads each document by itself when the batch says where they begin', async () => {
  const firstVisible = Int32Array.from({ length: 2 * TOKENS }, (_, i) => (i % TOKENS < 5 ? 0 : 5));
  const apart = async (rows: readonly [from: number, to: number][]) => {
    const whole = batch({}).input;
    const ids = rows.map(([from, to]) => (whole.ids as Int32Array).subarray(from, to));
    const targets = Int32Array.from(rows.flatMap(([from, to]) => [...whole.targets.subarray(from, to)]));
    const positions = Int32Array.from({ length: ids[0]!.length }, (_, t) => t);
    return meanLoss(model, 1, async () => ({ ...batch({}), input: { ids, targets, positions } }));
  };
  const first = await apart([
    [0, 5],
    [TOKENS, TOKENS + 5],
  ]);
  const second = await apart([
    [5, TOKENS],
    [TOKENS + 5, 2 * TOKENS],
  ]);
  // Nine targets of the first documents count, and six of the second ones.
  expect(await meanLoss(model, 1, async () => batch({ firstVisible }))).toBeCloseTo((9 * first + 6 * second) / 15, 5);
});
