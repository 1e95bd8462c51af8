import { expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { view } from '../../src/ops/view.ts';
import { type Array64, checkOperation, onEachBackend, random } from './support.ts';

onEachBackend('view', () => {
  it.each([{ shape: [2, 3, 4] }, { shape: [-1, 4] }, { shape: [24] }])('shapes [6, 4] as $shape', ({ shape }) => {
    checkOperation({
      inputs: [random([6, 4], 1)],
      run: ([x]) => view(x!, shape as [number]),
      reference: ([x]: Array64[]) => x!.data,
    });
  });

  it('keeps nothing until the backward pass', () => {
    const x = tf.ones([6, 4]);
    const during = (f: (given: tf.Tensor) => tf.Tensor): number => {
      let kept = 0;
      tf.grad((given: tf.Tensor) => {
        const before = tf.memory().numTensors;
        const out = tf.tidy(() => f(given));
        kept = tf.memory().numTensors - before - 1;
        return tf.sum(out);
      })(x).dispose();
      return kept;
    };
    expect(during((given) => view(given, [24]))).toBe(0);
    expect(during((given) => tf.reshape(given, [24]))).toBe(1);
    x.dispose();
  });

  it('refuses a shape of another size', () => {
    tf.tidy(() => {
      expect(() => view(tf.ones([6, 4]), [5, -1])).toThrow();
    });
  });
});
