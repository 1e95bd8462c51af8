import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../../../src/engine/engine.ts';
import * as tf from '../../../../src/engine/tf.ts';
import { ConstantCache, defineKernel, withoutGradient } from '../../../../src/ops/kernel.ts';
import { linear } from '../../../../src/ops/linear.ts';

beforeAll(async () => {
  await openEngine('cpu', 0);
});

it('runs the kernel of the engine where there is one', () => {
  const double = defineKernel<{ x: tf.Tensor }>({ name: 'TestDouble', forward: ({ x }) => [tf.mul(x, 2)] });
  tf.registerKernel({
    kernelName: 'TestDouble',
    backendName: 'cpu',
    kernelFunc: ({ inputs }) => [tf.mul(inputs.x as tf.Tensor, -2)],
  });
  expect(tf.tidy(() => double({ x: tf.scalar(3) }, {})[0]!).dataSync()[0]).toBe(-6);
});

it('records one node a call on the tape, none of the ops inside', async () => {
  const before = tf.memory().numTensors;
  const profile = await tf.profile(() => {
    const grad = tf.tidy(() => tf.grad((x: tf.Tensor) => tf.sum(linear(x, tf.ones([2, 3]))))(tf.ones([4, 3])));
    grad.dispose();
    return grad;
  });
  expect(profile.kernelNames).toContain('LinearGrad');
  expect(tf.memory().numTensors).toBe(before);
});

it('refuses two kernels of one name', () => {
  const definition = {
    name: 'TestTwice',
    forward: ({ x }: { x: tf.Tensor }) => [tf.neg(x)],
    gradient: { inputs: [], backward: ([dy]: tf.Tensor[]) => ({ x: () => tf.neg(dy!) }) },
  };
  defineKernel(definition);
  expect(() => defineKernel(definition)).toThrow('TestTwice');
});

it('cuts the tape where asked', () => {
  const gradient = tf.tidy(() =>
    tf.grad((x: tf.Tensor) =>
      tf.sum(
        tf.mul(
          x,
          withoutGradient(() => tf.square(x)),
        ),
      ),
    )(tf.tensor1d([3])),
  );
  expect(gradient.dataSync()[0]).toBe(9);
});

it('keeps constants inside tidy and drops the least recently used', () => {
  const cache = new ConstantCache(2);
  const get = (name: string): tf.Tensor => tf.tidy(() => cache.get(name, () => tf.scalar(name.length)));
  const [a, b] = [get('a'), get('bb')];
  expect(get('a')).toBe(a);
  get('ccc');
  expect(a.isDisposed).toBe(false);
  expect(b.isDisposed).toBe(true);
});
