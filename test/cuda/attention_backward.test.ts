import { expect, it } from 'vitest';
import { type AttentionCase, CASES, gradientCall, memory } from './attention_cases.ts';
import { poisoned } from './attention_poison.ts';
import { describeCuda, expectAsNative, runOnCuda } from './support.ts';

const small = { batch: 1, tokens: 70, heads: 2, kvHeads: 1 };
const paper: AttentionCase = {
  name: "the paper's chunks, memories and heads",
  ...{ batch: 1, tokens: 201, heads: 5, kvHeads: 1, dim: 80 },
  memory: {
    ...{ kept: 8, lengths: Array(9).fill(8), start: 64, chunkLength: 64 },
    index: [0, 1, 2].map((chunk) => [0, 1, 2, 3, 4].map((slot) => (3 * chunk + slot) % 9)),
  },
};
const TILE_CASES: AttentionCase[] = [
  ...CASES,
  paper,
  { ...paper, name: 'the same with documents in one half', dim: 112, heads: 1, documents: [[70, 110, 128, 190]] },
  { name: 'room for more tokens', ...small, dim: 16, keyTokens: 75, room: 90, memory },
  ...[32, 48, 64, 80, 96, 112, 128].map((dim) => ({ name: `head dimension ${dim}`, ...small, dim, memory })),
];

describeCuda('the gradient of attention in tiles on CUDA', () => {
  it.each(TILE_CASES)('$name', async (shape) => {
    await expectAsNative(poisoned(gradientCall(shape, 'bfloat16')));
  });

  it('tells an index and a length that do not fit, and reads nothing for them', async () => {
    const call = gradientCall({ name: '', ...small, dim: 16, memory }, 'bfloat16');
    (call.args[6] as Int32Array)[1] = 9;
    await expect(runOnCuda(call)).rejects.toThrow('index 9 does not lie below 5');
    (call.args[6] as Int32Array)[1] = 1;
    (call.args[5] as Int32Array)[1] = 4;
    await expect(runOnCuda(call)).rejects.toThrow('a memory of 4 tokens, where 3 are kept');
  });
});
