import { expect, it } from 'vitest';
import { PURPOSE, randomInt } from '../../src/random.ts';
import {
  describeCuda,
  expectAsNativeAnywhere,
  type KernelCall,
  normals,
  output,
  runOnCuda,
  STORAGES,
  TOLERANCE,
} from './support.ts';

const ids = (count: number, below: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => randomInt(5, PURPOSE.test, 0, i, below));

describeCuda('embedding on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([
      [1, 1, 1],
      [11, 5, 33],
      [300, 64, 70],
      [2, 16, 200],
      [70_000, 8, 130],
      [7, 2056, 9],
    ])(`%i rows of %i, %i ids, ${storage}`, async (rows, width, tokens) => {
      const [weight, dy, text] = [normals(rows * width, 1), normals(tokens * width, 2), ids(tokens, rows)];
      const out = output(tokens * width);
      const gather = { name: 'embedding', args: [text, weight, width, out], outputs: [out], storage };
      await expectAsNativeAnywhere({ ...gather, float32: [weight] });
      const dWeight = output(rows * width);
      const scatter = { name: 'embeddingGrad', args: [text, dy, rows, dWeight], outputs: [dWeight], storage };
      // Only float32 sums of the same rounded numbers: no looser for bfloat16.
      await expectAsNativeAnywhere({ ...scatter, float32: [dWeight] }, TOLERANCE.float32);
    });
  }

  it('adds one id many times, over many tiles, and between others', async () => {
    const [width, rows] = [24, 600];
    for (const text of [
      new Int32Array(5000).fill(599),
      Int32Array.from({ length: 4500 }, (_, i) => (i % 3 === 0 ? 1 : i % 600)),
      Int32Array.from({ length: 96 }, (_, i) => Math.floor(i / 32)),
    ]) {
      const [dy, dWeight] = [normals(text.length * width, 3), output(rows * width)];
      const call = { name: 'embeddingGrad', args: [text, dy, rows, dWeight], outputs: [dWeight] };
      await expectAsNativeAnywhere({ ...call, storage: 'bfloat16', float32: [dWeight] }, TOLERANCE.float32);
    }
  });

  it('reads a weight in bfloat16, and writes float32 of it', async () => {
    const [weight, out] = [normals(5 * 16, 1), output(3 * 16)];
    const call = { name: 'embedding', args: [Int32Array.of(4, 0, 4), weight, 16, out], outputs: [out] };
    await expectAsNativeAnywhere({ ...call, storage: 'bfloat16', float32: [out] }, TOLERANCE.float32);
  });

  it('has a gradient of 0 without ids', async () => {
    const dWeight = output(12);
    const args = [new Int32Array(), new Float32Array(), 3, dWeight];
    const call: KernelCall = { name: 'embeddingGrad', args, outputs: [dWeight], storage: 'float32' };
    expect(await runOnCuda(call)).toEqual([new Float32Array(12)]);
  });

  it.each([[-1], [4], [2_000_000_000]])('says that there is no token %i', async (id) => {
    const text = Int32Array.of(0, id, 3);
    const [weight, out, dWeight] = [normals(4 * 8, 1), output(3 * 8), output(4 * 8)];
    const storage = 'float32';
    await expect(
      runOnCuda({ name: 'embedding', args: [text, weight, 8, out], outputs: [out], storage }),
    ).rejects.toThrow(`token id ${id} does not lie between 0 and 3`);
    await expect(
      runOnCuda({ name: 'embeddingGrad', args: [text, normals(24, 2), 4, dWeight], outputs: [dWeight], storage }),
    ).rejects.toThrow(`token id ${id} does not lie between 0 and 3`);
  });
});
