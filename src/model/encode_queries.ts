/**
 * What a chunk of text asks for: its attention queries (paper, Remark 2).
 * Legend: N chunks, L tokens of the longest with its prefix, H query heads, K key-value heads, G = H/K, D headDim.
 */

import * as tf from '../engine/tf.ts';
import { attention, embedding, rope } from '../ops/index.ts';
import { finish, project } from './block.ts';
import { flatIds, type TokenIds } from './forward.ts';
import type { Model } from './model.ts';

export interface QueryOptions {
  /** Tokens in front of each chunk that ask for nothing (`<s>Reference:`). */
  prefixLength: number;
  /** One position per token, prefix included, `[L]`. */
  positions: Int32Array;
}

/**
 * The queries of the memory layers, the mean over the tokens of a chunk and over the query heads that share a key-value
 * head, turned by RoPE as the keys of memories are. The chunk is read alone behind the prefix, without memories; no
 * gradient.
 * @param ids prefix and chunk tokens, `[N, L]`, padded at the end
 * @param lengths tokens of each row, prefix included, padding not
 * @returns one `[N, K, D]` per memory layer, owned by the caller
 */
export function encodeQueries(
  model: Model,
  ids: TokenIds,
  lengths: ArrayLike<number>,
  options: QueryOptions,
): tf.Tensor3D[] {
  const { shape } = model;
  return tf.tidy(() => {
    const positions = tf.tensor1d(options.positions, 'int32');
    const group = shape.numHeads / shape.kvHeads;
    const weights = tokenWeights(lengths, options.prefixLength, positions.size, group);
    const queries: tf.Tensor3D[] = [];
    let x = embedding(flatIds(ids), model.embedding);
    for (const [layer, parameters] of model.layers.slice(0, shape.memoryLayers).entries()) {
      const input = x;
      const encoded = tf.tidy(() => {
        const { query, key, value } = project(shape, parameters, input, positions.size);
        const turned = rope(query, positions, shape.ropeTheta);
        const mean = meanQuery(turned, weights, shape.kvHeads);
        if (layer === shape.memoryLayers - 1) return { mean, x: undefined };
        const { out } = attention(turned, rope(key, positions, shape.ropeTheta), value);
        return { mean, x: finish(shape, parameters, input, out) };
      });
      queries.push(encoded.mean);
      x = encoded.x ?? x;
    }
    return queries;
  });
}

/**
 * `[N, N·L]`: as a factor from the left it takes the mean over the tokens of each chunk, prefix and padding left out,
 * divided by G.
 */
function tokenWeights(lengths: ArrayLike<number>, prefixLength: number, width: number, group: number): tf.Tensor2D {
  const chunks = lengths.length;
  const values = new Float32Array(chunks * chunks * width);
  for (let row = 0; row < chunks; row++) {
    const start = row * chunks * width + row * width;
    const length = lengths[row]!;
    values.fill(1 / ((length - prefixLength) * group), start + prefixLength, start + length);
  }
  return tf.tensor2d(values, [chunks, chunks * width]);
}

/** `[N, L, H, D]` to `[N, K, D]`. */
function meanQuery(query: tf.Tensor4D, weights: tf.Tensor2D, kvHeads: number): tf.Tensor3D {
  const [chunks, tokens, heads, dim] = query.shape;
  const overTokens = tf.matMul(weights, query.reshape<tf.Tensor2D>([chunks * tokens, heads * dim]));
  return overTokens.reshape([chunks, kvHeads, heads / kvHeads, dim]).sum<tf.Tensor3D>(2);
}
