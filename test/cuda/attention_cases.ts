/**
 * Shapes of attention and calls of its kernels on both engines.
 * Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads, D headDim, M memories, S kept
 * tokens per memory, C chunks, R memory slots per chunk.
 */

import { type KernelCall, normals, output, rounded, runOnNative, type Storage } from './support.ts';

export interface MemoryCase {
  kept: number;
  lengths: number[];
  /** `[C][R]`, the same for all sequences but turned by one memory each. */
  index: number[][];
  start: number;
  chunkLength: number;
}

export interface AttentionCase {
  name: string;
  batch?: number;
  tokens: number;
  keyTokens?: number;
  room?: number;
  heads: number;
  kvHeads: number;
  dim: number;
  memory?: MemoryCase;
  /** Whether memories get gradients; they do by default. */
  fixed?: boolean;
  /** Keys where a document begins, one list for each sequence; the lists are used in turn. */
  documents?: number[][];
  /** Scale of the queries. */
  scale?: number;
}

/** The first key that each query sees, `[B, T]`; nothing without documents. */
function firstVisible({ batch = 2, tokens, keyTokens = tokens, documents }: AttentionCase): Int32Array {
  if (!documents) return new Int32Array(0);
  return Int32Array.from({ length: batch * tokens }, (_, i) => {
    const key = (i % tokens) + keyTokens - tokens;
    const begins = documents[Math.floor(i / tokens) % documents.length]!;
    return Math.max(0, ...begins.filter((begin) => begin <= key));
  });
}

interface Inputs {
  /** What `attention` and `attentionGrad` begin with. */
  args: KernelCall['args'];
  queries: number;
  keys: number;
  memories: number;
  slots: number;
  states: number;
}

function inputsOf(shape: AttentionCase): Inputs {
  const { batch = 2, tokens, keyTokens = tokens, room = keyTokens, heads, kvHeads, dim, memory, scale = 1 } = shape;
  const { kept = 0, lengths = [], index = [], start = 0, chunkLength = 0 } = memory ?? {};
  const [chunks, slots] = [index.length, index[0]?.length ?? 0];
  const queries = batch * tokens * heads * dim;
  const keys = batch * room * kvHeads * dim;
  const memories = lengths.length * kvHeads * kept * dim;
  const turned = Array.from({ length: batch }, (_, b) =>
    index.flat().map((slot) => (slot < 0 ? slot : (slot + b) % lengths.length)),
  );
  const args = [
    ...[normals(queries, 1, scale), normals(keys, 2), normals(keys, 3), normals(memories, 4), normals(memories, 5)],
    ...[Int32Array.from(lengths), Int32Array.from(turned.flat()), firstVisible(shape)],
    [batch, tokens, keyTokens, heads, kvHeads, dim, kept, chunks, slots, start, chunkLength, room],
  ];
  return { args, queries, keys, memories, slots: batch * tokens * heads * slots, states: batch * heads * tokens };
}

/** The call of `attention`; outputs are out, share and lse. */
export function forwardCall(shape: AttentionCase, storage: Storage): KernelCall {
  const { args, queries, slots, states } = inputsOf(shape);
  const [out, share, lse] = [output(queries), output(slots), output(states)];
  const outputs = [out, ...(slots > 0 ? [share] : []), lse];
  return { name: 'attention', args: [...args, out, share, lse], outputs, storage, float32: [share, lse] };
}

/** The call of `attentionGrad`, with out and lse from the native engine; outputs are dq, dk, dv and those of memories. */
export function gradientCall(shape: AttentionCase, storage: Storage): KernelCall {
  const forward = forwardCall(shape, storage);
  const results = runOnNative(forward) as Float32Array[];
  const { args, queries, keys, memories } = inputsOf(shape);
  const out = storage === 'bfloat16' ? rounded(results[0]!) : results[0]!;
  const lse = results.at(-1)!;
  const outputs = [queries, keys, keys].map(output);
  const memoryOutputs = shape.fixed || memories === 0 ? [] : [memories, memories].map(output);
  const given = memoryOutputs.length > 0 ? memoryOutputs : [new Float32Array(0), new Float32Array(0)];
  return {
    name: 'attentionGrad',
    args: [...args, normals(queries, 6), out, lse, ...outputs, ...given],
    outputs: [...outputs, ...memoryOutputs],
    storage,
    float32: [lse],
  };
}

