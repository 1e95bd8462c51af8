/**
 * Rotary position embedding (Su et al. 2021) in the half-split convention of Hugging Face Llama: dimension i turns
 * together with i + D/2. Legend: B batch, T tokens, heads, D headDim.
 */

import * as tf from '../engine/tf.ts';
import { ConstantCache, defineKernel } from './kernel.ts';

type Inputs = { x: tf.Tensor; positions: tf.Tensor };
type Attributes = { theta: number; inverse: boolean };

// The gradient of a rotation is the rotation back, so the kernel is its own gradient.
const rotate: (inputs: Inputs, attributes: Attributes) => tf.Tensor[] = defineKernel<Inputs, Attributes>({
  name: 'Rope',
  forward: ({ x, positions }, { theta, inverse }) => [rotateComposed(x, positions, theta, inverse)],
  gradient: {
    inputs: ['positions'],
    backward: ([dy], { positions }, _, { theta, inverse }) => ({
      x: () => rotate({ x: dy!, positions: positions! }, { theta, inverse: !inverse })[0]!,
    }),
  },
});

const tables = new ConstantCache(16);

/** x·cos + rotate_half(x)·sin; rotate_half as a product with a matrix of 0 and ±1, exact and faster than to cut and join. */
function rotateComposed(x: tf.Tensor, positions: tf.Tensor, theta: number, inverse: boolean): tf.Tensor {
  const [batch, tokens, heads, dim] = x.shape as [number, number, number, number];
  const places = positions.dataSync<'int32'>();
  const shape = [tokens * heads * dim];
  const table = (wave: (angle: number) => number, name: string): tf.Tensor =>
    tables.get(`${name}:${heads}:${dim}:${theta}:${places.join()}`, () =>
      tf.tensor(angleTable(places, heads, dim, theta, wave), shape),
    );
  const sin = inverse ? table((angle) => -Math.sin(angle), '-sin') : table(Math.sin, 'sin');
  const half = tf.matMul(
    x.reshape([-1, dim]),
    tables.get(`half:${dim}`, () => halfTurn(dim)),
  );
  const flat = [batch, tokens * heads * dim];
  return tf.add(tf.mul(x.reshape(flat), table(Math.cos, 'cos')), tf.mul(half.reshape(flat), sin)).reshape(x.shape);
}

function angleTable(
  places: Int32Array,
  heads: number,
  dim: number,
  theta: number,
  wave: (angle: number) => number,
): Float32Array {
  const values = new Float32Array(places.length * heads * dim);
  for (const [token, place] of places.entries()) {
    for (let i = 0; i < dim; i++) {
      const value = wave(place * theta ** ((-2 * (i % (dim / 2))) / dim));
      for (let head = 0; head < heads; head++) values[(token * heads + head) * dim + i] = value;
    }
  }
  return values;
}

/** The matrix that takes a row (a, b) of two halves to (−b, a). */
function halfTurn(dim: number): tf.Tensor2D {
  const half = dim / 2;
  const values = new Float32Array(dim * dim);
  for (let i = 0; i < half; i++) {
    values[(i + half) * dim + i] = -1;
    values[i * dim + i + half] = 1;
  }
  return tf.tensor2d(values, [dim, dim]);
}

/**
 * Turns each pair of dimensions by position · theta^(−2i/D).
 * @param x `[B, T, heads, D]`, D even
 * @param positions one per token, int32 `[T]`, the same for all sequences
 * @param theta base of the angles
 * @returns `[B, T, heads, D]`
 */
export function rope(x: tf.Tensor4D, positions: tf.Tensor1D, theta: number): tf.Tensor4D {
  const [turned] = rotate({ x, positions }, { theta, inverse: false });
  return turned as tf.Tensor4D;
}
