import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { modelSchema } from '../../../../src/config/schema.ts';
import { openEngine } from '../../../../src/engine/engine.ts';
import * as tf from '../../../../src/engine/tf.ts';
import { Model } from '../../../../src/model/model.ts';
import { initParameters, type ModelShape, parameterShapes } from '../../../../src/model/shape.ts';

const shape: ModelShape = {
  ...modelSchema.parse({
    numLayers: 2,
    hiddenSize: 8,
    numHeads: 2,
    kvHeads: 1,
    headDim: 4,
    mlpWidth: 12,
    memoryLayers: 1,
  }),
  vocabSize: 20,
};

describe('Model', () => {
  let tensors = 0;
  beforeAll(async () => {
    await openEngine('cpu', 0);
    tensors = tf.memory().numTensors;
  });
  afterEach(() => expect(tf.memory().numTensors).toBe(tensors));

  it('gives back the weights it was made of, in order', async () => {
    const weights = initParameters(shape, 1);
    const model = new Model(shape, weights);
    const back = await model.weights();
    expect([...back.keys()]).toEqual([...parameterShapes(shape).keys()]);
    expect(back).toEqual(weights);
    model.dispose();
  });

  it('copies the weights', async () => {
    const weights = initParameters(shape, 1);
    const model = new Model(shape, weights);
    weights.get('model.norm.weight')!.fill(5);
    expect((await model.weights()).get('model.norm.weight')![0]).toBe(1);
    model.dispose();
  });

  it('lives beside another of the same shape', () => {
    const models = [new Model(shape, initParameters(shape, 1)), new Model(shape, initParameters(shape, 2))];
    for (const model of models) model.dispose();
  });

  it('uses the embedding as output head when tied', () => {
    const tied = { ...shape, tieEmbeddings: true };
    const model = new Model(tied, initParameters(tied, 1));
    expect(model.outputHead).toBe(model.embedding);
    model.dispose();
  });

  it('names every problem of weights that do not fit', () => {
    const weights = initParameters(shape, 1);
    weights.delete('model.norm.weight');
    weights.set('lm_head.weight', new Float32Array(3));
    weights.set('stranger', new Float32Array(1));
    const make = () => new Model(shape, weights);
    expect(make).toThrow(/model\.norm\.weight is missing/);
    expect(make).toThrow(/lm_head\.weight has 3 values, the model \[20, 8\] needs 160/);
    expect(make).toThrow(/stranger is not a parameter/);
    expect(make).toThrow(expect.objectContaining({ code: 'artefact_mismatch' }));
  });
});
