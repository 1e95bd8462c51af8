/**
 * Attention of many queries on tensor cores beside that of the native engine. With MEMORY3_EMULATOR_ORDER=backward or a
 * number the emulated device runs threads in another order, with MEMORY3_EMULATOR_COPIES=early it does not put off copies
 * into shared memory; results must not change.
 */

import { expect, it } from 'vitest';
import { type AttentionCase, CASES, forwardCall, type MemoryCase, memory } from './attention_cases.ts';
import { poisoned } from './attention_poison.ts';
import { describeCuda, expectAsNative, runOnCuda } from './support.ts';

const base = { tokens: 45, heads: 2, kvHeads: 1, dim: 16 };
/** Five memories of eight tokens for each 64 tokens: the paper's. */
const paper = (chunks: number): MemoryCase => ({
  kept: 8,
  lengths: [8, 8, 8, 8, 8, 8, 8],
  index: Array.from({ length: chunks }, (_, c) => [0, 1, 2, 3, 4].map((r) => (3 * c + r) % 7)),
  start: 0,
  chunkLength: 64,
});
/** One chunk that reads `slots` memories of `kept` tokens, one of them one token short and one empty. */
const many = (slots: number, kept: number): MemoryCase => ({
  kept,
  lengths: Array.from({ length: slots }, (_, m) => (m === 1 ? kept - 1 : m === slots - 2 ? 0 : kept)),
  index: [Array.from({ length: slots }, (_, m) => m)],
  start: 5,
  chunkLength: 100,
});

const OWN_CASES: AttentionCase[] = [
  ...[16, 32, 48, 64, 80, 96, 112, 128].map((dim) => ({ name: `head dimension ${dim}`, ...base, batch: 1, dim })),
  ...[16, 80, 128].map((dim) => ({ name: `memories, head dimension ${dim}`, ...base, batch: 1, dim, memory })),
  { name: 'nine tokens', ...base, tokens: 9 },
  { name: 'a whole block', ...base, tokens: 128 },
  { name: 'a token more than a block', ...base, batch: 1, tokens: 129 },
  { name: 'three blocks', ...base, batch: 1, tokens: 333 },
  { name: 'five heads a group', ...base, heads: 10, kvHeads: 2 },
  { name: 'cache with room', ...base, tokens: 70, keyTokens: 75, room: 80 },
  { name: 'memories of the paper', ...base, batch: 1, tokens: 150, memory: paper(3) },
  { name: 'memories, start inside, more blocks', ...base, tokens: 200, batch: 1, memory: { ...paper(2), start: 70 } },
  { name: 'memories, start at the last token', ...base, memory: { ...memory, start: 44 } },
  { name: 'memories, chunks of one token', ...base, memory: { ...memory, chunkLength: 1 } },
  {
    name: 'memories, chunks over halves of blocks',
    ...base,
    tokens: 140,
    batch: 1,
    memory: { ...memory, chunkLength: 50 },
  },
  { name: 'memories, one chunk for all', ...base, tokens: 130, batch: 1, memory: { ...memory, chunkLength: 1000 } },
  { name: 'memories, several parts', ...base, batch: 1, memory: many(5, 33) },
  { name: 'memories, longer than a part', ...base, batch: 1, memory: many(3, 70) },
  { name: 'memories, more slots than are known', ...base, batch: 1, memory: many(70, 1) },
  { name: 'memories, five heads a group', ...base, heads: 10, kvHeads: 2, tokens: 30, memory },
  {
    name: 'documents',
    ...base,
    batch: 2,
    tokens: 201,
    documents: [
      [0, 63, 64, 65, 127, 128, 130],
      [17, 190],
    ],
  },
  { name: 'documents, each token its own', ...base, batch: 1, documents: [Array.from({ length: 45 }, (_, i) => i)] },
  {
    name: 'documents and cache',
    ...base,
    tokens: 19,
    keyTokens: 90,
    documents: [
      [17, 80],
      [71, 72, 89],
    ],
  },
  { name: 'documents and memories', ...base, tokens: 140, batch: 1, documents: [[66, 101]], memory: paper(3) },
  { name: 'scores of ±100', ...base, scale: 30, memory },
];

describeCuda('attention of many queries on tensor cores', () => {
  it.each([...CASES, ...OWN_CASES])('$name', async (shape) => {
    await expectAsNative(poisoned(forwardCall(shape, 'bfloat16')));
  });

  it('gives shares that say nothing where nothing is read', async () => {
    const { start, index } = { start: 7, index: [[0, -1, 2, 3]] };
    const call = forwardCall({ name: '', ...base, memory: { ...memory, start, index } }, 'bfloat16');
    const [, share] = (await expectAsNative(call)) as Float32Array[];
    const perToken = base.heads * 4;
    expect(share!.subarray(0, start * perToken).every((value) => value === 0)).toBe(true);
    const empty = share!.filter((_, i) => i % 4 === 1 || (i % 4 === 2 && i < base.tokens * perToken));
    expect(empty.every((value) => value === 0)).toBe(true);
    expect(share!.some((value) => value > 0)).toBe(true);
  });

  it('gives no number for a query that is none', async () => {
    const call = forwardCall({ name: '', ...base, batch: 1, memory }, 'bfloat16');
    (call.args[0] as Float32Array).fill(Number.NaN, 0, base.dim);
    const [out] = (await runOnCuda(call)) as Float32Array[];
    expect([...out!].map(Number.isNaN)).toEqual([...out!.keys()].map((i) => i < base.dim));
  });

  it('tells an index and a length that do not fit, and reads nothing for them', async () => {
    const index = [
      [0, 1],
      [1, -1],
      [2, 3],
    ];
    const call = forwardCall({ name: '', ...base, batch: 1, memory: { ...memory, index } }, 'bfloat16');
    (call.args[6] as Int32Array)[1] = 2e9; // far outside of all memory there is
    await expect(runOnCuda(call)).rejects.toThrow('index 2000000000 does not lie below 5');
    const long = forwardCall({ name: '', ...base, batch: 1, memory: { ...memory, index: [[0, 1]] } }, 'bfloat16');
    (long.args[5] as Int32Array)[1] = 4;
    await expect(runOnCuda(long)).rejects.toThrow('a memory of 4 tokens, where 3 are kept');
  });
});
