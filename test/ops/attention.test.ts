import { expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { type AttentionMemory, attention } from '../../src/ops/attention.ts';
import {
  type Array64,
  checkOperation,
  expectClose,
  expectNoLeak,
  int32,
  onEachBackend,
  random,
  sizeOf,
  toTensor,
} from './support.ts';

/** What a case says about its memories besides their keys and values. */
interface MemoryCase {
  kept: number;
  lengths: number[];
  /** `[B][C][R]` */
  index: number[][][];
  start: number;
  chunkLength: number;
}

interface Case {
  name: string;
  batch: number;
  tokens: number;
  keyTokens?: number;
  heads: number;
  kvHeads: number;
  dim: number;
  memory?: MemoryCase;
  /** The first key that each query sees, `[B][T]`. */
  firstVisible?: number[][];
}

const slotsOf = (memory: MemoryCase | undefined): number => (memory ? memory.index[0]![0]!.length : 0);

/** The definition in plain loops: output `[B, T, H, D]` and share `[B, T, H, R]`. */
function reference(
  [q, k, v, memoryKeys, memoryValues]: Array64[],
  memory?: MemoryCase,
  firstVisible?: number[][],
): { out: Float64Array; share: Float64Array } {
  const [batch, tokens, heads, dim] = q!.shape as [number, number, number, number];
  const [, keyTokens, kvHeads] = k!.shape as [number, number, number];
  const slots = slotsOf(memory);
  const out = new Float64Array(q!.data.length);
  const share = new Float64Array(batch * tokens * heads * slots);
  for (let row = 0; row < batch * tokens * heads; row++) {
    const head = Math.floor((row % heads) / (heads / kvHeads));
    const token = Math.floor(row / heads) % tokens;
    const b = Math.floor(row / heads / tokens);
    const seen: { key: Float64Array; value: Float64Array; slot: number }[] = [];
    const see = (keys: Array64, values: Array64, at: number, slot: number): void => {
      seen.push({ key: keys.data.subarray(at, at + dim), value: values.data.subarray(at, at + dim), slot });
    };
    if (memory && token >= memory.start) {
      const chunks = memory.index[b]!;
      const own = chunks[Math.min(Math.floor((token - memory.start) / memory.chunkLength), chunks.length - 1)]!;
      for (const [slot, m] of own.entries()) {
        for (let s = 0; m >= 0 && s < memory.lengths[m]!; s++) {
          see(memoryKeys!, memoryValues!, ((m * kvHeads + head) * memory.kept + s) * dim, slot);
        }
      }
    }
    const first = firstVisible ? firstVisible[b]![token]! : 0;
    for (let j = first; j <= token + keyTokens - tokens; j++)
      see(k!, v!, ((b * keyTokens + j) * kvHeads + head) * dim, -1);
    const query = q!.data.subarray(row * dim, (row + 1) * dim);
    const scores = seen.map(({ key }) => key.reduce((sum, value, i) => sum + value * query[i]!, 0) / Math.sqrt(dim));
    const largest = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - largest));
    const total = weights.reduce((a, b) => a + b, 0);
    for (const [n, { value, slot }] of seen.entries()) {
      for (let i = 0; i < dim; i++) out[row * dim + i]! += (weights[n]! / total) * value[i]!;
      if (slot >= 0) share[row * slots + slot]! += weights[n]! / total;
    }
  }
  return { out, share };
}

function inputsOf({ batch, tokens, keyTokens = tokens, heads, kvHeads, dim, memory }: Case): Array64[] {
  const context = [batch, keyTokens, kvHeads, dim];
  const inputs = [random([batch, tokens, heads, dim], 1, 2), random(context, 2), random(context, 3)];
  if (!memory) return inputs;
  const memories = [memory.lengths.length, kvHeads, memory.kept, dim];
  return [...inputs, random(memories, 4), random(memories, 5)];
}

function memoryOf(
  memory: MemoryCase | undefined,
  keys?: tf.Tensor,
  values?: tf.Tensor,
  gradient = true,
): AttentionMemory | undefined {
  if (!memory || !keys || !values) return undefined;
  const { lengths, index, start, chunkLength } = memory;
  const indexTensor = int32(index.flat(2), [index.length, index[0]!.length, index[0]![0]!.length]);
  return { keys, values, lengths: int32(lengths), index: indexTensor, start, chunkLength, gradient };
}

const documents = (firstVisible: number[][] | undefined) =>
  firstVisible && int32(firstVisible.flat(), [firstVisible.length, firstVisible[0]!.length]);

const base = { batch: 2, tokens: 5, heads: 4, kvHeads: 2, dim: 2 };
const memory: MemoryCase = {
  kept: 2,
  lengths: [2, 1, 0],
  index: [
    [
      [0, 1],
      [2, -1],
    ],
    [
      [1, 0],
      [0, 0],
    ],
  ],
  start: 0,
  chunkLength: 3,
};

/** A document of two tokens and one of three; every token its own. */
const DOCUMENTS = [
  [0, 0, 2, 2, 2],
  [0, 1, 2, 3, 4],
];

