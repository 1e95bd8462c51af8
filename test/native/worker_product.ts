/** What the threads of workers.test.ts compute, and the test beside them. */

import * as tf from '../../src/engine/tf.ts';

export const matrixOf = (seed: number): tf.Tensor2D =>
  tf.tensor2d(
    Float32Array.from({ length: 200 * 300 }, (_, i) => Math.sin(i * seed)),
    [200, 300],
  );

/** x · xᵀ */
export const selfProduct = (x: tf.Tensor2D): tf.Tensor2D => tf.matMul(x, x, false, true);

/** The values of the product of a seed's matrix with itself. */
export async function productOf(seed: number): Promise<Float32Array> {
  const product = tf.tidy(() => selfProduct(matrixOf(seed)));
  const values = await product.data<'float32'>();
  product.dispose();
  return values;
}
