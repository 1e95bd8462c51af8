/** One AdamW update of one parameter (Loshchilov & Hutter 2019). */

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

type Inputs = { parameter: tf.Tensor; gradient: tf.Tensor; m: tf.Tensor; v: tf.Tensor };

const update = defineKernel<Inputs, AdamwOptions>({
  name: 'Adamw',
  forward: ({ parameter, gradient, m, v }, { lr, beta1, beta2, epsilon, weightDecay, step, gradScale }) => {
    const newM = tf.add(tf.mul(m, beta1), tf.mul(gradient, (1 - beta1) * gradScale));
    const newV = tf.add(tf.mul(v, beta2), tf.mul(tf.square(gradient), (1 - beta2) * gradScale ** 2));
    // The corrections of both moments are numbers, so they go into the rate and into epsilon.
    const correction = Math.sqrt(1 - beta2 ** step);
    const rate = (lr * correction) / (1 - beta1 ** step);
    const direction = tf.div(newM, tf.add(tf.sqrt(newV), epsilon * correction));
    const newParameter = tf.sub(tf.mul(parameter, 1 - lr * weightDecay), tf.mul(direction, rate));
    return [newParameter, newM, newV];
  },
});

/**
 * An update that, unless it is `inPlace`, does not change its arguments.
 * @returns the new parameter, first and second moment, owned by the caller
 */
export function adamw(
  parameter: tf.Tensor,
  gradient: tf.Tensor,
  m: tf.Tensor,
  v: tf.Tensor,
  options: AdamwOptions,
): [parameter: tf.Tensor, m: tf.Tensor, v: tf.Tensor] {
  return update({ parameter, gradient, m, v }, options) as [tf.Tensor, tf.Tensor, tf.Tensor];
}
