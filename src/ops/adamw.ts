/** One AdamW update of many parameters (Loshchilov & Hutter 2019). */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

export type AdamwOptions = {
  /** Learning rate. */
  lr: number;
  beta1: number;
  beta2: number;
  /** Added to the square root of the corrected second moment. */
  epsilon: number;
  /** Decoupled decay: the parameter shrinks by lr · weightDecay. */
  weightDecay: number;
  /** Number of this update, from 1, for the bias correction. */
  step: number;
  /** The gradient is multiplied by this first. */
  gradScale: number;
  /** The caller gives up parameter and moments, so an engine may put the results in their place. */
  inPlace: boolean;
};

/** A parameter with what belongs to it; all of one shape. */
export type ParameterState = {
  parameter: tf.Tensor;
  /** First and second moment. */
  m: tf.Tensor;
  v: tf.Tensor;
};

export type ParameterUpdate = ParameterState & { gradient: tf.Tensor };

/** Inputs are `parameter0`, `gradient0`, `m0`, `v0`, `parameter1` and so on; outputs new parameter, m and v of each. */
const update = defineKernel<Record<string, tf.Tensor>, AdamwOptions & { count: number }>({
  name: 'Adamw',
  forward: (inputs, options) =>
    Array.from({ length: options.count }, (_, i) => {
      const [parameter, gradient] = [inputs[`parameter${i}`]!, inputs[`gradient${i}`]!];
      return updateOne({ parameter, gradient, m: inputs[`m${i}`]!, v: inputs[`v${i}`]! }, options);
    }).flat(),
});

function updateOne(
  { parameter, gradient, m, v }: ParameterUpdate,
  { lr, beta1, beta2, epsilon, weightDecay, step, gradScale }: AdamwOptions,
): tf.Tensor[] {
  const newM = tf.add(tf.mul(m, beta1), tf.mul(gradient, (1 - beta1) * gradScale));
  const newV = tf.add(tf.mul(v, beta2), tf.mul(tf.square(gradient), (1 - beta2) * gradScale ** 2));
  // The corrections of both moments are numbers, so they go into the rate and into epsilon.
  const correction = Math.sqrt(1 - beta2 ** step);
  const rate = (lr * correction) / (1 - beta1 ** step);
  const direction = tf.div(newM, tf.add(tf.sqrt(newV), epsilon * correction));
  return [tf.sub(tf.mul(parameter, 1 - lr * weightDecay), tf.mul(direction, rate)), newM, newV];
}

/**
 * Updates that, unless they are `inPlace`, do not change their arguments.
 * @returns the new state of each, owned by the caller
 */
export function adamw(updates: readonly ParameterUpdate[], options: AdamwOptions): ParameterState[] {
  const inputs = updates.flatMap((tensors, i) =>
    Object.entries(tensors).map(([name, tensor]): [string, tf.Tensor] => [`${name}${i}`, tensor]),
  );
  const outputs = update(Object.fromEntries(inputs), { ...options, count: updates.length });
  return updates.map((_, i) => ({ parameter: outputs[3 * i]!, m: outputs[3 * i + 1]!, v: outputs[3 * i + 2]! }));
}
