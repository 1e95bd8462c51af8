import { it } from 'vitest';
import { type AttentionCase, CASES, gradientCall, memory } from './attention_cases.ts';
import { describeCuda, expectAsNative } from './support.ts';

const small = { batch: 1, tokens: 70, heads: 2, kvHeads: 1 };
const TILE_CASES: AttentionCase[] = [
  ...CASES,
  ...[32, 48, 64, 80, 96, 112, 128].map((dim) => ({ name: `head dimension ${dim}`, ...small, dim, memory })),
];

describeCuda('the gradient of attention in tiles on CUDA', () => {
  it.each(TILE_CASES)('$name', async (shape) => {
    await expectAsNative(gradientCall(shape, 'bfloat16'));
  });
});
