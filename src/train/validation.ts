/** Loss without gradients. */

import * as tf from '../engine/tf.ts';
import { forward, loss } from '../model/forward.ts';
import type { Model } from '../model/model.ts';
import { encodeOnline } from '../model/training.ts';
import type { MicroBatch } from './stage.ts';

/**
 * Mean loss in nats per valid token over `count` micro-batches; frees each batch.
 * @param batchAt micro-batch `i`
 */
export async function meanLoss(
  model: Model,
  count: number,
  batchAt: (i: number) => Promise<MicroBatch>,
): Promise<number> {
  let sum = 0;
  let tokens = 0;
  for (let i = 0; i < count; i++) {
    const { input, dispose } = await batchAt(i);
    const lossSum = tf.tidy(() => {
      const { ids, positions, firstVisible, onlineReferences } = input;
      const memories = onlineReferences ? encodeOnline(model, onlineReferences) : input.memories;
      const { hidden } = forward(model, { ids, positions, firstVisible, memories });
      return loss(model, hidden, input.targets).lossSum;
    });
    const [value = Number.NaN] = await lossSum.data<'float32'>();
    lossSum.dispose();
    dispose();
    sum += value;
    for (const target of input.targets) if (target >= 0) tokens++;
  }
  return sum / tokens;
}
