/**
 * Attention of a few query tokens over a long cache beside that of the native engine. The emulated device has three
 * multiprocessors, so the context is cut into parts where groups of rows are fewer than twelve.
 */

import { expect, it } from 'vitest';
import { type AttentionCase, forwardCall, type MemoryCase, memory } from './attention_cases.ts';
import { poisoned } from './attention_poison.ts';
import { describeCuda, expectAsNative, runOnCuda } from './support.ts';

const base = { batch: 1, tokens: 1, keyTokens: 400, heads: 2, kvHeads: 1, dim: 16 };
const long: MemoryCase = { kept: 70, lengths: [70, 69, 3], index: [[0, 1, 2, -1]], start: 0, chunkLength: 64 };
const slots: MemoryCase = {
  kept: 2,
  lengths: Array.from({ length: 40 }, (_, m) => m % 3),
  index: [Array.from({ length: 40 }, (_, m) => m)],
  start: 0,
  chunkLength: 64,
};

const CASES: AttentionCase[] = [
  ...[16, 32, 48, 64, 80, 96, 112, 128].map((dim) => ({ name: `head dimension ${dim}`, ...base, dim, memory })),
  { name: 'one token alone', ...base, keyTokens: 1 },
  { name: 'eight tokens alone', ...base, tokens: 8, keyTokens: 8, memory: { ...memory, chunkLength: 3 } },
  { name: 'fewer keys than a tile', ...base, keyTokens: 37 },
  { name: 'a whole tile', ...base, keyTokens: 64 },
  { name: 'a key more than parts of whole tiles', ...base, keyTokens: 769 },
  { name: 'more groups than parts', ...base, batch: 7, heads: 4, kvHeads: 2, keyTokens: 300 },
  { name: 'room behind the keys', ...base, batch: 2, room: 500, memory },
  { name: 'five heads a group', ...base, heads: 10, kvHeads: 2, tokens: 3, memory },
  { name: 'more rows than a tile has', ...base, heads: 10, kvHeads: 2, tokens: 7, memory: { ...memory, start: 2 } },
  { name: 'twenty heads a group', ...base, heads: 20, tokens: 2 },
  { name: 'as many key-value heads as heads', ...base, heads: 3, kvHeads: 3, tokens: 8 },
  { name: 'no slot filled', ...base, memory: { ...memory, index: [[-1, -1]] } },
  { name: 'all lengths 0', ...base, memory: { ...memory, lengths: [0, 0, 0, 0, 0] } },
  { name: 'start behind the text', ...base, memory: { ...memory, start: 1 } },
  { name: 'chunks of one token', ...base, batch: 2, tokens: 5, memory: { ...memory, chunkLength: 1, start: 1 } },
  { name: 'memories longer than a part', ...base, batch: 2, tokens: 2, memory: long },
  { name: 'many slots', ...base, memory: slots },
  { name: 'documents', ...base, batch: 2, tokens: 4, documents: [[0, 333, 398], [64]] },
  { name: 'a document of one token', ...base, tokens: 3, documents: [[398, 399]], memory },
  { name: 'large scores', ...base, tokens: 4, scale: 60, memory },
];

describeCuda('attention of a few tokens over a cache', () => {
  it.each(CASES)('$name', async (shape) => {
    await expectAsNative(poisoned(forwardCall(shape, 'bfloat16')));
  });

  it('gives no number for a query that is none', async () => {
    const call = forwardCall({ name: '', ...base, memory }, 'bfloat16');
    (call.args[0] as Float32Array).fill(Number.NaN, 0, base.dim);
    const [out] = (await runOnCuda(call)) as Float32Array[];
    expect([...out!].map(Number.isNaN)).toEqual([...out!.keys()].map((i) => i < base.dim));
  });

  it('tells an index that does not fit, and reads nothing for it', async () => {
    const call = forwardCall({ name: '', ...base, memory: { ...memory, index: [[0, 1]] } }, 'bfloat16');
    (call.args[6] as Int32Array)[1] = 2e9; // far outside of all memory there is
    await expect(runOnCuda(call)).rejects.toThrow('index 2000000000 does not lie below 5');
  });
});
