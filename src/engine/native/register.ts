/** How a function becomes a tfjs kernel of the native engine. */

import * as tf from '../tf.ts';
import type { NativeBackend } from './backend.ts';

export const BACKEND_NAME = 'native';

type Attributes = Record<string, unknown>;

/** A kernel: it gets its inputs by name and returns one output or several. */
export type NativeKernel<I extends string, A> = (
  backend: NativeBackend,
  inputs: Record<I, tf.TensorInfo>,
  attributes: A,
) => tf.TensorInfo | tf.TensorInfo[];

/** Registers a kernel; types of inputs and attributes are those of the operation with this name. */
export function registerKernel<I extends string, A = Attributes>(name: string, kernel: NativeKernel<I, A>): void {
  tf.registerKernel({
    kernelName: name,
    backendName: BACKEND_NAME,
    kernelFunc: ({ inputs, attrs, backend }) =>
      kernel(backend as NativeBackend, inputs as Record<I, tf.TensorInfo>, attrs as A),
  });
}
