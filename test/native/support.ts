/** What the tests of the native engine share: whether it is there, and comparisons with the portable compositions. */

import { existsSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { normalisedError } from '../../bench/gpu/compare.ts';
import { openEngine } from '../../src/engine/engine.ts';
import { ADDON_PATH, type NativeAddon } from '../../src/engine/native/addon.ts';
import type { NativeBackend } from '../../src/engine/native/backend.ts';
import * as tf from '../../src/engine/tf.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

const built = existsSync(ADDON_PATH);

/** A suite that needs the addon. Without it the suite is skipped and its name says what to do. */
export const describeNative: typeof describe.skip = built
  ? (describe as typeof describe.skip)
  : (((name: string, ...rest: unknown[]) =>
      (describe.skip as (...args: unknown[]) => void)(
        `${name} (the addon is not built: scripts/build_native.sh)`,
        ...rest,
      )) as typeof describe.skip);

/** Standard normal float32 values. */
export function normals(shape: number[], seed: number, scale = 1): tf.Tensor {
  const values = randomNormals(seed, PURPOSE.test, 0, tf.util.sizeFromShape(shape)).map((value) => value * scale);
  return tf.tensor(values, shape);
}

export const int32 = (values: ArrayLike<number>, shape: number[] = [values.length]): tf.Tensor =>
  tf.tensor(Int32Array.from(values), shape, 'int32');

/** Makes its inputs on the current backend and returns all that is to be compared. */
export type Computation = () => tf.Tensor[];

/** The outputs of a computation on an engine, with the number of tensors it leaves behind checked to be none. */
export async function valuesOn(
  engine: 'cpu' | 'native',
  computation: Computation,
  threads = 2,
): Promise<Float32Array[]> {
  await openEngine(engine, threads);
  const run = (): Float32Array[] => tf.tidy(() => computation().map((tensor) => Float32Array.from(tensor.dataSync())));
  run(); // The first call may fill caches.
  const before = tf.memory();
  const values = run();
  expect(tf.memory().numTensors).toBe(before.numTensors);
  expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
  return values;
}

/** The addon of the current backend. */
export const addon = (): NativeAddon => (tf.backend() as NativeBackend).addon;

/** Compares the native kernels with the compositions on tfjs's cpu backend: on one thread, and with all instructions on two. */
export async function expectAsComposed(computation: Computation, tolerance = 1e-5): Promise<void> {
  const expected = await valuesOn('cpu', computation);
  await openEngine('native', 1);
  const available = addon().instructions();
  const settings = [{ threads: 1, instructions: available[0]! }];
  for (const instructions of available) settings.push({ threads: 2, instructions });
  for (const { threads, instructions } of settings) {
    addon().useInstructions(instructions);
    const actual = await valuesOn('native', computation, threads);
    expect(actual.length).toBe(expected.length);
    for (const [i, values] of actual.entries()) {
      const what = `output ${i} on ${threads} threads with ${instructions}`;
      expect(normalisedError(values, expected[i]!), what).toBeLessThan(tolerance);
    }
  }
  addon().useInstructions(available[0]!);
}

/** The outputs of `f` and the gradients, by all its arguments, of a random linear function of the first. */
export function withGradients(f: (...inputs: tf.Tensor[]) => tf.Tensor[], inputs: tf.Tensor[]): tf.Tensor[] {
  const outputs = f(...inputs);
  const weights = normals([outputs[0]!.size], 99);
  const scalar = (...varied: tf.Tensor[]): tf.Scalar => {
    const first = f(...varied)[0]!;
    return tf.sum(tf.mul(first.reshape([-1]), weights));
  };
  return [...outputs, ...tf.grads(scalar)(inputs)];
}
