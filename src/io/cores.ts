/** How many threads this machine has room for. */

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

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
