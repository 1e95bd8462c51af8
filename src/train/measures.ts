/** What a training step records besides its numbers. Reading it changes no bit of the training. */

import type { Model } from '../model/model.ts';
import type { ModelShape } from '../model/shape.ts';
import type { Gradients } from '../optim/update.ts';
import type { Tracker } from '../tracking/tracker.ts';
import type { Image } from '../tracking/values.ts';

/** True every `interval` steps; never for `interval` 0. */
export function isEvery(interval: number, step: number): boolean {
  return interval > 0 && step % interval === 0;
}

/** Shares of attention, `[Lmem · H]`, as a picture: a row a memory layer, a column a query head. */
export function attentionImage(
  { numHeads, memoryLayers }: Pick<ModelShape, 'numHeads' | 'memoryLayers'>,
  shares: Float64Array,
): Omit<Image, 'type'> {
  // A millionth is finer than any colour, and keeps rows short.
  const values = Array.from(shares, (share) => Math.round(share * 1e6) / 1e6);
  const greatest = Math.max(...values);
  return {
    width: numHeads,
    height: memoryLayers,
    values,
    range: [0, greatest > 0 ? greatest : 1],
    labels: ['head', 'layer'],
  };
}

/**
 * Distributions of all parameters and of their gradients.
 * @param gradients sums over `tokens`; recorded as their mean, before clipping
 */
export async function recordHistograms(
  tracker: Tracker,
  model: Model,
  { gradients, tokens }: { gradients: Gradients; tokens: number },
  step: number,
): Promise<void> {
  for (const [name, variable] of model.parameters) {
    tracker.histogram(`parameters/${name}`, await variable.data<'float32'>(), step);
  }
  for (const [name, gradient] of gradients) {
    const sums = await gradient.data<'float32'>();
    tracker.histogram(
      `gradients/${name}`,
      sums.map((sum) => sum / tokens),
      step,
    );
  }
}
