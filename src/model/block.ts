/**
 * One transformer block, as in the paper §3.4: pre-norm, grouped-query attention with rotary positions and explicit
 * memories, gated MLP, no bias.
 * Legend: N = B·T rows, B batch, T tokens, Tk tokens with those of the cache, d hiddenSize, H query heads, K key-value
 * heads, D headDim, M memories, S kept tokens per memory, R memory slots per chunk.
 */

import type * as tf from '../engine/tf.ts';
import { type AttentionMemory, attention, linear, linears, rmsNorm, rope, swiglu, view } from '../ops/index.ts';
import type { KeyValueCache } from './cache.ts';
import type { LayerWeights } from './model.ts';
import type { ModelShape } from './shape.ts';

/** The attention inputs of a block before position encoding. */
export interface Projections {
  query: tf.Tensor4D; // [B, T, H, D]
  key: tf.Tensor4D; // [B, T, K, D]
  value: tf.Tensor4D; // [B, T, K, D]
}

/** The norm and the three projections in front of attention. `x` is `[N, d]`. */
export function project(shape: ModelShape, weights: LayerWeights, x: tf.Tensor2D, tokens: number): Projections {
  const normed = rmsNorm(x, weights.inputNorm, shape.normEpsilon);
  const [query, key, value] = linears(normed, [weights.query, weights.key, weights.value]).map((rows) =>
    view<tf.Rank.R4>(rows, [-1, tokens, rows.shape[1] / shape.headDim, shape.headDim]),
  );
  return { query: query!, key: key!, value: value! };
}

/** The rest of a block after attention: output projection and MLP, each added to the residual stream `x` `[N, d]`. */
export function finish(shape: ModelShape, weights: LayerWeights, x: tf.Tensor2D, attended: tf.Tensor4D): tf.Tensor2D {
  const joined = attended.reshape<tf.Tensor2D>([-1, shape.numHeads * shape.headDim]);
  const middle = linear(joined, weights.output, x);
  const normed = rmsNorm(middle, weights.mlpNorm, shape.normEpsilon);
  const [gate, up] = linears(normed, [weights.gate, weights.up]);
  return linear(swiglu(gate!, up!), weights.down, middle);
}

/** What a block needs besides its weights and its input. */
export interface BlockContext {
  shape: ModelShape;
  layer: number;
  /** One position per token, the same for all sequences of the batch, int32 `[T]`. */
  positions: tf.Tensor1D;
  /** Where the document of each token begins, int32 `[B, T]`, when a token sees no other; absent: all before it. */
  firstVisible?: tf.Tensor;
  /** The memories that this block reads; none outside the memory layers. */
  memory?: AttentionMemory;
  cache?: KeyValueCache;
}

/**
 * A whole block.
 * @returns the new residual stream `[N, d]` and, with memories, the attention mass on each memory slot `[B, T, H, R]`
 */
export function block(
  { shape, layer, positions, firstVisible, memory, cache }: BlockContext,
  weights: LayerWeights,
  x: tf.Tensor2D,
): { x: tf.Tensor2D; share?: tf.Tensor4D } {
  const { query, key, value } = project(shape, weights, x, positions.size);
  const rotated = rope(key, positions, shape.ropeTheta);
  const stored = cache?.append(layer, rotated, value);
  const { keys, values, length: keyTokens } = stored ?? { keys: rotated, values: value, length: positions.size };
  const rotatedQuery = rope(query, positions, shape.ropeTheta);
  const { out, share } = attention(rotatedQuery, keys, values, memory, { keyTokens, firstVisible });
  return { x: finish(shape, weights, x, out), ...(memory && { share }) };
}
