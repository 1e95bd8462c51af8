import { expect, it } from 'vitest';
import { type AttentionCase, CASES, forwardCall, gradientCall, memory } from './attention_cases.ts';
import { describeCuda, expectAsNative, runOnCuda } from './support.ts';

const odd = { tokens: 21, heads: 2, kvHeads: 1 };
const PLAIN_CASES: AttentionCase[] = [
  ...CASES,
  ...[1, 5, 31, 33, 96, 97, 256].map((dim) => ({ name: `head dimension ${dim}`, ...odd, dim, batch: 1, memory })),
  { name: 'room for more tokens', ...odd, tokens: 3, keyTokens: 19, room: 24, dim: 7, memory },
];

describeCuda('plain attention on CUDA', () => {
  it.each(PLAIN_CASES)('$name', async (shape) => {
    await expectAsNative(forwardCall(shape, 'float32'));
    await expectAsNative(gradientCall(shape, 'float32'));
  });

  it('takes head dimensions up to 256', async () => {
    await expect(runOnCuda(forwardCall({ name: '', ...odd, dim: 257 }, 'float32'))).rejects.toThrow('larger than 256');
  });
});
