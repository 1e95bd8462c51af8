/** The native engine: C++ kernels on threads of its own, behind a tfjs backend of its own. */

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { declareComplete } from '../complete.ts';
import * as tf from '../tf.ts';
import { findAddon } from './addon.ts';
import { NativeBackend } from './backend.ts';
import { BACKEND_NAME } from './register.ts';
import './fused_kernels.ts';
import './plain_kernels.ts';

/**
 * Makes the native engine the tfjs backend `native`.
 * @param threads 0 for one per physical core
 * @throws Error when the addon is not built or does not load
 */
export async function openNative(threads: number): Promise<void> {
  const found = findAddon();
  if (!('addon' in found)) throw new Error(found.why);
  found.addon.setThreads(threads > 0 ? threads : physicalCores());
  declareComplete(BACKEND_NAME);
  if (!tf.findBackend(BACKEND_NAME)) {
    tf.registerBackend(BACKEND_NAME, () => new NativeBackend(found.addon));
    // Libraries shut down when the process exits; no kernel may run then.
    process.once('exit', () => found.addon.close());
  }
  if (!(await tf.setBackend(BACKEND_NAME))) throw new Error('tfjs could not initialise it');
}

/** The cores that this process may use; two hardware threads on one core count as one. */
export function physicalCores(): number {
  return Math.max(1, Math.floor(availableParallelism() / threadsPerCore()));
}

function threadsPerCore(): number {
  try {
    const siblings = readFileSync('/sys/devices/system/cpu/cpu0/topology/thread_siblings_list', 'utf8').trim();
    return siblings.split(',').reduce((count, span) => {
      const [first, last = first] = span.split('-').map(Number);
      return count + last! - first! + 1;
    }, 0);
  } catch {
    return 1; // Not Linux, or not told.
  }
}
