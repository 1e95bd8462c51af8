/** Every operation on the CUDA engine against the native one: values, gradients, bits of two runs, leaks, NaN. */

import { CudaBackend, type CudaPrecision } from '../../src/engine/cuda/backend.ts';
import { openCuda } from '../../src/engine/cuda/cuda.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { embedding, packHalf, unpackHalf } from '../../src/ops/index.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { range } from './cases.ts';
import { type Finding, normalisedError, sameBits } from './compare.ts';
import { type Operation, operations, type Size } from './operations.ts';

/** Largest normalised error of values and gradients. */
export const TOLERANCE: Record<CudaPrecision, number> = { float32: 1e-5, bfloat16: 1e-2 };

/** Which operations: those whose names contain `names`, in their order from number `from` on. */
export interface Only {
  names: string;
  from: number;
  precisions: readonly CudaPrecision[];
}

/** @returns the number to go on from in another process when the device was lost, else undefined */
export async function checkOperations(
  size: Size,
  { names, from, precisions }: Only,
  report: (finding: Finding) => void,
): Promise<number | undefined> {
  await openCuda(precisions[0]!); // without a GPU nothing is worth computing
  const all = operations(size).filter(({ name }) => name.includes(names));
  for (const [number, operation] of all.entries()) {
    if (number < from) continue;
    for (const precision of precisions) {
      const about = { part: `operations, ${precision}`, name: operation.name };
      console.error(`${operation.name}, ${precision}`); // the last words when it hangs
      try {
        report({ ...about, ...(await checkOperation(operation, precision)) });
      } catch (error) {
        report({ ...about, ok: false, note: firstLine(error) });
        if (isDeviceLost()) return number + 1;
      }
    }
  }
  return undefined;
}

/** Whether waiting fails again after it failed: the error stays, as after an illegal access. */
function isDeviceLost(): boolean {
  const backend = tf.backend();
  if (!(backend instanceof CudaBackend)) return false;
  const fails = [0, 1].map(() => {
    try {
      backend.kernels.wait();
      return false;
    } catch {
      return true;
    }
  });
  return fails[1]!;
}

export function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]!.slice(0, 200);
}

async function checkOperation(
  operation: Operation,
  precision: CudaPrecision,
): Promise<Pick<Finding, 'ok' | 'value' | 'limit' | 'note'>> {
  const inputs = inputsOf(operation, precision);
  await openEngine('native', 0);
  const expected = await compute(operation, inputs, false);
  await openCuda(precision);
  const backend = tf.backend() as CudaBackend;
  poison();
  const actual = await compute(operation, inputs, true);
  const before = { tensors: tf.memory().numTensors, bytes: backend.kernels.usedBytes() };
  poison();
  const again = await compute(operation, inputs, true);
  const after = { tensors: tf.memory().numTensors, bytes: backend.kernels.usedBytes() };
  const errors = actual.map((values, i) => normalisedError(values, expected[i]!));
  const value = Math.max(...errors);
  const limit = TOLERANCE[precision];
  const notes = [];
  if (actual.length !== expected.length) notes.push(`${actual.length} results instead of ${expected.length}`);
  if (!(value <= limit)) notes.push(`result ${errors.indexOf(value)} of ${errors.length}`);
  if (!actual.every((values, i) => sameBits(values, again[i]!))) notes.push('two runs differ');
  if (after.tensors !== before.tensors) notes.push(`${after.tensors - before.tensors} tensors leak`);
  if (after.bytes !== before.bytes) notes.push(`${after.bytes - before.bytes} bytes leak`);
  return { ok: notes.length === 0, value, limit, note: notes.join('; ') };
}

/** Random numbers, those that bfloat16 can hold where it is to be compared. */
function inputsOf({ inputs, scale = 1 }: Operation, precision: CudaPrecision): Float32Array[] {
  return inputs.map((shape, i) => {
    const values = randomNormals(i + 1, PURPOSE.test, 0, tf.util.sizeFromShape(shape)).map((value) => value * scale);
    return precision === 'bfloat16' ? unpackHalf(packHalf(values, 'bfloat16'), 'bfloat16') : values;
  });
}

/** Outputs and gradients on the engine that is open. */
async function compute(
  { inputs, float32 = [], differentiable = [], run }: Operation,
  values: readonly Float32Array[],
  onCuda: boolean,
): Promise<Float32Array[]> {
  const results = tf.tidy(() => {
    const tensors = inputs.map((shape, i) => {
      const tensor = tf.tensor(values[i]!, shape, 'float32');
      return onCuda && !float32.includes(i) ? asActivation(tensor) : tensor;
    });
    const outputs = run(tensors);
    if (differentiable.length === 0) return outputs;
    const dy = randomNormals(99, PURPOSE.test, 0, outputs[0]!.size);
    const upstream = tf.tensor(unpackHalf(packHalf(dy, 'bfloat16'), 'bfloat16'), outputs[0]!.shape);
    const first = (...varied: tf.Tensor[]): tf.Tensor => {
      const all = tensors.map((tensor, i) => varied[differentiable.indexOf(i)] ?? tensor);
      return run(all)[0]!;
    };
    return [
      ...outputs,
      ...tf.grads(first)(
        differentiable.map((i) => tensors[i]!),
        upstream,
      ),
    ];
  });
  const arrays = await Promise.all(results.map(async (tensor) => Float32Array.from(await tensor.data())));
  tf.dispose(results);
  return arrays;
}

/** The same numbers, stored as the engine stores activations: every row of a table is looked up. */
function asActivation(tensor: tf.Tensor): tf.Tensor {
  const width = tensor.shape.at(-1)!;
  const rows = tensor.size / width;
  return embedding(tf.tensor1d(range(rows), 'int32'), tensor.reshape([rows, width])).reshape(tensor.shape);
}

/** Leaves NaN in the memory that is given out next, so that what a kernel forgets to write shows. */
function poison(): void {
  const sizes = [...range(12, 8)].map((power) => 2 ** power);
  tf.dispose(sizes.map((size) => tf.fill([size], Number.NaN)));
}
