/** Which references are in the bank at a step of the continual stage. A pure function: nothing to save or resume. */

import type { ContinualConfig } from '../config/schema.ts';
import { PURPOSE, permute } from '../random.ts';

/** The plan of a run. References enter in the order of a keyed permutation and never leave. */
export interface GrowthPlan {
  numReferences: number;
  /** References in the bank while step `step` (from 0) runs. */
  countAt(step: number): number;
  /** The reference that enters at place `place`: a permutation of 0 … numReferences − 1. */
  referenceAt(place: number): number;
  /** The references that enter at the places [from, until). */
  referencesAt(from: number, until: number): Iterable<number>;
  /** The references that enter just before step `step`; for step 0 all that are there from the start. */
  addedAt(step: number): number[];
}

/**
 * @param growth share at the start, share added every `every` steps; `every` 0 means the whole bank from the start
 * @param numReferences references that there are
 * @param seed seed of the run
 */
export function growthPlan(growth: ContinualConfig['growth'], numReferences: number, seed: number): GrowthPlan {
  const countAt = (step: number): number => {
    if (growth.every === 0) return numReferences;
    const share = growth.initialShare + Math.floor(step / growth.every) * growth.share;
    // The subtraction keeps sums such as 0.1 + 2 · 0.1 from being rounded up past the share that is meant.
    return Math.min(numReferences, Math.max(0, Math.ceil(share * numReferences - 1e-6)));
  };
  const referenceAt = (place: number): number => permute(seed, PURPOSE.growthOrder, 0, place, numReferences);
  function* referencesAt(from: number, until: number): Generator<number> {
    for (let place = from; place < until; place++) yield referenceAt(place);
  }
  const addedAt = (step: number): number[] => {
    const from = step === 0 ? 0 : countAt(step - 1);
    return [...referencesAt(from, countAt(step))];
  };
  return { numReferences, countAt, referenceAt, referencesAt, addedAt };
}
