import { it } from 'vitest';
import { describeCuda, expectAsNativeAnywhere, normals, output, STORAGES } from './support.ts';

describeCuda('rmsNorm on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([
      [1, 1],
      [3, 5],
      [17, 16],
      [65, 257],
      [9, 320],
      [13, 64],
      [4, 2056],
      [2, 16_392],
    ])(`[%i, %i] in ${storage}`, async (rows, width) => {
      const [x, weight, dy] = [normals(rows * width, 1), normals(width, 2), normals(rows * width, 3)];
      const out = output(rows * width);
      await expectAsNativeAnywhere({
        name: 'rmsNorm',
        args: [x, weight, 1e-5, out],
        outputs: [out],
        storage,
        float32: [weight],
      });
      for (const float32 of [[weight, x], [weight, out], []]) {
        await expectAsNativeAnywhere({
          name: 'rmsNorm',
          args: [x, weight, 1e-5, out],
          outputs: [out],
          storage,
          float32,
        });
      }
      const [dx, dWeight] = [output(rows * width), output(width)];
      const args = [x, weight, dy, 1e-5, dx, dWeight];
      const tolerance = width === 1 ? 1e-3 : undefined;
      await expectAsNativeAnywhere(
        { name: 'rmsNormGrad', args, outputs: [dx, dWeight], storage, float32: [weight, dWeight] },
        tolerance,
      );
    });
  }
});
