/** What the tests of the cuda engine as a whole share: it beside the native one, in both precisions. */

import { expect } from 'vitest';
import { normalisedError } from '../../bench/gpu/compare.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { hasCuda } from '../engines.ts';
import { rounded, type Storage, TOLERANCE } from './support.ts';

if (hasCuda) await openEngine('native', 2);

/** An engine in a precision. */
export type Way = { engine: 'native' | 'cuda'; precision: Storage };

export const NATIVE: Way = { engine: 'native', precision: 'float32' };
export const cuda = (precision: Storage): Way => ({ engine: 'cuda', precision });

export async function open({ engine, precision }: Way): Promise<void> {
  await openEngine(engine, 2, precision);
}

/** Standard normal numbers times `scale` that bfloat16 holds, so that errors are those of computing. */
export function numbers(shape: number[], seed: number, scale = 1): tf.Tensor {
  const values = randomNormals(seed, PURPOSE.test, 0, tf.util.sizeFromShape(shape)).map((value) => value * scale);
  return tf.tensor(rounded(values), shape);
}

export const integers = (values: ArrayLike<number>, shape: number[] = [values.length]): tf.Tensor =>
  tf.tensor(Int32Array.from(values), shape, 'int32');

/** What a computation gives on an engine; it must leave no tensor behind, nor a byte of the GPU. */
export async function valuesOn(way: Way, computation: () => tf.Tensor[]): Promise<Float32Array[]> {
  await open(way);
  const run = (): Float32Array[] => tf.tidy(() => computation().map((tensor) => Float32Array.from(tensor.dataSync())));
  run(); // The first call may fill caches.
  const before = counted();
  const values = run();
  expect(counted()).toEqual(before);
  return values;
}

/** Tensors that live, and on the GPU the bytes that they use; a pool of the native engine may grow. */
export function counted(): { tensors: number; data: number; bytes: number } {
  const { numTensors, numDataBuffers, usedBufferBytes } = tf.memory() as tf.MemoryInfo & { usedBufferBytes: number };
  return { tensors: numTensors, data: numDataBuffers, bytes: usedBufferBytes };
}

export function expectClose(
  actual: readonly Float32Array[],
  expected: readonly Float32Array[],
  tolerance: number,
  names: readonly string[] = [],
): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, values] of actual.entries()) {
    expect(normalisedError(values, expected[i]!), names[i] ?? `output ${i}`).toBeLessThan(tolerance);
  }
}

/** Compares a computation on the GPU with the native engine, in both precisions, and two runs on the GPU bit for bit. */
export async function expectAsNative(computation: () => tf.Tensor[], tolerances: Partial<typeof TOLERANCE> = {}) {
  const expected = await valuesOn(NATIVE, computation);
  for (const precision of ['float32', 'bfloat16'] as const) {
    const actual = await valuesOn(cuda(precision), computation);
    expect(await valuesOn(cuda(precision), computation)).toEqual(actual);
    expectClose(actual, expected, tolerances[precision] ?? TOLERANCE[precision]);
  }
}
