/**
 * Grouped-query attention over the context and, in memory layers, over explicit memories: one softmax over both
 * (paper §3.1, §3.2).
 * Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads, G = H/K, D headDim, M memories
 * of the step, S kept tokens per memory, C chunks, R memory slots per chunk.
 */

import * as tf from '../engine/tf.ts';
import { attendComposed, attendGradComposed } from './attention_composed.ts';
import { defineKernel, type KernelInputs } from './kernel.ts';

/** The memories of one layer. Nothing here is owned by the operation. */
export interface AttentionMemory {
  /** Keys after RoPE, `[M, K, S, D]`. */
  keys: tf.Tensor;
  /** Values, `[M, K, S, D]`. */
  values: tf.Tensor;
  /** Valid tokens of each memory, int32 `[M]`, at most S; 0 is allowed. */
  lengths: tf.Tensor;
  /** The memory in each slot of each chunk, int32 `[B, C, R]`; −1 is an empty slot. */
  index: tf.Tensor;
  /** First query token that belongs to a chunk; the ones before it see no memory. */
  start: number;
  /** Tokens of a chunk; tokens behind the last chunk belong to it. */
  chunkLength: number;
  /** Whether keys and values receive gradients (online mode). */
  gradient: boolean;
}

export interface AttentionResult {
  /** `[B, T, H, D]` */
  out: tf.Tensor4D;
  /** Attention mass on each memory slot, `[B, T, H, R]`, not differentiable; R is 0 without memories. */
  share: tf.Tensor4D;
}

export type ContextInputs = { q: tf.Tensor; k: tf.Tensor; v: tf.Tensor };
export type MemoryInputs = { memoryKeys: tf.Tensor; memoryValues: tf.Tensor; lengths: tf.Tensor; index: tf.Tensor };
export type AttentionInputs = ContextInputs & Partial<MemoryInputs>;
export type AttentionGradInputs = AttentionInputs & { dy: tf.Tensor; out: tf.Tensor; state: tf.Tensor };
export type AttentionAttributes = { start: number; chunkLength: number; memoryGradient: boolean; keyTokens: number };

/**
 * The operation exists under two kernel names, with and without memories, because a tfjs kernel has a fixed list of
 * inputs. Outputs: out, share, and what the same engine's gradient kernel wants to keep from the forward pass, in any
 * form (the composition keeps the probabilities). Outputs of the gradient: dq, dk, dv and, with `memoryGradient`, those
 * of memory keys and values.
 */
function defineAttention<I extends ContextInputs & KernelInputs>(name: string, inputs: readonly (keyof I & string)[]) {
  const gradient = defineKernel<I & AttentionGradInputs & KernelInputs, AttentionAttributes>({
    name: `${name}Grad`,
    forward: attendGradComposed,
  });
  return defineKernel<I, AttentionAttributes>({
    name,
    forward: attendComposed,
    gradient: {
      inputs,
      outputs: [0, 2],
      backward: ([dy], saved, [out, state], attributes) => {
        const given = { ...(saved as I), dy: dy!, out: out!, state: state! };
        if (given.k.shape[1] !== attributes.keyTokens)
          throw new Error('attention to a store with room has no gradient');
        const [q, k, v, memoryKeys, memoryValues] = gradient(given, attributes);
        const grads = { q, k, v, ...(attributes.memoryGradient && { memoryKeys, memoryValues }) };
        const thunks = Object.entries(grads).map(([input, grad]) => [input, () => grad!]);
        return Object.fromEntries(thunks) as Record<keyof I & string, () => tf.Tensor>;
      },
    },
  });
}

const CONTEXT_INPUTS = ['q', 'k', 'v'] as const;
const MEMORY_INPUTS = ['memoryKeys', 'memoryValues', 'lengths', 'index'] as const;

const attendContext = defineAttention<ContextInputs>('Attention', CONTEXT_INPUTS);
const attendMemories = defineAttention<ContextInputs & MemoryInputs>('MemoryAttention', [
  ...CONTEXT_INPUTS,
  ...MEMORY_INPUTS,
]);

/**
 * Attention with scale 1/√D. Query i sees the keys j ≤ i + (Tk − T), so that with a key-value cache the queries are the
 * last T tokens. Query i ≥ `memory.start` belongs to chunk ⌊(i − start) / chunkLength⌋ and also sees, without causal
 * mask, all valid tokens of the memories of its chunk.
 * @param q `[B, T, H, D]`
 * @param k `[B, Tk, K, D]`, K divides H, Tk ≥ T; query head h reads key-value head ⌊h / G⌋
 * @param v `[B, Tk, K, D]`
 * @param keyTokens Tk when k and v have room for more tokens behind those; then there is no gradient
 */
export function attention(
  q: tf.Tensor,
  k: tf.Tensor,
  v: tf.Tensor,
  memory?: AttentionMemory,
  keyTokens = k.shape[1]!,
): AttentionResult {
  const [batch, tokens, heads] = q.shape as [number, number, number];
  const readable = memory && memory.keys.size > 0 && memory.index.size > 0 && memory.start < tokens;
  const [out, share, state] = readable
    ? attendMemories(
        { q, k, v, memoryKeys: memory.keys, memoryValues: memory.values, lengths: memory.lengths, index: memory.index },
        { start: memory.start, chunkLength: memory.chunkLength, memoryGradient: memory.gradient, keyTokens },
      )
    : attendContext({ q, k, v }, { start: 0, chunkLength: tokens, memoryGradient: false, keyTokens });
  // The tape holds its own reference when it needs one.
  state!.dispose();
  if (readable || !memory) return { out: out as tf.Tensor4D, share: share as tf.Tensor4D };
  share!.dispose();
  return { out: out as tf.Tensor4D, share: tf.zeros([batch, tokens, heads, memory.index.shape[2]!]) };
}
