/** Another shape of the same values. */

import * as tf from '../engine/tf.ts';

/**
 * As `tf.reshape`, whose gradient keeps its input until the backward pass only to know its shape: in front of a rotation
 * that is a copy of all queries and keys of the model.
 * @param shape with −1 at most once
 */
export function view<R extends tf.Rank>(x: tf.Tensor, shape: tf.ShapeMap[R]): tf.Tensor<R> {
  const { shape: before } = x;
  const reshaped = tf.customGrad((given) => ({
    value: tf.reshape(given as tf.Tensor, shape),
    gradFunc: (dy: tf.Tensor) => tf.reshape(dy, before),
  }));
  return reshaped(x) as tf.Tensor<R>;
}
