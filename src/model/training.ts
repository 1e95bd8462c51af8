/**
 * The loss of a micro-batch and its gradients.
 * Legend: B batch, T tokens, N references, L tokens of the longest reference with its prefix, C chunks, R memory slots,
 * Lmem memory layers, H query heads.
 */

import * as tf from '../engine/tf.ts';
import { type EncodeOptions, encodeReferences } from './encode.ts';
import { forward, type LayerMemories, loss, type TokenIds } from './forward.ts';
import type { Model } from './model.ts';
import { valueAndGradients } from './tape.ts';

/** References that are encoded in the step itself, so that gradients reach them (online mode, the paper's). */
export interface OnlineReferences extends Omit<EncodeOptions, 'recompute' | 'contextLengths'> {
  /** Prefix and reference tokens, `[N, L]`, padded at the end. */
  ids: TokenIds;
  /** Tokens of each row, prefix included. */
  lengths: ArrayLike<number>;
  /** The reference in each slot of each chunk, int32 `[B, C, R]`; −1 is an empty slot. Owned by the caller. */
  index: tf.Tensor3D;
  /** First token that belongs to a chunk. */
  start: number;
  chunkLength: number;
}

export interface TrainingBatch {
  ids: TokenIds;
  /** The token after each, `[B, T]`; −1 leaves a token out of the loss. */
  targets: Int32Array | readonly ArrayLike<number>[];
  /** Position of each token, `[T]`. */
  positions: Int32Array;
  /** The first token that each token attends to, `[B, T]`, as in `ForwardInput`; absent: all before it. */
  firstVisible?: Int32Array;
  /** Precompiled memories; at most one of this and `onlineReferences`. Owned by the caller. */
  memories?: LayerMemories;
  onlineReferences?: OnlineReferences;
  /** Run each block again in the backward pass instead of keeping its activations. */
  recompute?: boolean;
}

export interface LossAndGradients {
  /** Loss in nats, summed over the tokens that count. */
  lossSum: number;
  /** Tokens that count. */
  count: number;
  /** Gradients of `lossSum` under the names of the parameters; owned by the caller. */
  gradients: Map<string, tf.Tensor>;
  /** Mean attention mass on memories over memory layers, heads and the tokens that can read one; absent without any. */
  memoryShare?: number;
  /** The same of each layer and head, `[Lmem · H]`; absent unless asked for. */
  headShares?: Float64Array;
}

export interface LossOptions {
  /** Also tell the attention on memories of each layer and head. */
  headShares?: boolean;
}

/** Runs a micro-batch forward and backward. Sums over tokens, so that micro-batches add up exactly. */
export async function lossAndGradients(
  model: Model,
  batch: TrainingBatch,
  { headShares = false }: LossOptions = {},
): Promise<LossAndGradients> {
  const names = [...model.parameters.keys()];
  const variables = [...model.parameters.values()];
  const { ids, targets, positions, firstVisible, recompute } = batch;
  let mass: { sum: tf.Scalar; byHead?: tf.Tensor2D } | undefined;
  const { value, gradients: ofVariables } = await valueAndGradients(() => {
    const memories = batch.onlineReferences ? encodeOnline(model, batch.onlineReferences, recompute) : batch.memories;
    const { hidden, shares } = forward(model, { ids, positions, firstVisible, memories, recompute });
    if (shares && shares.length > 0) {
      mass = { sum: tf.keep(tf.addN(shares.map((share) => share.sum())).asScalar()) };
      if (headShares) mass.byHead = tf.keep(massByHead(shares));
    }
    return loss(model, hidden, targets).lossSum;
  }, variables);
  // Read together: an engine that computes behind JavaScript has nothing to do from the first answer to the last.
  const [[lossSum = Number.NaN], shares] = await Promise.all([
    value.data<'float32'>(),
    mass && meanShares(model, batch, mass),
  ]);
  value.dispose();
  const gradients = new Map(names.map((name, i) => [name, ofVariables[i]!]));
  return { lossSum, count: countTargets(targets), gradients, ...shares };
}

/**
 * The memories of references that are encoded now; inside a tape, gradients reach the weights that write them.
 * @returns tensors owned by the enclosing `tf.tidy`, but for `index`, which stays the caller's
 */
export function encodeOnline(model: Model, references: OnlineReferences, recompute = false): LayerMemories {
  const { ids, lengths, index, start, chunkLength, ...options } = references;
  const { keys, values, keptLengths } = encodeReferences(model, ids, lengths, { ...options, recompute });
  return { keys, values, lengths: tf.tensor1d(keptLengths, 'int32'), index, start, chunkLength, gradient: true };
}

function countTargets(targets: TrainingBatch['targets']): number {
  const rows = targets instanceof Int32Array ? [targets] : targets;
  let count = 0;
  for (const row of rows) for (let i = 0; i < row.length; i++) if (row[i]! >= 0) count++;
  return count;
}

/** The attention mass of each layer, `[B, T, H, R]`, summed for each head: `[Lmem, H]`. */
function massByHead(shares: readonly tf.Tensor4D[]): tf.Tensor2D {
  const layers = shares.map((share) => {
    const [sequences, tokens, heads] = share.shape;
    return share
      .sum(3)
      .reshape([sequences * tokens, heads])
      .sum(0)
      .reshape<tf.Tensor2D>([1, heads]);
  });
  return tf.concat(layers);
}

/** The summed attention mass on memories as means; consumes both tensors. */
async function meanShares(
  model: Model,
  batch: TrainingBatch,
  { sum, byHead }: { sum: tf.Scalar; byHead?: tf.Tensor2D },
): Promise<Pick<LossAndGradients, 'memoryShare' | 'headShares'>> {
  const [[total = Number.NaN], sums, readers] = await Promise.all([
    sum.data<'float32'>(),
    byHead?.data<'float32'>(),
    countReaders(batch),
  ]);
  tf.dispose(byHead ? [sum, byHead] : sum);
  const memoryShare = readers === 0 ? 0 : total / (readers * model.shape.numHeads * model.shape.memoryLayers);
  return sums
    ? { memoryShare, headShares: Float64Array.from(sums, (part) => part / Math.max(1, readers)) }
    : { memoryShare };
}

/** The tokens of the batch whose chunk has a memory that is not empty. */
async function countReaders({ memories, onlineReferences, positions }: TrainingBatch): Promise<number> {
  const reading = onlineReferences ?? memories;
  if (!reading) return 0;
  const { index, start, chunkLength } = reading;
  const [, chunks, slots] = index.shape;
  const [slotMemories, lengths] = await Promise.all([
    index.data<'int32'>(),
    onlineReferences?.lengths ?? memories!.lengths.data<'int32'>(),
  ]);
  const shortest = onlineReferences?.prefixLength ?? 0;
  const readable = Array.from(lengths, (length) => length > shortest);
  let readers = 0;
  for (let row = 0; row < slotMemories.length / slots; row++) {
    if (!slotMemories.subarray(row * slots, (row + 1) * slots).some((memory) => readable[memory])) continue;
    const chunk = row % chunks;
    const first = Math.max(0, start + chunk * chunkLength);
    const end = chunk === chunks - 1 ? positions.length : Math.min(positions.length, start + (chunk + 1) * chunkLength);
    readers += Math.max(0, end - first);
  }
  return readers;
}
