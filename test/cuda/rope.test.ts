import { it } from 'vitest';
import { describeCuda, expectAsNativeAnywhere, normals, output, STORAGES, TOLERANCE } from './support.ts';

describeCuda('rope on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([
      [1, 1, 1, 2],
      [2, 5, 3, 6],
      [2, 3, 5, 80],
      [1, 7, 2, 128],
      [3, 2, 40, 16],
    ])(`[%i, %i, %i, %i] in ${storage}`, async (batch, tokens, heads, dim) => {
      const x = normals(batch * tokens * heads * dim, 1);
      const out = output(x.length);
      const positions = Int32Array.from({ length: tokens }, (_, i) => (i === 1 ? 99_999 : i * i * 13));
      for (const inverse of [false, true]) {
        const args = [x, positions, heads, dim, 10_000, inverse, out];
        await expectAsNativeAnywhere({ name: 'rope', args, outputs: [out], storage });
        await expectAsNativeAnywhere({ name: 'rope', args, outputs: [out], storage, float32: [x] });
        await expectAsNativeAnywhere(
          { name: 'rope', args, outputs: [out], storage, float32: [out] },
          TOLERANCE.float32,
        );
      }
    });
  }
});
