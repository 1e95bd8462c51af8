/** How a function becomes a tfjs kernel of each engine that has C++ of its own. */

import { declareComplete } from '../complete.ts';
import * as tf from '../tf.ts';
import type { EngineBackend } from './backend.ts';
import type { Floats, Ints, Values } from './kernels.ts';

/** The backend of any such engine, as kernels see it. */
export type Backend = EngineBackend<Floats, Ints, Values, unknown>;

type Attributes = Record<string, unknown>;

/** A kernel gets its inputs by name; what it returns is its output or outputs. */
type EngineKernel<I extends string, A, O> = (backend: Backend, inputs: Record<I, tf.TensorInfo>, attributes: A) => O;

const kernels: { name: string; kernel: EngineKernel<string, Attributes, tf.TensorInfo | tf.TensorInfo[]> }[] = [];

/** Defines a kernel of src/ops; those return a list, also of one output. */
export function fusedKernel<I extends string, A = Attributes>(
  name: string,
  kernel: EngineKernel<I, A, tf.TensorInfo[]>,
): void {
  plainKernel(name, kernel);
}

/** Defines a kernel; types of inputs and attributes are those of the operation with this name. */
export function plainKernel<I extends string, A = Attributes>(
  name: string,
  kernel: EngineKernel<I, A, tf.TensorInfo | tf.TensorInfo[]>,
): void {
  kernels.push({
    name,
    kernel: (backend, inputs, attributes) => kernel(backend, inputs as Record<I, tf.TensorInfo>, attributes as A),
  });
}

/** Makes all kernels known to tfjs as those of a backend, which must be an `EngineBackend`. */
export function registerKernels(backendName: string): void {
  declareComplete(backendName);
  for (const { name, kernel } of kernels) {
    const what = `kernel ${name}`;
    tf.registerKernel({
      kernelName: name,
      backendName,
      kernelFunc: ({ inputs, attrs, backend }) => {
        const own = backend as Backend;
        return own.run(what, () => kernel(own, inputs as Record<string, tf.TensorInfo>, attrs as Attributes));
      },
    });
  }
}