const each = (length: number): number[] => Array.from({ length }, (_, i) => i);
const base = { tokens: 45, heads: 4, kvHeads: 2, dim: 16 };
export const memory: MemoryCase = {
  kept: 3,
  lengths: [3, 2, 0, 1, 3],
  index: [
    [0, 1, 2],
    [4, -1, 0],
    [3, 3, -1],
  ],
  start: 0,
  chunkLength: 16,
};

/** Small shapes of every kind, of a head dimension that all kernels take. */
export const CASES: AttentionCase[] = [
  { name: 'one token', ...base, tokens: 1, heads: 1, kvHeads: 1, memory },
  { name: 'several tiles', ...base, batch: 1, tokens: 133, heads: 2, kvHeads: 1 },
  { name: 'a border of tiles', ...base, batch: 1, tokens: 128, heads: 1, kvHeads: 1 },
  { name: 'as many key-value heads as heads', ...base, kvHeads: 4 },
  { name: 'one key-value head, odd group', ...base, heads: 3, kvHeads: 1 },
  { name: 'a cache of odd length before', ...base, tokens: 21, keyTokens: 40 },
  { name: 'a long cache before', ...base, batch: 1, tokens: 19, keyTokens: 150 },
  { name: 'memories', ...base, memory },
  { name: 'memories without gradient', ...base, memory, fixed: true },
  { name: 'one slot', ...base, memory: { ...memory, index: [[0], [1], [-1]] } },
  { name: 'no slot filled', ...base, memory: { ...memory, index: [[-1], [-1], [-1]] } },
  { name: 'all lengths 0', ...base, memory: { ...memory, lengths: [0, 0, 0, 0, 0] } },
  { name: 'all memories full', ...base, memory: { ...memory, lengths: [3, 3, 3, 3, 3] } },
  { name: 'start inside', ...base, memory: { ...memory, start: 7 } },
  { name: 'start behind the text', ...base, memory: { ...memory, start: 45 } },
  { name: 'text longer than the chunks', ...base, tokens: 85, batch: 1, memory: { ...memory, chunkLength: 5 } },
  { name: 'text shorter than the chunks', ...base, tokens: 15, memory },
  { name: 'one chunk for all', ...base, memory: { ...memory, index: [[0, 3, 4]], chunkLength: 200 } },
  {
    name: 'chunks longer than a tile, start inside',
    ...{ ...base, batch: 1, tokens: 165, heads: 2, kvHeads: 1 },
    memory: { ...memory, start: 3, chunkLength: 71 },
  },
  {
    name: 'a memory that many chunks read, and one that none reads',
    ...{ ...base, tokens: 70, heads: 2 },
    memory: {
      ...{ kept: 2, lengths: [2, 1, 2, 2, 2, 2, 2], start: 0, chunkLength: 7 },
      index: each(10).map((chunk) => [0, chunk % 3]),
    },
  },
  {
    name: 'long memories',
    ...{ ...base, batch: 1, heads: 2, kvHeads: 2 },
    memory: { ...memory, kept: 37, lengths: [37, 20, 0, 1, 16] },
  },
  { name: 'memories and a cache', ...base, tokens: 20, keyTokens: 30, memory: { ...memory, start: 3 } },
  {
    name: 'documents',
    ...{ ...base, tokens: 133, heads: 1, kvHeads: 1 },
    documents: [
      [17, 130],
      [48, 64, 65, 96],
    ],
  },
  { name: 'documents of two tokens', ...base, batch: 1, tokens: 70, documents: [each(35).map((i) => 2 * i)] },
  {
    name: 'documents and a cache',
    ...base,
    tokens: 19,
    keyTokens: 40,
    documents: [
      [17, 30],
      [21, 22, 39],
    ],
  },
  {
    name: 'documents and memories',
    ...{ ...base, tokens: 133, heads: 2, kvHeads: 1 },
    memory: { ...memory, start: 7, chunkLength: 31 },
    documents: [
      [48, 96],
      [17, 130],
    ],
  },
  { name: 'large scores', ...base, scale: 60 },
];
