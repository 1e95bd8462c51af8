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

/** Which tokens of the context there are and which of them a query sees; by default all up to itself. */
export interface AttentionContext {
  /** Tk, when keys and values have room for more tokens behind those; then there is no gradient. */
  keyTokens?: number;
  /**
   * For each query the first token of the context that it sees, int32 `[B, T]`: where its own document begins. It does not
   * fall from one query to the next and is not behind the query itself.
   */
  firstVisible?: tf.Tensor;
}

export interface AttentionResult {
  /** `[B, T, H, D]` */
  out: tf.Tensor4D;
  /** Attention mass on each memory slot, `[B, T, H, R]`, not differentiable; R is 0 without memories. */
  share: tf.Tensor4D;
}

export type ContextInputs = { q: tf.Tensor; k: tf.Tensor; v: tf.Tensor };
export type MemoryInputs = { memoryKeys: tf.Tensor; memoryValues: tf.Tensor; lengths: tf.Tensor; index: tf.Tensor };
export type DocumentInputs = { firstVisible: tf.Tensor };
export type AttentionInputs = ContextInputs & Partial<MemoryInputs & DocumentInputs>;
export type AttentionGradInputs = AttentionInputs & { dy: tf.Tensor; out: tf.Tensor; state: tf.Tensor };
export type AttentionAttributes = { start: number; chunkLength: number; memoryGradient: boolean; keyTokens: number };

/**
 * The operation exists under four kernel names, with and without memories and documents, because a tfjs kernel has a
 * fixed list of inputs. Outputs: out, share, and what the same engine's gradient kernel wants to keep from the forward
 * pass, in any form (the composition keeps the probabilities). Outputs of the gradient: dq, dk, dv and, with
 * `memoryGradient`, those of memory keys and values.
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
      differentiable: [0],
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

const CONTEXT = ['q', 'k', 'v'] as const;
const MEMORIES = ['memoryKeys', 'memoryValues', 'lengths', 'index'] as const;
const DOCUMENTS = ['firstVisible'] as const;

const attendContext = defineAttention<ContextInputs>('Attention', CONTEXT);
const attendMemories = defineAttention<ContextInputs & MemoryInputs>('MemoryAttention', [...CONTEXT, ...MEMORIES]);
const attendDocuments = defineAttention<ContextInputs & DocumentInputs>('DocumentAttention', [
  ...CONTEXT,
  ...DOCUMENTS,
]);
const attendDocumentMemories = defineAttention<ContextInputs & MemoryInputs & DocumentInputs>(
  'DocumentMemoryAttention',
  [...CONTEXT, ...MEMORIES, ...DOCUMENTS],
);

/**
 * Attention with scale 1/√D. Query i sees the keys j ≤ i + (Tk − T), so that with a key-value cache the queries are the
 * last T tokens, and of these, with `firstVisible`, only the keys j ≥ firstVisible[i]. Query i ≥ `memory.start` belongs to chunk
 * ⌊(i − start) / chunkLength⌋ and also sees, without causal mask, all valid tokens of the memories of its chunk.
 * @param q `[B, T, H, D]`
 * @param k `[B, Tk, K, D]`, K divides H, Tk ≥ T; query head h reads key-value head ⌊h / G⌋
 * @param v `[B, Tk, K, D]`
 */
export function attention(
  q: tf.Tensor,
  k: tf.Tensor,
  v: tf.Tensor,
  memory?: AttentionMemory,
  { keyTokens = k.shape[1]!, firstVisible }: AttentionContext = {},
): AttentionResult {
  const [batch, tokens, heads] = q.shape as [number, number, number];
  const readable = memory && memory.keys.size > 0 && memory.index.size > 0 && memory.start < tokens;
  const [out, share, state] = readable
    ? attendWith({ q, k, v }, memory, keyTokens, firstVisible)
    : attendWithout({ q, k, v }, keyTokens, firstVisible);
  // The tape holds its own reference when it needs one.
  state!.dispose();
  if (readable || !memory) return { out: out as tf.Tensor4D, share: share as tf.Tensor4D };
  share!.dispose();
  return { out: out as tf.Tensor4D, share: tf.zeros([batch, tokens, heads, memory.index.shape[2]!]) };
}

function attendWithout(context: ContextInputs, keyTokens: number, firstVisible?: tf.Tensor): tf.Tensor[] {
  const attributes = { start: 0, chunkLength: context.q.shape[1]!, memoryGradient: false, keyTokens };
  return firstVisible ? attendDocuments({ ...context, firstVisible }, attributes) : attendContext(context, attributes);
}

function attendWith(
  context: ContextInputs,
  { keys, values, lengths, index, start, chunkLength, gradient }: AttentionMemory,
  keyTokens: number,
  firstVisible?: tf.Tensor,
): tf.Tensor[] {
  const attributes = { start, chunkLength, memoryGradient: gradient, keyTokens };
  const inputs = { ...context, memoryKeys: keys, memoryValues: values, lengths, index };
  return firstVisible
    ? attendDocumentMemories({ ...inputs, firstVisible }, attributes)
    : attendMemories(inputs, attributes);
}
