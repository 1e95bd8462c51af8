import { it } from 'vitest';
import { type AttentionCase, CASES, gradientCall, memory } from './attention_cases.ts';
import { describeCuda, expectAsNative } from './support.ts';

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
  ...[32, 48, 64, 80, 96, 112, 128].map((dim) => ({ name: `head dimension ${dim}`, ...small, dim, memory })),
];

describeCuda('the gradient of attention in tiles on CUDA', () => {
  it.each(TILE_CASES)('$name', async (shape) => {
    await expectAsNative(gradientCall(shape, 'bfloat16'));
  });
});
