/** The length of all gradients taken as one vector. */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

const norm = defineKernel<Record<string, tf.Tensor>>({
  name: 'GlobalNorm',
  forward: (tensors) => {
    const squares = Object.values(tensors).map((tensor) => tf.sum(tf.square(tensor)));
    return [tf.sqrt(tf.addN(squares))];
  },
});

/**
 * √ Σ x² over all elements of all tensors; not finite when any element is not.
 * @param tensors at least one
 */
export function globalNorm(tensors: readonly tf.Tensor[]): tf.Scalar {
  return norm(Object.fromEntries(tensors.entries()), {})[0] as tf.Scalar;
}
