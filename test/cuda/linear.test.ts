import { beforeAll, expect, it } from 'vitest';
import { cudaAddon, describeCuda, expectAsNative, normals, openBlas, output } from './support.ts';

const NONE = new Float32Array();

describeCuda('linear on CUDA', () => {
  beforeAll(() => {
    openBlas();
  });

  for (const storage of ['float32', 'bfloat16'] as const) {
    it.each([
      [1, 1, [1]],
      [3, 5, [7]],
      [17, 16, [8, 24]],
      [33, 40, [40, 9, 9]],
    ] as [number, number, number[]][])(`%i rows of %i to %j in ${storage}`, async (rows, inputs, widths) => {
      const x = normals(rows * inputs, 1);
      const weights = widths.map((width, i) => normals(width * inputs, 2 + i));
      const outs = widths.map((width) => output(rows * width));
      const args = [x, weights, NONE, rows, outs];
      await expectAsNative({ name: 'linear', args, outputs: outs, storage, float32: weights });

      const dys = widths.map((width, i) => normals(rows * width, 5 + i));
      const dx = output(rows * inputs);
      const dWeights = widths.map((width) => output(width * inputs));
      await expectAsNative({
        name: 'linearGrad',
        args: [x, weights, dys, rows, dx, dWeights],
        outputs: [dx, ...dWeights],
        storage,
        float32: [...weights, ...dWeights],
      });
    });

    it(`adds the residual in ${storage}`, async () => {
      const [rows, inputs, width] = [9, 12, 10];
      const [x, weight, residual] = [normals(rows * inputs, 1), normals(width * inputs, 2), normals(rows * width, 3)];
      const out = output(rows * width);
      const call = { name: 'linear', args: [x, [weight], residual, rows, [out]], outputs: [out], storage };
      await expectAsNative({ ...call, float32: [weight] });
      await expectAsNative({ ...call, float32: [weight, residual] });
    });

    it(`takes weights that are stored like activations in ${storage}`, async () => {
      const [x, weight, dy] = [normals(30, 1), normals(24, 2), normals(20, 3)];
      const out = output(20);
      await expectAsNative({ name: 'linear', args: [x, [weight], NONE, 5, [out]], outputs: [out], storage });
      const [dx, dWeight] = [output(30), output(24)];
      const args = [x, [weight], [dy], 5, dx, [dWeight]];
      await expectAsNative({ name: 'linearGrad', args, outputs: [dx, dWeight], storage });
    });
  }

  it('reads a float32 weight again after it was written to', async () => {
    const addon = cudaAddon();
    const [x, weight, out] = [addon.allocate(2, 3)!, addon.allocate(4, 0)!, addon.allocate(2, 3)!];
    addon.write(Float32Array.of(1, 2), x);
    for (const factor of [1, -3]) {
      addon.write(Float32Array.of(factor, 0, 0, factor), weight);
      addon.linear!(x, [weight], 0, 1, [out]);
      expect(await addon.read(out, output(2))).toEqual(Float32Array.of(factor, 2 * factor));
    }
    for (const handle of [x, weight, out]) addon.release(handle);
  });

  it('computes nothing without rows, and gradients of zero', async () => {
    const addon = cudaAddon();
    const [weight, dWeight] = [addon.allocate(6, 0)!, addon.allocate(6, 0)!];
    addon.linear!(0, [weight], 0, 0, [0]);
    addon.linearGrad!(0, [weight], [0], 0, 0, [dWeight]);
    expect(await addon.read(dWeight, output(6))).toEqual(new Float32Array(6));
    for (const handle of [weight, dWeight]) addon.release(handle);
  });

  it('refuses sizes that do not fit', () => {
    const addon = cudaAddon();
    const [six, four] = [addon.allocate(6, 0)!, addon.allocate(4, 0)!];
    expect(() => addon.linear!(six, [six], 0, 4, [four])).toThrow('x does not fit its number of rows');
    expect(() => addon.linear!(six, [four], 0, 2, [four])).toThrow('a weight does not fit x');
    expect(() => addon.linear!(six, [six], 0, 2, [six])).toThrow('an output does not fit');
    expect(() => addon.linear!(six, [six], six, 2, [four])).toThrow('the residual and an output differ in size');
    expect(() => addon.linear!(six, [six], 0, 2, [four, four])).toThrow('differ in number');
    expect(() => addon.linearGrad!(six, [six], [six], 2, six, [six])).toThrow('dy does not fit');
    expect(() => addon.linearGrad!(six, [six], [four], 2, four, [six])).toThrow('x and its gradient differ in size');
    for (const handle of [six, four]) addon.release(handle);
  });
});
