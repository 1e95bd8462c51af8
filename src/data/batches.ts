/** Training batches. B sequences of a batch, T tokens of a sequence. */

import { UserError } from '../errors.ts';
import type { SampleOrder } from './sample_order.ts';
import type { TokenDataset } from './token_dataset.ts';

export interface BatchShape {
  /** Sequences of a micro-batch, B. */
  batchSize: number;
  /** Micro-batches of a step. */
  accumulate: number;
}

export interface Batch {
  /** Inputs [B, T]. */
  ids: Int32Array;
  /** The token after each input [B, T]; the begin of a text after a document's last; −1 inside of padding, which is not learned. */
  targets: Int32Array;
  /** Position in the dataset's stream of the first token of each row. */
  starts: number[];
}

/**
 * Micro-batch `microBatch` of optimiser step `step` (both from 0), a pure function of its arguments. A target that begins
 * the next document is kept: predicting it is predicting the document's end.
 * @param order of the dataset's sequences
 * @throws UserError input_empty when the dataset is shorter than one sample, or that of a damaged file
 */
export async function batchAt(
  dataset: TokenDataset,
  order: SampleOrder,
  seed: number,
  step: number,
  microBatch: number,
  { batchSize, accumulate }: BatchShape,
): Promise<Batch> {
  const T = order.sequenceLength;
  if (order.numSamples === 0) {
    throw new UserError('input_empty', {
      where: `the ${dataset.split} tokens`,
      what: `${dataset.numTokens} tokens are too few for one sequence of ${T} and its last target`,
      action: 'give more text, a shorter `data.sequenceLength` or another `data.validationShare`',
    });
  }
  const first = (step * accumulate + microBatch) * batchSize;
  const starts = Array.from({ length: batchSize }, (_, row) => order.startAt(seed, first + row));
  const windows = await Promise.all(starts.map((start) => dataset.window(start, T + 1)));
  const ids = new Int32Array(batchSize * T);
  const targets = new Int32Array(batchSize * T);
  windows.forEach((window, row) => {
    ids.set(window.subarray(0, T), row * T);
    targets.set(window.subarray(1), row * T);
  });
  const { bos, pad } = dataset.manifest;
  // Behind a document that is filled up, too, its end is what begins the next.
  for (let i = 0; i < targets.length; i++) if (targets[i] === pad) targets[i] = ids[i] === pad ? -1 : bos;
  return { ids, targets, starts };
}
