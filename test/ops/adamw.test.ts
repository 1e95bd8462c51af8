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
    const parameter = random([3, 5], 1).data;
    const m = new Float64Array(15);
    const v = new Float64Array(15);
    let state: [tf.Tensor, tf.Tensor, tf.Tensor] = [
      toTensor({ shape: [3, 5], data: parameter }),
      tf.zeros([3, 5]),
      tf.zeros([3, 5]),
    ];
    for (let step = 1; step <= 5; step++) {
      const gradient = random([3, 5], 10 + step);
      for (let i = 0; i < 15; i++) {
        const g = gradient.data[i]! * gradScale;
        m[i] = beta1 * m[i]! + (1 - beta1) * g;
        v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
        const direction = m[i]! / (1 - beta1 ** step) / (Math.sqrt(v[i]! / (1 - beta2 ** step)) + epsilon);
        parameter[i]! -= lr * (direction + weightDecay * parameter[i]!);
      }
      const options = { lr, beta1, beta2, epsilon, weightDecay, step, gradScale, inPlace: false };
      state = tf.tidy(() => adamw(state[0], toTensor(gradient), state[1], state[2], options));
    }
    expectClose(state[0], parameter);
    expectClose(state[1], m);
    expectClose(state[2], v);
  });

  it('leaves a parameter without gradient in place and leaks nothing', () => {
    const zeros = tf.zeros([4]);
    const parameter = tf.ones([4]);
    const options = {
      lr: 1,
      beta1: 0.9,
      beta2: 0.95,
      epsilon: 1e-8,
      weightDecay: 0,
      step: 1,
      gradScale: 1,
      inPlace: false,
    };
    expectNoLeak(() => {
      const result = adamw(parameter, zeros, zeros, zeros, options);
      expectClose(result[0], [1, 1, 1, 1]);
      tf.dispose(result);
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
