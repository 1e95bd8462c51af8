/** The gated activation of the MLP (Shazeer 2020). Legend: N tokens, W mlpWidth. */

import * as tf from '../engine/tf.ts';
import { defineKernel } from './kernel.ts';

type Inputs = { gate: tf.Tensor; up: tf.Tensor };

const activate = defineKernel<Inputs>({
  name: 'Swiglu',
  forward: ({ gate, up }) => [tf.mul(tf.mul(gate, tf.sigmoid(gate)), up)],
  gradient: {
    inputs: ['gate', 'up'],
    backward: ([dy], { gate, up }) => {
      const [dGate, dUp] = activateGrad({ gate: gate!, up: up!, dy: dy! }, {});
      return { gate: () => dGate!, up: () => dUp! };
    },
  },
});

const activateGrad = defineKernel<Inputs & { dy: tf.Tensor }>({
  name: 'SwigluGrad',
  forward: ({ gate, up, dy }) => {
    const sigmoid = tf.sigmoid(gate);
    const silu = tf.mul(gate, sigmoid);
    // silu'(g) = σ + g·σ·(1 − σ) = silu + σ·(1 − silu)
    const slope = tf.add(silu, tf.mul(sigmoid, tf.sub(1, silu)));
    return [tf.mul(tf.mul(dy, up), slope), tf.mul(dy, silu)];
  },
});

/**
 * `silu(gate) · up`, element by element, silu(x) = x · sigmoid(x).
 * @param gate `[N, W]`
 * @param up `[N, W]`
 * @returns `[N, W]`
 */
export function swiglu(gate: tf.Tensor, up: tf.Tensor): tf.Tensor2D {
  return activate({ gate, up }, {})[0] as tf.Tensor2D;
}
