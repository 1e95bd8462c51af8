/**
 * The forward pass: token ids to hidden states, logits and loss.
 * Legend: B batch, T tokens, d hiddenSize, V vocabSize, H query heads, K key-value heads, D headDim, M memories of a
 * step, S kept tokens per memory, C chunks, R memory slots per chunk.
 */

import * as tf from '../engine/tf.ts';
import { type AttentionMemory, crossEntropy, embedding, linear, rmsNorm } from '../ops/index.ts';
import { type BlockContext, block } from './block.ts';
import type { KeyValueCache } from './cache.ts';
import type { LayerWeights, Model } from './model.ts';
import { recomputed, released } from './recompute.ts';

/** Token ids of several sequences of equal length: a tensor `[B, T]`, its flat values, or one array per sequence. */
export type TokenIds = tf.Tensor | Int32Array | readonly ArrayLike<number>[];

/** The explicit memories of a step: the M different ones, and which chunk reads which. All tensors belong to the caller. */
export interface LayerMemories {
  /** Keys after RoPE, one `[M, K, S, D]` per memory layer. */
  keys: tf.Tensor4D[];
  /** Values, likewise. */
  values: tf.Tensor4D[];
  /** Valid tokens of each memory, int32 `[M]`, at most S. */
  lengths: tf.Tensor1D;
  /** The memory in each slot of each chunk, int32 `[B, C, R]`; −1 is an empty slot. */
  index: tf.Tensor3D;
  /** First token that belongs to a chunk; tokens before it read no memory. */
  start: number;
  /** Tokens of a chunk; tokens past the last chunk read what the last one reads. */
  chunkLength: number;
  /** Whether keys and values receive gradients (online mode). */
  gradient: boolean;
}

export interface ForwardInput {
  ids: TokenIds;
  /** Position of each token, `[T]`, the same for all sequences. */
  positions: Int32Array;
  /**
   * For each token the place in its sequence of the first token that it attends to, `[B, T]`: the begin of its document
   * (`firstVisibleOf`). Memories are read as without. Absent: all tokens before it; so with a cache.
   */
  firstVisible?: Int32Array;
  memories?: LayerMemories;
  /** Decoding: the tokens read before; grows by these. */
  cache?: KeyValueCache;
  /** Keep only the input of each block for the backward pass and run the block again there. */
  recompute?: boolean;
}

export interface ForwardOutput {
  /** Hidden states after the final norm, `[B·T, d]`. */
  hidden: tf.Tensor2D;
  /** With memories: the attention mass on each memory slot, one `[B, T, H, R]` per memory layer; no gradient. */
  shares?: tf.Tensor4D[];
}

/**
 * Runs the model. Context in the continual stage: the caller puts the prefix at positions 0 … p−1 and the text behind
 * the interval of the memories, at p + l_ref … (paper §3.1); `memories.start` is p.
 * @returns tensors owned by the caller (or by the enclosing `tf.tidy`)
 */
export function forward(model: Model, input: ForwardInput): ForwardOutput {
  const { ids, memories, cache, recompute } = input;
  const { shape } = model;
  return tf.tidy(() => {
    const positions = tf.tensor1d(input.positions, 'int32');
    const firstVisible = input.firstVisible && tf.tensor1d(input.firstVisible, 'int32').reshape([-1, positions.size]);
    let x = embedding(flatIds(ids), model.embedding);
    const shares: tf.Tensor4D[] = [];
    for (const [layer, weights] of model.layers.entries()) {
      const memory = memories && layer < shape.memoryLayers ? memoryOfLayer(memories, layer) : undefined;
      const context = { shape, layer, positions, firstVisible, memory, cache };
      const before = x;
      const run = recompute && !cache ? recomputedBlock : block;
      const result = tf.tidy(() => run(context, weights, before));
      x = result.x;
      if (result.share) shares.push(result.share);
    }
    const hidden = rmsNorm(x, model.finalNorm, shape.normEpsilon);
    return memories ? { hidden, shares } : { hidden };
  });
}

/** All ids in one int32 vector `[B·T]`. */
export function flatIds(ids: TokenIds): tf.Tensor1D {
  if (ids instanceof tf.Tensor) return ids.reshape([-1]);
  const flat = ids instanceof Int32Array ? ids : Int32Array.from(ids.flatMap((row) => Array.from(row)));
  return tf.tensor1d(flat, 'int32');
}

function memoryOfLayer(memories: LayerMemories, layer: number): AttentionMemory {
  const { lengths, index, start, chunkLength, gradient } = memories;
  return { keys: memories.keys[layer]!, values: memories.values[layer]!, lengths, index, start, chunkLength, gradient };
}

function recomputedBlock(context: BlockContext, weights: LayerWeights, x: tf.Tensor2D): ReturnType<typeof block> {
  type Made = { positions: tf.Tensor1D; firstVisible?: tf.Tensor } & Partial<
    Pick<AttentionMemory, 'keys' | 'values' | 'lengths'>
  >;
  const { memory } = context;
  let share: tf.Tensor4D | undefined;
  // Given memories outlive the step; what is made in it lives as long as it is an input.
  const made: Made = {
    positions: context.positions,
    firstVisible: context.firstVisible,
    ...(memory?.gradient && { keys: memory.keys, values: memory.values, lengths: memory.lengths }),
  };
  const run = (inputs: LayerWeights & Made & { x: tf.Tensor2D }) => {
    const { x: input, positions, firstVisible, keys, values, lengths, ...own } = inputs;
    const read = memory && keys && values && lengths ? { ...memory, keys, values, lengths } : memory;
    const result = block({ ...context, positions, firstVisible, memory: read }, own, input);
    // It has no gradient, so it need not travel with what has; the first run tells it.
    share ??= result.share && tf.keep(result.share);
    return { x: result.x };
  };
  const { x: out } = recomputed(run, { x, ...weights, ...made }, x.shape[0]);
  return { x: out, ...(share && { share: released(share) }) };
}

/** Output head: hidden states `[n, d]` to logits `[n, V]`. */
export function logits(model: Model, hidden: tf.Tensor2D): tf.Tensor2D {
  return linear(hidden, model.outputHead);
}

/**
 * Next-token loss in nats of hidden states `[B·T, d]`, fused with the output head so that the logits of all tokens never
 * exist together.
 * @param targets the token after each, `[B, T]`; −1 leaves a token out
 * @returns the loss summed over the tokens that count, a differentiable scalar, and the loss of each token `[B·T]`
 */
export function loss(
  model: Model,
  hidden: tf.Tensor2D,
  targets: TokenIds,
): { lossSum: tf.Scalar; tokenLosses: tf.Tensor1D } {
  const { sum, losses } = crossEntropy(hidden, model.outputHead, flatIds(targets));
  return { lossSum: sum, tokenLosses: losses };
}
