/** Choice of the tokens that a memory keeps. Legend: B references, K key-value heads, T tokens, S kept tokens. */

import * as tf from '../engine/tf.ts';
import { defineKernel, withoutGradient } from './kernel.ts';

const select = defineKernel<{ scores: tf.Tensor }, { count: number }>({
  name: 'SelectTokens',
  forward: ({ scores }, { count }) => {
    const [batch, heads, tokens] = scores.shape as [number, number, number];
    const values = scores.dataSync<'float32'>();
    const indices = new Int32Array(batch * heads * count);
    for (let row = 0; row < batch * heads; row++) {
      indices.set(best(values.subarray(row * tokens, (row + 1) * tokens), count), row * count);
    }
    return [tf.tensor3d(indices, [batch, heads, count], 'int32')];
  },
});

/** The places of the `count` best scores in text order; of equal scores the earlier first; negative scores never. */
function best(scores: Float32Array, count: number): number[] {
  const real = [...scores.keys()].filter((token) => scores[token]! >= 0);
  const byScore = real.sort((a, b) => scores[b]! - scores[a]! || a - b);
  return byScore.slice(0, count).sort((a, b) => a - b);
}

/**
 * The `count` best tokens of each row in text order (paper §3.2); of equal scores the earlier token wins.
 * @param scores `[B, K, T]` as `tokenScores` gives them
 * @returns int32 `[B, K, S]`; where fewer than S tokens take part the rest is 0, to be told apart by the lengths
 */
export function selectTokens(scores: tf.Tensor, count: number): tf.Tensor3D {
  return withoutGradient(() => select({ scores }, { count })[0] as tf.Tensor3D);
}
