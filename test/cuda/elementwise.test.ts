import { expect, it } from 'vitest';
import type { TensorValues } from '../../src/engine/native/addon.ts';
import {
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

const SIZES = [[0], [1], [7], [16], [1003], [30_005]];

describeCuda('plain kernels on CUDA', () => {
  for (const storage of STORAGES) {
    it.each(SIZES)(`add, multiply and scale of %i numbers in ${storage}`, async (count) => {
      const [a, b, out, factor] = [normals(count, 1), normals(count, 2), output(count), Float32Array.of(-1.5)];
      for (const name of ['add', 'multiply']) {
        const call = { name, args: [a, b, out], outputs: [out], storage };
        await expectAsNativeAnywhere(call);
        for (const float32 of [[a], [b], [out], [a, b]]) await expectAsNative({ ...call, float32 });
        await expectAsNative({ name, args: [a, b, a], outputs: [a], inPlace: [a], storage });
      }
      for (const float32 of [[], [factor], [out], [a]]) {
        await expectAsNativeAnywhere({ name: 'scale', args: [a, factor, out], outputs: [out], storage, float32 });
      }
    });

    it(`adds more numbers than there are threads, in ${storage}`, async () => {
      const [a, b, out] = [normals(210_003, 1), normals(210_003, 2), output(210_003)];
      await expectAsNative({ name: 'add', args: [a, b, out], outputs: [out], storage });
    });

    it.each([
      [1, 10_001, 1],
      [3, 5, 7],
      [1, 9000, 3],
      [70, 33, 1],
      [2, 1, 40],
      [2, 0, 3],
      [5, 4, 0],
    ])(`sums of [%i, %i, %i] in ${storage}`, async (outer, axis, inner) => {
      const [x, out] = [normals(outer * axis * inner, 1), output(outer * inner)];
      const call = { name: 'sumAxis', args: [x, outer, axis, inner, out], outputs: [out], storage };
      await expectAsNativeAnywhere(call);
      await expectAsNativeAnywhere({ ...call, float32: [out] }, TOLERANCE.float32);
    });

    it.each([
      [0, 5, 3, 5, 5, 2],
      [3, 9, 4, 5, 7, 1],
      [8, 64, 5, 32, 48, 16],
      [0, 2000, 1, 2000, 2000, 0],
      [16, 32, 0, 8, 8, 0],
    ])(`copies rows from %i by %i, %i of %i, by %i to %i in ${storage}`, async (...numbers) => {
      const [fromOffset, fromStride, rows, width, toStride, toOffset] = numbers;
      const from = normals(fromOffset + rows * fromStride, 1);
      const to = normals(toOffset + rows * toStride, 2); // What no row covers stays.
      const args = [from, fromOffset, fromStride, rows, width, toStride, toOffset, to];
      const call = { name: 'copyRows', args, outputs: [to], inPlace: [to], storage };
      await expectAsNativeAnywhere(call);
      await expectAsNativeAnywhere({ ...call, float32: [from] });
      await expectAsNativeAnywhere({ ...call, float32: [to] });
    });

    it.each([
      [1, 1],
      [5, 9],
      [3, 1600],
      [2, 20_000],
    ])(`argMax of [%i, %i] in ${storage}`, async (rows, width) => {
      // Few different values, so that the first of equal ones counts.
      const x = normals(rows * width, 1).map((value) => Math.round(value * 2));
      const out = new Int32Array(rows).fill(-7);
      await expectAsNativeAnywhere({ name: 'argMax', args: [x, out], outputs: [out], storage });
    });
  }

  it('argMax passes NaN over unless a row begins with it', async () => {
    const x = Float32Array.of(1, Number.NaN, 2, Number.NaN, 5, 6, -Infinity, Number.NaN, -Infinity);
    const out = new Int32Array(3).fill(-7);
    const call: KernelCall = { name: 'argMax', args: [x, out], outputs: [out], storage: 'float32' };
    expect(await expectAsNative(call)).toEqual([Int32Array.of(2, 0, 0)]);
  });

  it.each(SIZES)('fills %i elements of each type', async (count) => {
    for (const value of [0, 1, -2.5]) {
      for (const out of [output(count), new Int32Array(count).fill(-7), new Uint8Array(count).fill(5)]) {
        for (const storage of STORAGES) {
          await expectAsNativeAnywhere({ name: 'fill', args: [value, out], outputs: [out], storage });
        }
      }
    }
  });

  it.each(SIZES)('casts %i elements between all types', async (count) => {
    const numbers = normals(count, 1).map((x, i) => (i % 3 === 0 ? 0 : x * 10));
    const inputs: TensorValues[] = [
      numbers,
      Int32Array.from(numbers),
      Uint8Array.from(numbers, (x) => (x > 0 ? 1 : 0)),
    ];
    for (const from of inputs) {
      for (const to of [output(count), new Int32Array(count).fill(-7), new Uint8Array(count).fill(5)]) {
        for (const storage of STORAGES) {
          const call = { name: 'cast', args: [from, to], outputs: [to], storage };
          await expectAsNativeAnywhere(call);
          if (from === numbers) await expectAsNativeAnywhere({ ...call, float32: [numbers] });
          if (to instanceof Float32Array) await expectAsNativeAnywhere({ ...call, float32: [to] });
        }
      }
    }
  });

  it('rounds to bfloat16 as the host does', async () => {
    const values = Float32Array.from({ length: 4096 }, (_, i) => (1 + i / 1024 / 256) * (i % 2 ? 1 : -1));
    const out = output(values.length);
    const call: KernelCall = {
      name: 'cast',
      args: [values, out],
      outputs: [out],
      storage: 'bfloat16',
      float32: [values],
    };
    expect((await runOnCuda({ ...call, float32: [values] }))[0]).toEqual(rounded(values));
  });
});
