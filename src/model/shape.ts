/**
 * The shape of a model: its named parameters, their initial values and its cost.
 * Legend: d hiddenSize, L numLayers, H numHeads, K kvHeads, D headDim, W mlpWidth, V vocabSize, T sequence length.
 */

import type { ModelConfig } from '../config/schema.ts';
import { PURPOSE, randomNormals } from '../random.ts';

/** A model configuration whose vocabulary is known. */
export type ModelShape = ModelConfig & { vocabSize: number };

export const EMBEDDING = 'model.embed_tokens.weight';
export const FINAL_NORM = 'model.norm.weight';
export const OUTPUT_HEAD = 'lm_head.weight';

/** The names of a block's parameters below `model.layers.N.`, in order (Hugging Face Llama). */
export const LAYER_PARAMETERS = {
  inputNorm: 'input_layernorm.weight',
  query: 'self_attn.q_proj.weight',
  key: 'self_attn.k_proj.weight',
  value: 'self_attn.v_proj.weight',
  output: 'self_attn.o_proj.weight',
  mlpNorm: 'post_attention_layernorm.weight',
  gate: 'mlp.gate_proj.weight',
  up: 'mlp.up_proj.weight',
  down: 'mlp.down_proj.weight',
} as const;
export type LayerParameter = keyof typeof LAYER_PARAMETERS;

/** The full name of a parameter of block `layer`. */
export function layerParameterName(layer: number, parameter: LayerParameter): string {
  return `model.layers.${layer}.${LAYER_PARAMETERS[parameter]}`;
}

function layerParameterShapes(shape: ModelShape): Record<LayerParameter, number[]> {
  const { hiddenSize: d, mlpWidth: W } = shape;
  const queryWidth = shape.numHeads * shape.headDim;
  const keyWidth = shape.kvHeads * shape.headDim;
  return {
    inputNorm: [d],
    query: [queryWidth, d],
    key: [keyWidth, d],
    value: [keyWidth, d],
    output: [d, queryWidth],
    mlpNorm: [d],
    gate: [W, d],
    up: [W, d],
    down: [d, W],
  };
}

/**
 * Every parameter of a model under its Hugging Face Llama name, in the order of the network. Weights are
 * `[out, in]`; `lm_head.weight` is absent when the embedding is tied.
 */
export function parameterShapes(shape: ModelShape): Map<string, number[]> {
  const shapes = new Map<string, number[]>([[EMBEDDING, [shape.vocabSize, shape.hiddenSize]]]);
  for (let layer = 0; layer < shape.numLayers; layer++) {
    for (const [parameter, dimensions] of Object.entries(layerParameterShapes(shape))) {
      shapes.set(layerParameterName(layer, parameter as LayerParameter), dimensions);
    }
  }
  shapes.set(FINAL_NORM, [shape.hiddenSize]);
  if (!shape.tieEmbeddings) shapes.set(OUTPUT_HEAD, [shape.vocabSize, shape.hiddenSize]);
  return shapes;
}

/** The number of elements of a tensor of these dimensions. */
export function sizeOf(dimensions: readonly number[]): number {
  return dimensions.reduce((product, dimension) => product * dimension, 1);
}

/**
 * Initial parameters, a pure function of the shape and the seed.
 *
 * `depth`: normal values of standard deviation `initStd` (`embeddingStd` for the embedding), the two outputs of a block
 * scaled by 1/√(2L) so that the residual stream keeps its variance over the depth (Radford et al. 2019), norms one.
 * `mimetic`: the same without that scaling, then each head's output projection is moved towards the transpose of its
 * values and the output head towards the embedding, so that what attention reads can be said from the first step on and
 * heads that copy form early (after Trockman & Kolter 2023, who found these products in trained models).
 */
