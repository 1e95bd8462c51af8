import { beforeAll, expect, it } from 'vitest';
import { cudaAddon, describeCuda, expectAsNative, normals, openBlas, output } from './support.ts';

describeCuda('matMul on CUDA', () => {
  beforeAll(() => {
    openBlas();
  });

  for (const storage of ['float32', 'bfloat16'] as const) {
    for (const [transposeA, transposeB] of [
      [false, false],
      [true, false],
      [false, true],
      [true, true],
    ]) {
      it.each([
        [1, 1, 1],
        [3, 5, 7],
        [1, 33, 64],
        [65, 1, 9],
        [31, 17, 1],
      ])(`[%i, %i] over %i in ${storage}, transposed ${transposeA} ${transposeB}`, async (rows, columns, inner) => {
        const [a, b, out] = [normals(rows * inner, 1), normals(inner * columns, 2), output(rows * columns)];
        const args = [a, b, rows, columns, inner, transposeA!, transposeB!, out];
        await expectAsNative({ name: 'matMul', args, outputs: [out], storage });
      });
    }

    it(`takes operands of float32 into a result of ${storage}`, async () => {
      const [a, b, out] = [normals(15, 1), normals(35, 2), output(21)];
      const args = [a, b, 3, 7, 5, false, false, out];
      await expectAsNative({ name: 'matMul', args, outputs: [out], storage, float32: [a, b] });
    });
  }

  it('gives zeros where there is nothing to add up, and nothing where there are no rows', async () => {
    const addon = cudaAddon();
    const out = addon.allocate(6, 0)!;
    addon.matMul!(0, 0, 2, 3, 0, false, false, out);
    expect(await addon.read(out, output(6))).toEqual(new Float32Array(6));
    addon.matMul!(0, out, 0, 3, 2, false, false, 0);
    addon.release(out);
  });

  it('refuses sizes that do not fit', () => {
    const addon = cudaAddon();
    const out = addon.allocate(6, 0)!;
    expect(() => addon.matMul!(out, out, 2, 3, 2, false, false, out)).toThrow('the sizes of the operands do not fit');
    expect(() => addon.matMul!(out, out, 2, 2, 3, false, false, out)).toThrow('the size of the result does not fit');
    addon.release(out);
  });
});
