/** Attention queries of chunks, against the attention of a forward pass written out. */

import { beforeAll, expect, it } from 'vitest';
import { modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { project } from '../../src/model/block.ts';
import { encodeQueries } from '../../src/model/encode_queries.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';
import { rope } from '../../src/ops/index.ts';

const SHAPE = {
  ...modelSchema.parse({
    ...{ numLayers: 2, hiddenSize: 16, numHeads: 4, kvHeads: 2, headDim: 4, mlpWidth: 16, memoryLayers: 2 },
    ...{ initStd: 0.3, embeddingStd: 1 },
  }),
  vocabSize: 30,
};
const POSITIONS = Int32Array.of(0, 1, 9, 10, 11);
const IDS = [
  [1, 2, 7, 8, 9],
  [1, 2, 20, 0, 0],
];
const LENGTHS = [5, 3];
const OPTIONS = { prefixLength: 2, positions: POSITIONS };

beforeAll(() => openEngine('cpu', 1));

it('takes the mean over the tokens of the chunk and the heads of a group, without prefix, padding or neighbours', () => {
  const model = new Model(SHAPE, initParameters(SHAPE, 3));
  const queries = encodeQueries(model, IDS, LENGTHS, OPTIONS).map((tensor) => tensor.arraySync());
  expect(queries).toHaveLength(2);

  const input = model.embedding.arraySync() as number[][];
  for (const [row, ids] of IDS.entries()) {
    const x = tf.tensor2d(ids.map((id) => input[id]!));
    const { query } = project(SHAPE, model.layers[0]!, x, 5);
    const turned = rope(query, tf.tensor1d(POSITIONS, 'int32'), SHAPE.ropeTheta).arraySync()[0]!;
    for (const head of [0, 1]) {
      for (let i = 0; i < 4; i++) {
        let sum = 0;
        for (let token = 2; token < LENGTHS[row]!; token++) {
          sum += turned[token]![2 * head]![i]! + turned[token]![2 * head + 1]![i]!;
        }
        expect(queries[0]![row]![head]![i]).toBeCloseTo(sum / (2 * (LENGTHS[row]! - 2)), 5);
      }
    }
  }
  const alone = encodeQueries(model, [IDS[1]!.slice(0, 3)], [3], { ...OPTIONS, positions: POSITIONS.slice(0, 3) });
  for (const layer of [0, 1]) {
    const expected = alone[layer]!.arraySync()[0]!.flat();
    queries[layer]![1]!.flat().forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i]!, 5);
    });
  }
  model.dispose();
});

it('leaves no tensors but its result', () => {
  const model = new Model(SHAPE, initParameters(SHAPE, 3));
  tf.dispose(encodeQueries(model, IDS, LENGTHS, OPTIONS)); // Fills the caches of operations.
  const before = tf.memory().numTensors;
  const queries = encodeQueries(model, IDS, LENGTHS, OPTIONS);
  expect(tf.memory().numTensors).toBe(before + 2);
  tf.dispose(queries);
  model.dispose();
});
