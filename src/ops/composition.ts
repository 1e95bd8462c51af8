/** Building blocks of several portable compositions, in the forms that are fast on all tfjs backends. */

import * as tf from '../engine/tf.ts';

/** Sums over the rows of `[N, d]`, `[d]`; as a product, since tfjs transposes for a sum over a leading axis. */
export function columnSums(x: tf.Tensor): tf.Tensor1D {
  return tf.matMul(tf.ones([1, x.shape[0]!]), x as tf.Tensor2D).reshape([-1]);
}

/** Row numbers as the index tensor that GatherND and ScatterND want, int32 `[n, 1]`. */
export function rowIndex(rows: Int32Array): tf.Tensor2D {
  return tf.tensor2d(rows, [rows.length, 1], 'int32');
}

/** Rows `index` of the matrix `x`, `[n, width]`. */
export function gatherRows(x: tf.Tensor, index: tf.Tensor2D): tf.Tensor2D {
  return tf.gatherND(x, index) as tf.Tensor2D;
}

/** A matrix of `rows` rows, row r being the sum of those rows of `x` whose index is r. */
export function scatterRows(x: tf.Tensor, index: tf.Tensor2D, rows: number): tf.Tensor2D {
  return tf.scatterND(index, x, [rows, x.shape[1]!]) as tf.Tensor2D;
}
