/** A linear map without bias. Legend: N tokens. */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

type Inputs = { x: tf.Tensor; weight: tf.Tensor };

const map = defineKernel<Inputs>({
  name: 'Linear',
  forward: ({ x, weight }) => [tf.matMul(x, weight, false, true)],
  gradient: {
    inputs: ['x', 'weight'],
    backward: ([dy], { x, weight }) => {
      const [dx, dWeight] = mapGrad({ x: x!, weight: weight!, dy: dy! }, {});
      return { x: () => dx!, weight: () => dWeight! };
    },
  },
});

const mapGrad = defineKernel<Inputs & { dy: tf.Tensor }>({
  name: 'LinearGrad',
  forward: ({ x, weight, dy }) => [tf.matMul(dy, weight), tf.matMul(dy, x, true, false)],
});

/**
 * `x · weightᵀ`.
 * @param x `[N, in]`
 * @param weight `[out, in]`, the layout of Hugging Face checkpoints
 * @returns `[N, out]`
 */
export function linear(x: tf.Tensor, weight: tf.Tensor): tf.Tensor2D {
  return map({ x, weight }, {})[0] as tf.Tensor2D;
}