export function initParameters(shape: ModelShape, seed: number): Map<string, Float32Array> {
  const parameters = new Map<string, Float32Array>();
  let tensorNumber = 0;
  for (const [name, dimensions] of parameterShapes(shape)) {
    const count = sizeOf(dimensions);
    const values =
      dimensions.length === 1
        ? new Float32Array(count).fill(1)
        : randomNormals(seed, PURPOSE.initParameters, tensorNumber, count);
    if (dimensions.length > 1) {
      const std = initialStd(shape, name);
      for (let i = 0; i < count; i++) values[i]! *= std;
    }
    parameters.set(name, values);
    tensorNumber++;
  }
  if (shape.init === 'mimetic') makeMimetic(shape, parameters);
  return parameters;
}

function initialStd(shape: ModelShape, name: string): number {
  if (name === EMBEDDING) return shape.embeddingStd;
  const endsBlock = name.endsWith(LAYER_PARAMETERS.output) || name.endsWith(LAYER_PARAMETERS.down);
  const isScaled = endsBlock && shape.init === 'depth';
  return isScaled ? shape.initStd / Math.sqrt(2 * shape.numLayers) : shape.initStd;
}

/** Correlations of the mimetic start: of a head's output with its values, and of the output head with the embedding. */
const OUTPUT_LIKE_VALUES = 0.7;
const HEAD_LIKE_EMBEDDING = 0.9;

function makeMimetic(shape: ModelShape, parameters: Map<string, Float32Array>): void {
  for (let layer = 0; layer < shape.numLayers; layer++) {
    const values = parameters.get(layerParameterName(layer, 'value'))!;
    correlate(
      parameters.get(layerParameterName(layer, 'output'))!,
      OUTPUT_LIKE_VALUES,
      valuesTransposed(shape, values),
    );
  }
  if (shape.tieEmbeddings) return;
  const embedding = parameters.get(EMBEDDING)!;
  const scale = shape.initStd / shape.embeddingStd;
  correlate(parameters.get(OUTPUT_HEAD)!, HEAD_LIKE_EMBEDDING, (i) => scale * embedding[i]!);
}

/** Element i of an output projection `[d, H·D]` whose heads are the transposed values `[K·D, d]` they read. */
function valuesTransposed(shape: ModelShape, values: Float32Array): (i: number) => number {
  const { hiddenSize: d, numHeads, kvHeads, headDim } = shape;
  const width = numHeads * headDim;
  return (i) => {
    const head = Math.floor((i % width) / headDim);
    const row = Math.floor(head / (numHeads / kvHeads)) * headDim + (i % headDim);
    return values[row * d + Math.floor(i / width)]!;
  };
}

/** Mixes `target` with `source` so that their correlation is `correlation` and the variance stays. */
function correlate(target: Float32Array, correlation: number, source: (i: number) => number): void {
  const rest = Math.sqrt(1 - correlation ** 2);
  for (let i = 0; i < target.length; i++) target[i] = correlation * source(i) + rest * target[i]!;
}

/** The number of parameters; a tied embedding counts once. */
export function countParameters(shape: ModelShape): number {
  return [...parameterShapes(shape).values()].reduce((sum, dimensions) => sum + sizeOf(dimensions), 0);
}

/**
 * Floating-point operations of training on one token of a sequence of `sequenceLength` T, forward and backward, without
 * memories and without recomputation:
 *
 *     6·N_matmul + 12·L·H·D·T/2,   N_matmul = L·(2·d·H·D + 2·d·K·D + 3·d·W) + d·V
 *
 * N_matmul counts the weights that take part in a product (the output head, not the embedding), each used once forward
 * and twice backward, two operations each; a token sees T/2 others on average, with two products of length D per head.
 */
export function flopsPerToken(shape: ModelShape, sequenceLength: number): number {
  const { numLayers: L, hiddenSize: d, numHeads: H, kvHeads: K, headDim: D, mlpWidth: W, vocabSize: V } = shape;
  const matmulWeights = L * (2 * d * H * D + 2 * d * K * D + 3 * d * W) + d * V;
  return 6 * matmulWeights + (12 * L * H * D * sequenceLength) / 2;
}
