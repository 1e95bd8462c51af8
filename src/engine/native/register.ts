/** How a function becomes a tfjs kernel of the native engine. */

import * as tf from '../tf.ts';
import type { NativeBackend } from './backend.ts';

export const BACKEND_NAME = 'native';

type Attributes = Record<string, unknown>;

/** A kernel gets its inputs by name; what it returns is its output or outputs. */
type NativeKernel<I extends string, A, O> = (
  backend: NativeBackend,
  inputs: Record<I, tf.TensorInfo>,
  attributes: A,
) => O;

/** Registers a kernel of src/ops; those return a list, also of one output. */
export function registerFused<I extends string, A = Attributes>(
  name: string,
  kernel: NativeKernel<I, A, tf.TensorInfo[]>,
): void {
  registerKernel(name, kernel);
}

/** Registers a kernel; types of inputs and attributes are those of the operation with this name. */
export function registerKernel<I extends string, A = Attributes>(
  name: string,
  kernel: NativeKernel<I, A, tf.TensorInfo | tf.TensorInfo[]>,
): void {
  tf.registerKernel({
    kernelName: name,
    backendName: BACKEND_NAME,
    kernelFunc: ({ inputs, attrs, backend }) =>
      kernel(backend as NativeBackend, inputs as Record<I, tf.TensorInfo>, attrs as A),
  });
}
