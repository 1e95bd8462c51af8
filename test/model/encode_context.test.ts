/** References that are read with the text in front of them in their document (paper, Remark 3). */

import { beforeAll, describe, expect, it } from 'vitest';
import { modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { type EncodedReferences, encodeReferences } from '../../src/model/encode.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';

const shapeOf = (memoryLayers: number) => ({
  ...modelSchema.parse({
    ...{ numLayers: 3, hiddenSize: 16, numHeads: 4, kvHeads: 2, headDim: 4, mlpWidth: 16, memoryLayers },
    ...{ initStd: 0.3, embeddingStd: 1 },
  }),
  vocabSize: 40,
});
const PREFIX = [1, 2];
const CONTEXT = [11, 12, 13, 14, 15];
const PIECE = [21, 22, 23, 24, 25, 26];
const RULE = { prefixLength: 2, keptTokens: 3, tokenScores: 'softmax' as const };

/** Rows padded to one width; the second reference has a context of two tokens only. */
const IDS = [
  [...PREFIX, ...CONTEXT, ...PIECE, 0],
  [...PREFIX, 31, 32, ...PIECE.slice(0, 4), 0, 0, 0, 0, 0, 0],
];
const LENGTHS = [13, 8];
const CONTEXTS = [5, 2];

beforeAll(() => openEngine('cpu', 1));

function modelOf(memoryLayers: number): Model {
  const shape = shapeOf(memoryLayers);
  return new Model(shape, initParameters(shape, 3));
}

const numbers = (tensor: tf.Tensor, row: number): number[] => {
  const data = Array.from(tensor.dataSync());
  const width = data.length / tensor.shape[0]!;
  return data.slice(row * width, (row + 1) * width);
};

function expectClose(actual: number[], expected: number[]): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i]!, 5);
  });
}

const dispose = ({ keys, values, indices }: EncodedReferences) => tf.dispose([...keys, ...values, ...indices]);

describe('encodeReferences with contexts', () => {
  it('puts the kept tokens at prefix + place in the reference: in the first layer all is as if it stood alone', () => {
    const model = modelOf(1);
    const inContext = encodeReferences(model, IDS, LENGTHS, { ...RULE, contextLengths: CONTEXTS });
    const pieces = [
      [...PREFIX, ...PIECE],
      [...PREFIX, ...PIECE.slice(0, 4), 0, 0],
    ];
    const alone = encodeReferences(model, pieces, [8, 6], RULE);
    expect(inContext.keptLengths).toEqual(alone.keptLengths);
    for (const row of [0, 1]) {
      expect(numbers(inContext.indices[0]!, row)).toEqual(numbers(alone.indices[0]!, row));
      expectClose(numbers(inContext.keys[0]!, row), numbers(alone.keys[0]!, row));
      expectClose(numbers(inContext.values[0]!, row), numbers(alone.values[0]!, row));
    }
    dispose(inContext);
    dispose(alone);
    model.dispose();
  });

  it('gives a reference the values that it has in the whole sequence, whatever stands beside it in the batch', () => {
    const model = modelOf(3);
    const every = { ...RULE, keptTokens: 6 };
    const encoded = encodeReferences(model, IDS, LENGTHS, { ...every, contextLengths: CONTEXTS });
    const whole = encodeReferences(model, [IDS[0]!.slice(0, 13)], [13], { ...every, keptTokens: 11 });
    const alone = encodeReferences(model, [[...PREFIX, ...PIECE]], [8], every);
    const [, heads, , dim] = whole.values[2]!.shape;
    const inWhole = numbers(whole.values[2]!, 0);
    const expected = Array.from({ length: heads }, (_, head) =>
      inWhole.slice((head * 11 + CONTEXT.length) * dim, (head + 1) * 11 * dim),
    ).flat();
    expectClose(numbers(encoded.values[2]!, 0), expected);
    const apart = numbers(encoded.values[2]!, 0).map((value, i) => Math.abs(value - numbers(alone.values[2]!, 0)[i]!));
    expect(Math.max(...apart)).toBeGreaterThan(0.01);
    for (const result of [encoded, whole, alone]) dispose(result);
    model.dispose();
  });
});
