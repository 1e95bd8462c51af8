/** The CUDA engine: kernels on a GPU, behind a tfjs backend of its own. */

import { registerKernels } from '../kernels/index.ts';
import * as tf from '../tf.ts';
import { loadCudaAddon } from './addon.ts';
import { CudaBackend, type CudaPrecision } from './backend.ts';
import { DEVICE } from './find.ts';

const BACKEND_NAME = 'cuda';

/**
 * Makes the GPU the tfjs backend `cuda`.
 * @param precision how activations are stored from now on
 * @returns what the GPU and cuBLASLt are, in words
 * @throws Error when the addon does not load, the GPU cannot be used or cuBLASLt is missing
 */
export async function openCuda(precision: CudaPrecision): Promise<string> {
  const addon = loadCudaAddon();
  // cuBLASLt is wanted by the first product only; but what is missing is to be told at the start.
  const parts = [addon.open(DEVICE), addon.openBlas()];
  if (!tf.findBackend(BACKEND_NAME)) {
    registerKernels(BACKEND_NAME);
    tf.registerBackend(BACKEND_NAME, () => new CudaBackend(addon, precision));
    process.once('exit', () => addon.close());
  }
  if (!(await tf.setBackend(BACKEND_NAME))) throw new Error('tfjs could not initialise it');
  (tf.backend() as CudaBackend).precision = precision;
  return parts.filter((part) => part !== '').join('; ');
}
