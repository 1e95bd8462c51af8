/** Root-mean-square normalisation (Zhang & Sennrich 2019). Legend: N tokens, d hiddenSize. */

import * as tf from '../engine/tf.ts';
import { columnSums } from './composition.ts';
import { defineKernel } from './kernel.ts';

type Inputs = { x: tf.Tensor; weight: tf.Tensor };

const normalise = defineKernel<Inputs, { epsilon: number }>({
  name: 'RmsNorm',
  forward: ({ x, weight }, { epsilon }) => [tf.mul(tf.mul(x, inverseNorm(x, epsilon)), weight)],
  gradient: {
    inputs: ['x', 'weight'],
    backward: ([dy], { x, weight }, _, { epsilon }) => {
      const [dx, dWeight] = normaliseGrad({ x: x!, weight: weight!, dy: dy! }, { epsilon });
      return { x: () => dx!, weight: () => dWeight! };
    },
  },
});

const normaliseGrad = defineKernel<Inputs & { dy: tf.Tensor }, { epsilon: number }>({
  name: 'RmsNormGrad',
  forward: ({ x, weight, dy }, { epsilon }) => {
    const inverse = inverseNorm(x, epsilon);
    const unit = tf.mul(x, inverse);
    const dUnit = tf.mul(dy, weight);
    const radial = tf.mean(tf.mul(dUnit, unit), 1, true);
    const dx = tf.mul(tf.sub(dUnit, tf.mul(unit, radial)), inverse);
    return [dx, columnSums(tf.mul(dy, unit))];
  },
});

/** 1 / √(mean of squares + epsilon) of each row, `[N, 1]`. */
function inverseNorm(x: tf.Tensor, epsilon: number): tf.Tensor {
  return tf.rsqrt(tf.add(tf.mean(tf.square(x), 1, true), epsilon));
}

/**
 * Scales each row to a root mean square of one, then by `weight`.
 * @param x `[N, d]`
 * @param weight `[d]`
 * @param epsilon added to the mean of squares
 * @returns `[N, d]`
 */
export function rmsNorm(x: tf.Tensor, weight: tf.Tensor, epsilon: number): tf.Tensor2D {
  return normalise({ x, weight }, { epsilon })[0] as tf.Tensor2D;
}