const CASES: Case[] = [
  { name: 'one token', batch: 1, tokens: 1, heads: 1, kvHeads: 1, dim: 1 },
  { name: 'context only', ...base },
  { name: 'one key-value head', ...base, kvHeads: 1 },
  { name: 'as many key-value heads as heads', ...base, kvHeads: 4 },
  { name: 'three heads a group', ...base, heads: 6 },
  { name: 'key-value cache, one query', ...base, tokens: 1, keyTokens: 4 },
  { name: 'key-value cache, some queries', ...base, tokens: 3, keyTokens: 6 },
  { name: 'memories, full, partial and empty', ...base, memory },
  { name: 'memories, no slot filled', ...base, memory: { ...memory, index: [[[-1, -1]], [[-1, -1]]] } },
  {
    name: 'memories, one slot, exact chunks',
    ...base,
    tokens: 6,
    memory: {
      ...memory,
      index: [
        [[0], [1]],
        [[2], [-1]],
      ],
    },
  },
  { name: 'memories, odd number of slots', ...base, memory: { ...memory, index: [[[0, 1, 0]], [[2, -1, 1]]] } },
  { name: 'memories, start inside a chunk', ...base, memory: { ...memory, start: 1 } },
  { name: 'memories, start behind a chunk', ...base, memory: { ...memory, start: 4 } },
  { name: 'memories, start behind the text', ...base, memory: { ...memory, start: 5 } },
  { name: 'memories, text longer than the chunks', ...base, memory: { ...memory, chunkLength: 2 } },
  { name: 'memories, more chunks than text', ...base, memory: { ...memory, chunkLength: 100 } },
  { name: 'memories, one kept token', ...base, memory: { ...memory, kept: 1, lengths: [1, 0, 1] } },
  { name: 'memories, one key-value head', ...base, kvHeads: 1, memory },
  { name: 'memories, as many key-value heads as heads', ...base, kvHeads: 4, memory },
  { name: 'memories and cache, one query', ...base, tokens: 1, keyTokens: 4, memory },
  { name: 'memories and cache, some queries', ...base, tokens: 3, keyTokens: 5, memory: { ...memory, start: 1 } },
  { name: 'one document', ...base, firstVisible: [Array(5).fill(0), Array(5).fill(0)] },
  { name: 'documents, cut differently', ...base, firstVisible: DOCUMENTS },
  { name: 'documents, three heads a group', ...base, heads: 6, firstVisible: DOCUMENTS },
  {
    name: 'documents and cache',
    ...base,
    tokens: 3,
    keyTokens: 6,
    firstVisible: [
      [1, 4, 4],
      [0, 0, 5],
    ],
  },
  { name: 'documents and memories', ...base, memory, firstVisible: DOCUMENTS },
  { name: 'documents and memories, start inside', ...base, memory: { ...memory, start: 2 }, firstVisible: DOCUMENTS },
];

onEachBackend('attention', () => {
  it.each(CASES)('matches the definition: $name', (shape) => {
    const { memory: given, firstVisible } = shape;
    const fixed = memoryOf(given, tf.zeros([1]), tf.zeros([1]));
    // With no query inside a chunk nothing depends on the memories, and tfjs refuses to differentiate by them.
    const read = given === undefined || given.start < shape.tokens;
    const context = { firstVisible: documents(firstVisible) };
    checkOperation({
      inputs: inputsOf(shape),
      run: ([q, k, v, keys, values]) =>
        attention(q!, k!, v!, fixed && { ...fixed, keys: keys!, values: values! }, context).out,
      reference: (inputs) => reference(inputs, given, firstVisible).out,
      differentiable: read ? undefined : [0, 1, 2],
    });
  });

  it.each(CASES)('gives the share of each slot: $name', (shape) => {
    const inputs = inputsOf(shape);
    tf.tidy(() => {
      const [q, k, v, keys, values] = inputs.map(toTensor);
      const context = { firstVisible: documents(shape.firstVisible) };
      const { share } = attention(q!, k!, v!, memoryOf(shape.memory, keys, values), context);
      const slots = slotsOf(shape.memory);
      expect(share.shape).toEqual([shape.batch, shape.tokens, shape.heads, slots]);
      expectClose(share, reference(inputs, shape.memory, shape.firstVisible).share);
    });
  });

  it('gives no gradient to a bank, and the same to the context', () => {
    const shape: Case = { name: '', ...base, memory };
    const inputs = inputsOf(shape);
    checkOperation({
      inputs: inputs.slice(0, 3),
      run: ([q, k, v]) => {
        const [keys, values] = inputs.slice(3).map(toTensor);
        return attention(q!, k!, v!, memoryOf(memory, keys, values, false)).out;
      },
      reference: (varied) => reference([...varied, ...inputs.slice(3)], memory).out,
    });
  });

  it('takes an empty list of memories', () => {
    const inputs = inputsOf({ name: '', ...base });
    tf.tidy(() => {
      const [q, k, v] = inputs.map(toTensor);
      const none = tf.zeros([0, 2, 2, 2]);
      const { out, share } = attention(q!, k!, v!, {
        ...{ keys: none, values: none, lengths: int32([]), index: int32([-1, -1], [2, 1, 1]) },
        ...{ start: 0, chunkLength: 4, gradient: false },
      });
      expectClose(out, reference(inputs).out);
      expectClose(share, new Float64Array(sizeOf(share.shape)));
    });
  });

  it('stays finite and exact with scores of ±1000', () => {
    const inputs = inputsOf({ name: '', ...base, memory });
    inputs[0]!.data.forEach((value, i, data) => {
      data[i] = Math.fround(value * 500);
    });
    tf.tidy(() => {
      const [q, k, v, keys, values] = inputs.map(toTensor);
      expectClose(attention(q!, k!, v!, memoryOf(memory, keys, values)).out, reference(inputs, memory).out, 1e-3);
    });
  });

  it('leaves nothing behind outside of tidy', () => {
    const [q, k, v, keys, values] = inputsOf({ name: '', ...base, memory }).map(toTensor);
    const fixed = memoryOf(memory, keys, values);
    expectNoLeak(() => tf.dispose({ ...attention(q!, k!, v!, fixed) }));
    expectNoLeak(() => tf.dispose({ ...attention(q!, k!, v!) }));
    const context = { firstVisible: documents(DOCUMENTS) };
    expectNoLeak(() => tf.dispose({ ...attention(q!, k!, v!, fixed, context) }));
  });
});
