/** Which sample is seen when: a keyed permutation per epoch, any position computable alone. */

import { PURPOSE, permute } from '../random.ts';

/**
 * The sample at position `globalIndex` of the endless order: every epoch of `numSamples` positions visits each sample once,
 * in an order of its own. A pure function, so a resumed run or any number of ranks sees the same order.
 */
export function sampleAt(seed: number, globalIndex: number, numSamples: number): number {
  const epoch = Math.floor(globalIndex / numSamples);
  return permute(seed, PURPOSE.sampleOrder, epoch, globalIndex % numSamples, numSamples);
}
