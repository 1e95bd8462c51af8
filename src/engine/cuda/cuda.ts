/** The CUDA engine: kernels on a GPU, behind a tfjs backend of its own. */

import { registerKernels } from '../kernels/index.ts';
import * as tf from '../tf.ts';
import { type CudaAddon, loadCudaAddon } from './addon.ts';
import { CudaBackend, type CudaPrecision } from './backend.ts';

const BACKEND_NAME = 'cuda';

/** The GPU of this process: the first that CUDA_VISIBLE_DEVICES leaves. */
const DEVICE = 0;

/**
 * Makes the GPU the tfjs backend `cuda`.
 * @returns what the GPU and cuBLASLt are, in words
 * @throws Error when the addon does not load, the GPU cannot be used or cuBLASLt is missing
 */
export async function openCuda(precision: CudaPrecision): Promise<string> {
  const addon = loadCudaAddon();
  const description = describeDevice(addon);
  if (!tf.findBackend(BACKEND_NAME)) {
    registerKernels(BACKEND_NAME);
    tf.registerBackend(BACKEND_NAME, () => new CudaBackend(addon, precision));
    process.once('exit', () => addon.close());
  }
  if (!(await tf.setBackend(BACKEND_NAME))) throw new Error('tfjs could not initialise it');
  (tf.backend() as CudaBackend).precision = precision;
  return description;
}

/** Opens the GPU and cuBLASLt, so that what is missing is told at the start. */
export function describeDevice(addon: CudaAddon): string {
  return [addon.open(DEVICE), addon.openBlas()].filter((part) => part !== '').join('; ');
}
