/** Embedding lookup. Legend: N tokens, V vocabulary, d hiddenSize. */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

// GatherND and ScatterND copy and add whole rows; GatherV2 goes element by element on wasm, a hundred times slower.
const lookUp = defineKernel<{ ids: tf.Tensor; weight: tf.Tensor }>({
  name: 'Embedding',
  forward: ({ ids, weight }) => [tf.gatherND(weight, ids.reshape([-1, 1]))],
  gradient: {
    inputs: ['ids', 'weight'],
    backward: ([dy], { ids, weight }) => ({
      weight: () => scatterAdd({ ids: ids!, dy: dy! }, { rows: weight!.shape[0]! })[0]!,
    }),
  },
});

const scatterAdd = defineKernel<{ ids: tf.Tensor; dy: tf.Tensor }, { rows: number }>({
  name: 'EmbeddingGrad',
  forward: ({ ids, dy }, { rows }) => [tf.scatterND(ids.reshape([-1, 1]), dy, [rows, dy.shape[1]!])],
});

/**
 * Rows of the embedding: `weight[ids]`. The gradient adds the rows of equal ids in text order, so that it is the same
 * each time.
 * @param ids int32 `[N]`, each in [0, V)
 * @param weight `[V, d]`
 * @returns `[N, d]`
 */
export function embedding(ids: tf.Tensor, weight: tf.Tensor): tf.Tensor2D {
  return lookUp({ ids, weight }, {})[0] as tf.Tensor2D;
}
