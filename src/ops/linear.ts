/** Linear maps without bias. Legend: N tokens. */

import * as tf from '../engine/tf.ts';
import { defineKernel, type KernelInputs } from './kernel.ts';

const WEIGHTS = ['weight0', 'weight1', 'weight2'] as const;
type Weight = (typeof WEIGHTS)[number];
type Inputs = KernelInputs & { x: tf.Tensor; residual?: tf.Tensor } & Partial<Record<Weight, tf.Tensor>>;

/**
 * Maps of the same x by several weights in one kernel, so that x is read once and its gradient is summed where it arises.
 * Outputs: one a weight. Outputs of the gradient `<gradientName>`: dx, then one a weight.
 */
function gradientOf(gradientName: string, weights: readonly Weight[]) {
  const gradient = defineKernel<Inputs>({
    name: gradientName,
    forward: (inputs) => {
      const upstream = weights.map((_, i) => inputs[`dy${i}`] as tf.Tensor2D);
      const ofX = weights.map((weight, i) => tf.matMul(upstream[i]!, inputs[weight] as tf.Tensor2D));
      return [tf.addN(ofX), ...upstream.map((dy) => tf.matMul(dy, inputs.x as tf.Tensor2D, true, false))];
    },
  });
  return (dy: tf.Tensor[], saved: Partial<Inputs>): Record<string, () => tf.Tensor> => {
    const upstream = Object.fromEntries(weights.map((_, i) => [`dy${i}`, dy[i]!]));
    const [dx, ...dWeights] = gradient({ ...(saved as Inputs), ...upstream }, {});
    return { x: () => dx!, ...Object.fromEntries(weights.map((weight, i) => [weight, () => dWeights[i]!])) };
  };
}

/** A kernel for each number of weights, because a tfjs kernel has a fixed list of inputs. */
function defineLinear(name: string, count: number) {
  const weights = WEIGHTS.slice(0, count);
  const backward = gradientOf(`${name}Grad`, weights);
  const map = defineKernel<Inputs>({
    name,
    forward: ({ x, ...inputs }) => weights.map((weight) => mapped(x, inputs[weight]!)),
    gradient: { inputs: ['x', ...weights], backward },
  });
  return { map, backward };
}

const mapped = (x: tf.Tensor, weight: tf.Tensor): tf.Tensor =>
  tf.matMul(x as tf.Tensor2D, weight as tf.Tensor2D, false, true);

const MAPS = [defineLinear('Linear', 1), defineLinear('LinearPair', 2), defineLinear('LinearTriple', 3)] as const;

const mapAndAdd = defineKernel<Inputs>({
  name: 'LinearResidual',
  forward: ({ x, weight0, residual }) => [tf.add(residual!, mapped(x, weight0!))],
  gradient: {
    inputs: ['x', 'weight0'],
    backward: (dy, saved) => ({ ...MAPS[0].backward(dy, saved), residual: () => dy[0]!.clone() }),
  },
});

/**
 * `x · weightᵀ`, added to `residual` when that is given.
 * @param x `[N, in]`
 * @param weight `[out, in]`, the layout of Hugging Face checkpoints
 * @param residual `[N, out]`
 * @returns `[N, out]`
 */
export function linear(x: tf.Tensor, weight: tf.Tensor, residual?: tf.Tensor): tf.Tensor2D {
  if (!residual) return linears(x, [weight])[0]!;
  return mapAndAdd({ x, weight0: weight, residual }, {})[0] as tf.Tensor2D;
}

/**
 * `x · weightᵀ` for several weights.
 * @param x `[N, in]`
 * @param weights one to three, `[out_i, in]`
 * @returns one `[N, out_i]` a weight
 */
export function linears(x: tf.Tensor, weights: readonly tf.Tensor[]): tf.Tensor2D[] {
  const maps = MAPS[weights.length - 1];
  if (!maps) throw new Error(`linears takes one to three weights, got ${weights.length}`);
  const inputs = { x, ...Object.fromEntries(weights.map((weight, i) => [`weight${i}`, weight])) };
  return maps.map(inputs, {}) as tf.Tensor2D[];
}
