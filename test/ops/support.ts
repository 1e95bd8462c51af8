/** What the tests of the operations share: float64 references, finite differences and leak checks, on each engine. */

import { beforeAll, describe, expect } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { ENGINES } from '../engines.ts';

/** A float64 array with a shape; its values are float32 numbers, so that both sides compute from the same. */
export interface Array64 {
  shape: number[];
  data: Float64Array;
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Standard normal values times `scale`. */
export function random(shape: number[], seed: number, scale = 1): Array64 {
  const values = randomNormals(seed, PURPOSE.test, 0, sizeOf(shape)).map((value) => value * scale);
  return { shape, data: Float64Array.from(values) };
}

export const toTensor = ({ shape, data }: Array64): tf.Tensor => tf.tensor(Float32Array.from(data), shape);
export const int32 = (values: readonly number[], shape: number[] = [values.length]): tf.Tensor =>
  tf.tensor([...values], shape, 'int32');

/** Runs a suite once per engine. */
export function onEachBackend(name: string, suite: (backend: (typeof ENGINES)[number]) => void): void {
  describe.each(ENGINES)(`${name} on %s`, (backend) => {
    beforeAll(async () => {
      await openEngine(backend, 0, 'float32');
    });
    suite(backend);
  });
}

/** Largest difference relative to the largest expected value (at least 0.01) must stay below `tolerance`. */
export function expectClose(
  actual: tf.Tensor | ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance = 1e-5,
): void {
  const values = actual instanceof tf.Tensor ? actual.dataSync() : actual;
  expect(values.length).toBe(expected.length);
  let difference = 0;
  let largest = 0.01;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(values[i]! - expected[i]!));
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  expect(difference / largest).toBeLessThan(tolerance);
}

/** Central differences of a scalar function with respect to input `which`. */
export function numericalGradient(f: (inputs: Array64[]) => number, inputs: Array64[], which: number): Float64Array {
  const step = 1e-4;
  const values = inputs[which]!.data;
  return Float64Array.from(values, (value, i) => {
    values[i] = value + step;
    const above = f(inputs);
    values[i] = value - step;
    const below = f(inputs);
    values[i] = value;
    return (above - below) / (2 * step);
  });
}

export interface Operation {
  inputs: Array64[];
  /** The operation under test on tensors of the inputs. */
  run(tensors: tf.Tensor[]): tf.Tensor;
  /** The same in float64 loops, flat. */
  reference(inputs: Array64[]): Float64Array;
  /** Numbers of the inputs whose gradients are checked; all by default. */
  differentiable?: number[];
  tolerance?: number;
}

/** Compares values and gradients (of a random linear function of the output) with the reference, and checks for leaks. */
export function checkOperation({ inputs, run, reference, differentiable, tolerance = 2e-5 }: Operation): void {
  const which = differentiable ?? inputs.map((_, i) => i);
  const expected = reference(inputs);
  const weights = random([expected.length], 99).data;
  const scalar = (values: Float64Array): number => values.reduce((sum, value, i) => sum + value * weights[i]!, 0);
  const tensors = inputs.map(toTensor);
  const weightTensor = tf.tensor1d(Float32Array.from(weights));
  const gradients = (): tf.Tensor[] => {
    const f = (...varied: tf.Tensor[]): tf.Scalar => {
      const all = tensors.map((tensor, i) => varied[which.indexOf(i)] ?? tensor);
      return tf.sum(tf.mul(run(all).reshape([-1]), weightTensor));
    };
    return tf.grads(f)(which.map((i) => tensors[i]!));
  };

  tf.tidy(() => expectClose(run(tensors), expected, tolerance));
  tf.dispose(gradients());
  const before = tf.memory().numTensors;
  const grads = gradients();
  expect(tf.memory().numTensors - before).toBe(which.length);
  for (const [n, i] of which.entries()) {
    expect(grads[n]!.shape).toEqual(inputs[i]!.shape);
    expectClose(
      grads[n]!,
      numericalGradient((varied) => scalar(reference(varied)), inputs, i),
      tolerance,
    );
  }
  tf.dispose([grads, tensors, weightTensor]);
}

/** Fails when `f`, called again after a first time, leaves tensors behind. */
export function expectNoLeak(f: () => void): void {
  f();
  const before = tf.memory().numTensors;
  f();
  expect(tf.memory().numTensors).toBe(before);
}
