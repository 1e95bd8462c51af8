/** The native engine: C++ kernels on threads of its own, behind a tfjs backend of its own. */

import { physicalCores } from '../../io/cores.ts';
import { registerKernels } from '../kernels/index.ts';
import * as tf from '../tf.ts';
import { findAddon } from './addon.ts';
import { NativeBackend } from './backend.ts';

const BACKEND_NAME = 'native';

/**
 * Makes the native engine the tfjs backend `native`.
 * @param threads 0 for one per physical core
 * @throws Error when the addon is not built or does not load
 */
export async function openNative(threads: number): Promise<void> {
  const found = findAddon();
  if (!('addon' in found)) throw new Error(found.why);
  found.addon.setThreads(threads > 0 ? threads : physicalCores());
  if (!tf.findBackend(BACKEND_NAME)) {
    registerKernels(BACKEND_NAME);
    tf.registerBackend(BACKEND_NAME, () => new NativeBackend(found.addon));
    // Libraries shut down when the process exits; no kernel may run then.
    process.once('exit', () => found.addon.close());
  }
  if (!(await tf.setBackend(BACKEND_NAME))) throw new Error('tfjs could not initialise it');
}
