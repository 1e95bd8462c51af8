/**
 * How much attention each token of a reference receives (paper §3.3). Legend: B references, T tokens, H query heads,
 * K key-value heads, G = H/K, D headDim.
 */

import * as tf from '../engine/tf.ts';
import { defineKernel, withoutGradient } from './kernel.ts';

/** `softmax`: sums of softmax rows; `exp`: plain sums of exponentials (the authors' shortcut). */
export type TokenScoreRule = 'softmax' | 'exp';

type Inputs = { q: tf.Tensor; k: tf.Tensor; lengths: tf.Tensor };
type Attributes = { skip: number; rule: string };

const HIDDEN = -1e9;

const score = defineKernel<Inputs, Attributes>({
  name: 'TokenScores',
  forward: ({ q, k, lengths }, { skip, rule }) => {
    const [batch, tokens, heads, dim] = q.shape as [number, number, number, number];
    const kvHeads = k.shape[2]!;
    const group = heads / kvHeads;
    const valid = validTokens(lengths, tokens, skip); // [B, 1, T]
    const queries = tf.transpose(q.reshape([batch, tokens, kvHeads, group, dim]), [0, 2, 3, 1, 4]);
    const scaled = tf.mul(queries.reshape([batch * kvHeads, group * tokens, dim]), 1 / Math.sqrt(dim)) as tf.Tensor3D;
    const keys = tf.transpose(k, [0, 2, 1, 3]).reshape<tf.Tensor3D>([batch * kvHeads, tokens, dim]);
    const hidden = tf.mul(tf.sub(1, valid), HIDDEN).reshape([batch, 1, 1, tokens]);
    const scores = tf.matMul(scaled, keys, false, true).reshape([batch, kvHeads, group * tokens, tokens]);
    const masked = tf.add(scores, hidden);
    const givers = tf.tile(valid, [1, kvHeads, group]).reshape<tf.Tensor3D>([batch * kvHeads, 1, group * tokens]);
    const given = rule === 'softmax' ? tf.softmax(masked) : relativeExp(masked, givers);
    const received = tf.matMul(givers, given.reshape([batch * kvHeads, group * tokens, tokens]));
    return [tf.sub(tf.mul(received.reshape([batch, kvHeads, tokens]), valid), tf.sub(1, valid))];
  },
});

/** 1 for the tokens that take part, `[B, 1, T]`. */
function validTokens(lengths: tf.Tensor, tokens: number, skip: number): tf.Tensor3D {
  const ends = lengths.dataSync<'int32'>();
  const values = new Float32Array(ends.length * tokens);
  for (const [b, end] of ends.entries()) {
    if (end > skip) values.fill(1, b * tokens + skip, b * tokens + Math.min(end, tokens));
  }
  return tf.tensor3d(values, [ends.length, 1, tokens]);
}

/** exp(score − largest score of the reference and head): the order stays, and nothing overflows. */
function relativeExp(masked: tf.Tensor, givers: tf.Tensor3D): tf.Tensor {
  const [batch, kvHeads, rows] = masked.shape as [number, number, number];
  const seen = tf.add(masked, tf.mul(tf.sub(1, givers), HIDDEN).reshape([batch, kvHeads, rows, 1]));
  const largest = tf.max(seen.reshape([batch, kvHeads, -1]), 2, true).reshape([batch, kvHeads, 1, 1]);
  return tf.exp(tf.sub(seen, largest));
}

/**
 * Scores of the tokens of references: w_j = Σ_i softmax_j(q_i · k_j / √D) over the tokens i and the query heads that
 * share the key-value head, without causal mask; the caller passes queries and keys without position encoding. With
 * rule `exp`, w_j = Σ_i exp(q_i · k_j / √D) up to a factor common to all tokens of a reference and head.
 * @param q `[B, T, H, D]`
 * @param k `[B, T, K, D]`
 * @param lengths tokens of each reference with its prefix, int32 `[B]`
 * @param skip tokens of the prefix: they and the padding neither give nor receive
 * @returns `[B, K, T]`; −1 for the tokens that take no part, others are not negative. No gradient passes.
 */
export function tokenScores(
  q: tf.Tensor,
  k: tf.Tensor,
  lengths: tf.Tensor,
  skip: number,
  rule: TokenScoreRule,
): tf.Tensor3D {
  return withoutGradient(() => score({ q, k, lengths }, { skip, rule })[0] as tf.Tensor3D);
}
