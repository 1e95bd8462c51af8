/** Token scores, the selection of tokens and their gathering. Legend: B references, T tokens, H heads, K key-value heads. */

import { expect, it } from 'vitest';
import { PURPOSE, randomInt } from '../../src/random.ts';
import {
  describeCuda,
  expectAsNative,
  expectAsNativeAnywhere,
  type KernelCall,
  normals,
  output,
  runOnCuda,
  STORAGES,
  TOLERANCE,
} from './support.ts';

const below = (count: number, limit: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => randomInt(9, PURPOSE.test, 0, i, limit));

describeCuda('memory tokens on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([
      [1, 1, 1, 1, 2, 0],
      [3, 9, 4, 2, 6, 2],
      [2, 70, 5, 1, 80, 1],
      [2, 130, 2, 2, 40, 1],
      [1, 430, 1, 1, 8, 0],
    ])(
      `scores of [%i, %i, %i] with %i heads of %i behind %i, ${storage}`,
      async (batch, tokens, heads, kvHeads, dim, skip) => {
        const [q, k] = [normals(batch * tokens * heads * dim, 1), normals(batch * tokens * kvHeads * dim, 2)];
        const lengths = Int32Array.from({ length: batch }, (_, b) =>
          b === 1 ? tokens - 3 : b === 2 ? skip : tokens + b,
        );
        for (const softmax of [true, false]) {
          const out = output(batch * kvHeads * tokens);
          const args = [q, k, lengths, tokens, heads, kvHeads, skip, softmax, out];
          const call = { name: 'tokenScores', args, outputs: [out], storage, float32: [out] };
          await expectAsNativeAnywhere(call, TOLERANCE.float32);
          await expectAsNative({ ...call, float32: [out, k] }, storage === 'float32' ? undefined : TOLERANCE.bfloat16);
        }
      },
    );

    it.each([
      [1, 1, 1],
      [5, 7, 3],
      [6, 300, 8],
      [3, 128, 200],
    ])(`selects of [%i, %i] the best %i, ${storage}`, async (rows, tokens, count) => {
      // Few different values, so that many are equal; some take no part.
      const scores = Float32Array.from(below(rows * tokens, 9), (value, i) => (i % 11 === 0 ? -1 : value));
      scores.fill(-1, 0, tokens > 1 ? tokens - 1 : 0);
      const out = new Int32Array(rows * count).fill(-7);
      await expectAsNativeAnywhere({
        name: 'selectTokens',
        args: [scores, tokens, count, out],
        outputs: [out],
        storage,
      });
    });

    it.each([
      [1, 1, 1, 1, 1],
      [2, 9, 3, 4, 6],
      [3, 20, 2, 8, 80],
      [1, 5, 4, 5, 16],
    ])(`gathers of [%i, %i, %i] %i tokens of %i, ${storage}`, async (batch, tokens, heads, kept, dim) => {
      const indices = below(batch * heads * kept, tokens).map((token, i) => (i % kept >= kept / 2 ? 0 : token));
      const [x, dy] = [normals(batch * tokens * heads * dim, 1), normals(indices.length * dim, 2)];
      const [out, dx] = [output(dy.length), output(x.length)];
      const gather = { name: 'gatherTokens', args: [x, indices, tokens, heads, kept, out], outputs: [out], storage };
      const scatter = {
        name: 'gatherTokensGrad',
        args: [indices, dy, tokens, heads, kept, dx],
        outputs: [dx],
        storage,
      };
      await expectAsNativeAnywhere(gather);
      await expectAsNativeAnywhere({ ...gather, float32: [out] }, TOLERANCE.float32);
      await expectAsNativeAnywhere(scatter);
      await expectAsNativeAnywhere({ ...scatter, float32: [dx] }, TOLERANCE.float32);
    });
  }

  it('never selects NaN', async () => {
    const scores = Float32Array.of(Number.NaN, 1, Number.NaN, 2, -1);
    const out = new Int32Array(3).fill(-7);
    const call: KernelCall = { name: 'selectTokens', args: [scores, 5, 3, out], outputs: [out], storage: 'float32' };
    expect(await runOnCuda(call)).toEqual([Int32Array.of(1, 3, 0)]);
  });

  it.each([[-1], [5]])('says that there is no token %i', async (token) => {
    const indices = Int32Array.of(0, token);
    const [out, dx] = [output(16), output(40)];
    const storage = 'float32';
    const gather: KernelCall = {
      name: 'gatherTokens',
      args: [normals(40, 1), indices, 5, 1, 2, out],
      outputs: [out],
      storage,
    };
    await expect(runOnCuda(gather)).rejects.toThrow(`index ${token} does not lie below 5`);
    const args = [indices, normals(16, 1), 5, 1, 2, dx];
    await expect(runOnCuda({ name: 'gatherTokensGrad', args, outputs: [dx], storage })).rejects.toThrow(
      `index ${token} does not lie below 5`,
    );
  });
});
