import { expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { adamw } from '../../src/ops/adamw.ts';
import { globalNorm } from '../../src/ops/global_norm.ts';
import { expectClose, expectNoLeak, onEachBackend, random, toTensor } from './support.ts';

onEachBackend('adamw', () => {
  it.each([
    { weightDecay: 0, gradScale: 1 },
    { weightDecay: 0.1, gradScale: 0.25 },
  ])('follows the textbook for five steps, decay $weightDecay, scale $gradScale', ({ weightDecay, gradScale }) => {
    const [lr, beta1, beta2, epsilon] = [0.01, 0.9, 0.95, 1e-8];
    // Two parameters in one call: the second is the first times two, with the same gradients.
    const parameters = [1, 2].map((factor) => random([3, 5], 1, factor).data);
    const [m, v] = [new Float64Array(15), new Float64Array(15)];
    const zeros = (): tf.Tensor => tf.zeros([3, 5]);
    let states = parameters.map((data) => ({ parameter: toTensor({ shape: [3, 5], data }), m: zeros(), v: zeros() }));
    for (let step = 1; step <= 5; step++) {
      const gradient = random([3, 5], 10 + step);
      for (let i = 0; i < 15; i++) {
        const g = gradient.data[i]! * gradScale;
        m[i] = beta1 * m[i]! + (1 - beta1) * g;
        v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
        const direction = m[i]! / (1 - beta1 ** step) / (Math.sqrt(v[i]! / (1 - beta2 ** step)) + epsilon);
        for (const parameter of parameters) parameter[i]! -= lr * (direction + weightDecay * parameter[i]!);
      }
      const options = { lr, beta1, beta2, epsilon, weightDecay, step, gradScale, inPlace: false };
      states = tf.tidy(() => {
        const updates = states.map((state) => ({ ...state, gradient: toTensor(gradient) }));
        return adamw(updates, options);
      });
    }
    for (const [i, state] of states.entries()) {
      expectClose(state.parameter, parameters[i]!);
      expectClose(state.m, m);
      expectClose(state.v, v);
    }
  });

  it('leaves a parameter without gradient in place and leaks nothing', () => {
    const zeros = tf.zeros([4]);
    const state = { parameter: tf.ones([4]), gradient: zeros, m: zeros, v: zeros };
    const moments = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
    expectNoLeak(() => {
      const [after] = adamw([state], { lr: 1, ...moments, weightDecay: 0, step: 1, gradScale: 1, inPlace: false });
      expectClose(after!.parameter, [1, 1, 1, 1]);
      tf.dispose([after!.parameter, after!.m, after!.v]);
    });
  });
});

onEachBackend('globalNorm', () => {
  it('is the length over all tensors', () => {
    const [a, b, c] = [random([3, 4], 1), random([7], 2, 100), random([], 3)];
    const expected = Math.sqrt(
      [a, b, c].flatMap(({ data }) => [...data]).reduce((sum, value) => sum + value * value, 0),
    );
    tf.tidy(() => expectClose(globalNorm([a, b, c].map(toTensor)), [expected]));
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('is not finite when an element is %d', (value) => {
    const [norm] = tf.tidy(() => globalNorm([tf.ones([3]), tf.tensor1d([0, value])])).dataSync();
    expect(Number.isFinite(norm)).toBe(false);
  });
});
