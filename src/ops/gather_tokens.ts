/**
 * Keys or values of chosen tokens. Legend: B references, T tokens, K key-value heads, S kept tokens, D headDim.
 */

import type * as tf from '../engine/tf.ts';
import { gatherRows, rowIndex, scatterRows } from './composition.ts';
import { defineKernel } from './kernel.ts';

const gather = defineKernel<{ x: tf.Tensor; indices: tf.Tensor }>({
  name: 'GatherTokens',
  forward: ({ x, indices }) => {
    const [, tokens, heads, dim] = x.shape as [number, number, number, number];
    const rows = gatherRows(x.reshape([-1, dim]), flatRows(indices, tokens, heads));
    return [rows.reshape([...indices.shape, dim])];
  },
  gradient: {
    inputs: ['x', 'indices'],
    backward: ([dy], { x, indices }) => ({
      x: () => gatherGrad({ indices: indices!, dy: dy! }, { tokens: x!.shape[1]! })[0]!,
    }),
  },
});

const gatherGrad = defineKernel<{ indices: tf.Tensor; dy: tf.Tensor }, { tokens: number }>({
  name: 'GatherTokensGrad',
  forward: ({ indices, dy }, { tokens }) => {
    const [batch, heads, , dim] = dy.shape as [number, number, number, number];
    const sums = scatterRows(dy.reshape([-1, dim]), flatRows(indices, tokens, heads), batch * tokens * heads);
    return [sums.reshape([batch, tokens, heads, dim])];
  },
});

/** Rows of `[B·T·K, D]` that `indices` `[B, K, S]` mean, `[B·K·S, 1]`. */
function flatRows(indices: tf.Tensor, tokens: number, heads: number): tf.Tensor2D {
  const kept = indices.shape[2]!;
  const rows = indices.dataSync<'int32'>().map((token, i) => {
    const sequenceAndHead = Math.floor(i / kept);
    return (Math.floor(sequenceAndHead / heads) * tokens + token) * heads + (sequenceAndHead % heads);
  });
  return rowIndex(rows);
}

/**
 * `out[b, k, s] = x[b, indices[b, k, s], k]`, differentiable in `x`.
 * @param x `[B, T, K, D]`
 * @param indices int32 `[B, K, S]`
 * @returns `[B, K, S, D]`
 */
export function gatherTokens(x: tf.Tensor, indices: tf.Tensor): tf.Tensor4D {
  return gather({ x, indices }, {})[0] as tf.Tensor4D;
}
