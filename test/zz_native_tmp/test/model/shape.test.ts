import { describe, expect, it } from 'vitest';
import { modelSchema } from '../../../../src/config/schema.ts';
import {
  countParameters,
  flopsPerToken,
  initParameters,
  type ModelShape,
  parameterShapes,
  sizeOf,
} from '../../../../src/model/shape.ts';

const shape: ModelShape = {
  ...modelSchema.parse({
    numLayers: 2,
    hiddenSize: 6,
    numHeads: 4,
    kvHeads: 2,
    headDim: 4,
    mlpWidth: 10,
    memoryLayers: 1,
  }),
  vocabSize: 30,
};

describe('parameterShapes', () => {
  it('names the parameters as Hugging Face Llama does, in the order of the network', () => {
    expect([...parameterShapes({ ...shape, numLayers: 1 })]).toEqual([
      ['model.embed_tokens.weight', [30, 6]],
      ['model.layers.0.input_layernorm.weight', [6]],
      ['model.layers.0.self_attn.q_proj.weight', [16, 6]],
      ['model.layers.0.self_attn.k_proj.weight', [8, 6]],
      ['model.layers.0.self_attn.v_proj.weight', [8, 6]],
      ['model.layers.0.self_attn.o_proj.weight', [6, 16]],
      ['model.layers.0.post_attention_layernorm.weight', [6]],
      ['model.layers.0.mlp.gate_proj.weight', [10, 6]],
      ['model.layers.0.mlp.up_proj.weight', [10, 6]],
      ['model.layers.0.mlp.down_proj.weight', [6, 10]],
      ['model.norm.weight', [6]],
      ['lm_head.weight', [30, 6]],
    ]);
  });

  it('has no output head when the embedding is tied', () => {
    const tied = parameterShapes({ ...shape, tieEmbeddings: true });
    expect(tied.has('lm_head.weight')).toBe(false);
    expect(countParameters(shape) - countParameters({ ...shape, tieEmbeddings: true })).toBe(180);
  });
});

describe('initParameters', () => {
  const large: ModelShape = { ...shape, hiddenSize: 64, mlpWidth: 128, vocabSize: 400, initStd: 0.05, embeddingStd: 1 };
  const parameters = initParameters(large, 7);
  const std = (values: Float32Array) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);

  const same = (a: Float32Array | undefined, b: Float32Array | undefined) =>
    !!a && !!b && Buffer.from(a.buffer).equals(Buffer.from(b.buffer));

  it('makes every parameter at its size', () => {
    for (const [name, dimensions] of parameterShapes(large)) {
      expect(parameters.get(name)?.length, name).toBe(sizeOf(dimensions));
    }
  });

  it.each([
    ['model.embed_tokens.weight', 1],
    ['lm_head.weight', 0.05],
    ['model.layers.1.self_attn.q_proj.weight', 0.05],
    ['model.layers.1.mlp.up_proj.weight', 0.05],
    ['model.layers.1.self_attn.o_proj.weight', 0.025],
    ['model.layers.0.mlp.down_proj.weight', 0.025],
  ])('gives %s the standard deviation %f', (name, expected) => {
    expect(Math.abs(std(parameters.get(name)!) / expected - 1)).toBeLessThan(0.06);
  });

  it('sets norms to one', () => {
    expect(new Set(parameters.get('model.layers.0.input_layernorm.weight'))).toEqual(new Set([1]));
    expect(new Set(parameters.get('model.norm.weight'))).toEqual(new Set([1]));
  });

  it('depends on the seed alone, and no two tensors are alike', () => {
    for (const [name, values] of initParameters(large, 7)) expect(same(values, parameters.get(name)), name).toBe(true);
    const name = 'model.layers.0.mlp.gate_proj.weight';
    expect(same(initParameters(large, 8).get(name), parameters.get(name))).toBe(false);
    expect(same(parameters.get('model.layers.0.mlp.up_proj.weight'), parameters.get(name))).toBe(false);
  });
});

describe('flopsPerToken', () => {
  it('counts six operations a matrix weight and the attention products', () => {
    const weights = [...parameterShapes(shape)].filter(
      ([name, dimensions]) => dimensions.length > 1 && !name.includes('embed'),
    );
    const matmulWeights = weights.reduce((sum, [, dimensions]) => sum + sizeOf(dimensions), 0);
    // Forward: two products (scores and values) of 2·T/2·D per head and layer; backward twice that.
    const attention = 2 * 3 * 2 * (2 * (100 / 2)) * 4 * 4;
    expect(flopsPerToken(shape, 100)).toBe(6 * matmulWeights + attention);
  });

  it('counts the output head of a tied model as well', () => {
    expect(flopsPerToken({ ...shape, tieEmbeddings: true }, 100)).toBe(flopsPerToken(shape, 100));
  });
});
