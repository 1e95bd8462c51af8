/** Writing into a store of keys or values that has room. Legend: B batch, T tokens, R room in tokens, K heads, D headDim. */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

const append = defineKernel<{ store: tf.Tensor; x: tf.Tensor }, { at: number }>({
  name: 'AppendTokens',
  forward: ({ store, x }, { at }) => {
    const [batch, room, heads, dim] = store.shape as [number, number, number, number];
    const behind = at + x.shape[1]!;
    const part = (from: number, to: number): tf.Tensor =>
      tf.slice(store, [0, from, 0, 0], [batch, to - from, heads, dim]);
    return [tf.concat([part(0, at), x, part(behind, room)], 1)];
  },
});

/**
 * Puts tokens into a store. The caller gives the store up, so an engine may write into it.
 * @param store `[B, R, K, D]`
 * @param x `[B, T, K, D]`
 * @param at place of the first token; at + T ≤ R
 * @returns `[B, R, K, D]`, not differentiable
 */
export function appendTokens(store: tf.Tensor4D, x: tf.Tensor4D, at: number): tf.Tensor4D {
  if (at < 0 || at + x.shape[1] > store.shape[1]) throw new RangeError(`no room for ${x.shape[1]} tokens at ${at}`);
  return append({ store, x }, { at })[0] as tf.Tensor4D;
}
