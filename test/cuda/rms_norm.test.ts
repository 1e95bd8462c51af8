import { it } from 'vitest';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { describeCuda, expectAsNative, output } from './support.ts';

const normals = (count: number, seed: number): Float32Array => randomNormals(seed, PURPOSE.test, 0, count);

describeCuda('rmsNorm on CUDA', () => {
  for (const storage of ['float32', 'bfloat16'] as const) {
    it.each([
      [1, 1],
      [3, 5],
      [17, 16],
      [65, 257],
    ])(`[%i, %i] in ${storage}`, async (rows, width) => {
      const [x, weight, dy] = [normals(rows * width, 1), normals(width, 2), normals(rows * width, 3)];
      const out = output(rows * width);
      await expectAsNative({
        name: 'rmsNorm',
        args: [x, weight, 1e-5, out],
        outputs: [out],
        storage,
        float32: [weight],
      });
      const [dx, dWeight] = [output(rows * width), output(width)];
      const args = [x, weight, dy, 1e-5, dx, dWeight];
      const tolerance = width === 1 ? 1e-3 : undefined;
      await expectAsNative(
        { name: 'rmsNormGrad', args, outputs: [dx, dWeight], storage, float32: [weight, dWeight] },
        tolerance,
      );
    });
  }
});
