import { expect, it } from 'vitest';
import {
  cudaAddon,
  describeCuda,
  expectAsNative,
  expectAsNativeAnywhere,
  type KernelCall,
  normals,
  output,
  rounded,
  runOnCuda,
  STORAGES,
  TOLERANCE,
} from './support.ts';

const squares = (count: number, seed: number): Float32Array => normals(count, seed).map((x) => x * x);
const OPTIONS = [1e-2, 0.9, 0.95, 1e-8, 0.1, 3, 0.5];

describeCuda('adamw on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([[[1]], [[5, 0, 4099, 16]], [Array.from({ length: 95 }, (_, i) => (i % 7) * 3)]])(
      `parameters of %j numbers, gradients in ${storage}`,
      async (sizes) => {
        const all = (make: (count: number, seed: number) => Float32Array): Float32Array[] =>
          sizes.map((size, i) => make(size, i + 1));
        const [parameters, gradients, m, v] = [all(normals), all(normals), all(normals), all(squares)] as const;
        const [newParameters, newM, newV] = [all(output), all(output), all(output)] as const;
        const outputs = [...newParameters, ...newM, ...newV];
        const float32 = [...parameters, ...m, ...v, ...outputs];
        const args = [parameters, gradients, m, v, ...OPTIONS, newParameters, newM, newV];
        await expectAsNativeAnywhere({ name: 'adamw', args, outputs, storage, float32 }, TOLERANCE.float32);
        const inPlace = [...parameters, ...m, ...v];
        const same = [parameters, gradients, m, v, ...OPTIONS, parameters, m, v];
        const call = { name: 'adamw', args: same, outputs: inPlace, inPlace, storage, float32: inPlace };
        await expectAsNativeAnywhere(call, TOLERANCE.float32);
      },
    );
  }

  it('writes the copy of a parameter as bfloat16 along', async () => {
    const addon = cudaAddon();
    const used = addon.usedBytes();
    const count = 37;
    const start = {
      parameter: normals(count, 1),
      gradient: normals(count, 2),
      m: normals(count, 3),
      v: squares(count, 4),
    };
    const handles = Object.values(start).map((values) => {
      const handle = addon.allocate(count, 0)!;
      addon.write(values, handle);
      return handle;
    });
    const [parameter, gradient, m, v] = handles as [number, number, number, number];
    const [ones, out] = [addon.allocate(count, 3)!, addon.allocate(count, 3)!];
    addon.fill!(1, ones);
    // A kernel with a bfloat16 result reads a float32 tensor through its copy.
    const silu = async (): Promise<Float32Array> => {
      addon.swiglu!(parameter, ones, out);
      return addon.read(out, new Float32Array(count));
    };
    const expected = (values: Float32Array): Float32Array =>
      rounded(rounded(values).map((x) => x / (1 + Math.exp(-x))));
    const near = (actual: Float32Array, values: Float32Array): void => {
      const wanted = expected(values);
      for (let i = 0; i < count; i++)
        expect(Math.abs(actual[i]! - wanted[i]!)).toBeLessThan(0.005 * (1 + Math.abs(wanted[i]!)));
    };
    near(await silu(), start.parameter);
    const update = (to: number | number[]): void => {
      const from =
        typeof to === 'number'
          ? [parameter, gradient, m, v]
          : [parameter, gradient, m, v].map((x) => [x, to[1], to[2]]);
      addon.adamw!(...from.map((x) => [x]), 0.5, ...OPTIONS.slice(1), [from[0]], [from[2]], [from[3]]);
    };
    update(parameter);
    const updated = await addon.read(parameter, new Float32Array(count));
    expect(Math.abs(updated[0]! - start.parameter[0]!)).toBeGreaterThan(0.05);
    near(await silu(), updated);
    update([parameter, 5, 9]); // a part
    near(await silu(), await addon.read(parameter, new Float32Array(count)));
    addon.fill!(3, [parameter, 1, 2]);
    near(await silu(), await addon.read(parameter, new Float32Array(count)));
    addon.add!(parameter, gradient, parameter);
    near(await silu(), await addon.read(parameter, new Float32Array(count)));
    update(parameter);
    near(await silu(), await addon.read(parameter, new Float32Array(count)));
    for (const handle of [...handles, ones, out]) addon.release(handle);
    expect(addon.usedBytes()).toBe(used);
  });
});

describeCuda('globalNorm on CUDA', () => {
  for (const storage of STORAGES) {
    it(`of tensors of many sizes in ${storage}`, async () => {
      const norm = output(1);
      for (const sizes of [[1], [3, 0, 33_001, 64], Array.from({ length: 250 }, (_, i) => (i * 5) % 23)]) {
        const tensors = sizes.map((size, i) => normals(size, i + 1));
        const call = { name: 'globalNorm', args: [tensors, norm], outputs: [norm], storage };
        await expectAsNativeAnywhere({ ...call, float32: [norm] }, TOLERANCE.float32);
        await expectAsNative({ ...call, float32: [norm, tensors[0]!] }, TOLERANCE.float32);
      }
    });
  }

  it('neither overflows nor hides what is not finite', async () => {
    const norm = output(1);
    const of = async (values: Float32Array[]): Promise<number> => {
      const call: KernelCall = { name: 'globalNorm', args: [values, norm], outputs: [norm], storage: 'float32' };
      return (await runOnCuda(call))[0]![0]!;
    };
    expect(await of([Float32Array.of(3e30, 4e30)])).toBeCloseTo(5e30, -26);
    expect(await of([normals(40, 1), Float32Array.of(1, Number.NaN)])).toBeNaN();
    expect(await of([Float32Array.of(1, -Infinity), normals(40, 1)])).toBe(Infinity);
  });
});
