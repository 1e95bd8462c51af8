/** Another shape of the same values. */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

const reshaped = defineKernel<{ x: tf.Tensor }, { shape: number[]; before: number[] }>({
  name: 'View',
  forward: ({ x }, { shape }) => [tf.reshape(x, shape)],
  gradient: { inputs: [], backward: ([dy], _, __, { before }) => ({ x: () => tf.reshape(dy!, before) }) },
});

/**
 * As `tf.reshape`, whose gradient keeps its input until the backward pass only to know its shape: in front of a rotation
 * that is a copy of all queries and keys of the model.
 * @param shape with −1 at most once
 */
export function view<R extends tf.Rank>(x: tf.Tensor, shape: tf.ShapeMap[R]): tf.Tensor<R> {
  const whole = tf.util.inferFromImplicitShape(shape, x.size);
  return reshaped({ x }, { shape: whole, before: x.shape })[0] as tf.Tensor<R>;
}
