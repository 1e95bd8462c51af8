/**
 * Calls of the attention kernels as src/engine/native/fused_kernels.ts makes them, from a few numbers. Legend: native/cuda/
 * attention.h.
 */

import { PURPOSE, randomNormals } from '../../src/random.ts';
import { type KernelCall, output, type Storage } from './support.ts';

export interface MemoryCase {
  /** S */
  kept: number;
  /** Valid tokens of each memory; M is their number. */
  lengths: number[];
  /** `[C][R]`; sequence b reads memory (index + b) mod M, so that sequences differ. */
  index: number[][];
  start: number;
  chunkLength: number;
}

export interface AttentionCase {
  name?: string;
  batch?: number;
  tokens: number;
  keyTokens?: number;
  room?: number;
  heads: number;
  kvHeads: number;
  dim: number;
  memory?: MemoryCase;
  /** Keys where a document begins, one list for each sequence; the lists are used in turn. */
  documents?: number[][];
  /** Factor of queries and keys. */
  magnitude?: number;
}

const normals = (count: number, seed: number, scale = 1): Float32Array =>
  randomNormals(seed, PURPOSE.test, 0, count).map((value) => value * scale);

function firstVisible({ batch = 2, tokens, keyTokens = tokens, documents }: AttentionCase): Int32Array {
  if (!documents) return new Int32Array();
  return Int32Array.from({ length: batch * tokens }, (_, i) => {
    const key = (i % tokens) + keyTokens - tokens;
    return Math.max(0, ...documents[Math.floor(i / tokens) % documents.length]!.filter((begin) => begin <= key));
  });
}

/** Keys or values of the context; what lies behind Tk is not a number. */
function context({ batch = 2, tokens, keyTokens = tokens, room = keyTokens, kvHeads, dim }: AttentionCase, seed: number) {
  const width = kvHeads * dim;
  const values = normals(batch * room * width, seed);
  for (let b = 0; b < batch; b++) values.fill(Number.NaN, (b * room + keyTokens) * width, (b + 1) * room * width);
  return values;
}

/** Keys or values of memories `[M, K, S, D]`; what lies behind their lengths is not a number. */
function memories({ kvHeads, dim, memory }: AttentionCase, seed: number): Float32Array {
  if (!memory) return new Float32Array();
  const { kept, lengths } = memory;
  const values = normals(lengths.length * kvHeads * kept * dim, seed);
  for (const [m, length] of lengths.entries()) {
    for (let head = 0; head < kvHeads; head++) {
      const at = (m * kvHeads + head) * kept;
      values.fill(Number.NaN, (at + length) * dim, (at + kept) * dim);
    }
  }
  return values;
}

function memoryIndex({ batch = 2, memory }: AttentionCase): Int32Array {
  const turned = Array.from({ length: batch }, (_, b) =>
    memory!.index.flat().map((slot) => (slot < 0 ? slot : (slot + b) % memory!.lengths.length)),
  );
  return Int32Array.from(turned.flat());
}

/** Inputs and shape of a call. */
export function attentionInputs(shape: AttentionCase) {
  const { batch = 2, tokens, keyTokens = tokens, room = keyTokens, heads, kvHeads, dim, memory, magnitude = 1 } = shape;
  const [chunks, slots] = [memory?.index.length ?? 0, memory?.index[0]!.length ?? 0];
  const sizes = [batch, tokens, keyTokens, heads, kvHeads, dim, memory?.kept ?? 0, chunks, slots];
  return [
    normals(batch * tokens * heads * dim, 1, 2 * magnitude),
    context(shape, 2).map((value) => value * magnitude),
    context(shape, 3),
    memories(shape, 4),
    memories(shape, 5),
    memory ? Int32Array.from(memory.lengths) : new Int32Array(),
    memory ? memoryIndex(shape) : new Int32Array(),
    firstVisible(shape),
    [...sizes, memory?.start ?? 0, memory?.chunkLength ?? 1, room],
  ] as const;
}

/** The call of `attention`; its outputs are out, lse and, with memories, share. */
export function attentionCall(shape: AttentionCase, storage: Storage = 'bfloat16'): KernelCall {
  const { batch = 2, tokens, heads, memory } = shape;
  const inputs = attentionInputs(shape);
  const out = output(inputs[0].length);
  const lse = output(batch * heads * tokens);
  const share = output(batch * tokens * heads * (memory?.index[0]!.length ?? 0));
  const outputs = share.length > 0 ? [out, lse, share] : [out, lse];
  return { name: 'attention', args: [...inputs, out, share, lse], outputs, storage, float32: [lse, share] };
}
