/** The backend itself: memory, reading, errors, and that nothing runs as a composition. */

import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { findAddon } from '../../src/engine/native/addon.ts';
import type { NativeBackend } from '../../src/engine/native/backend.ts';
import { BufferPool, sizeClass, viewOf } from '../../src/engine/native/pool.ts';
import * as tf from '../../src/engine/tf.ts';
import { physicalCores } from '../../src/io/cores.ts';
import { linear, rmsNorm } from '../../src/ops/index.ts';
import { describeNative, int32, normals } from './support.ts';

describeNative('native backend', () => {
  beforeAll(async () => {
    await openEngine('native', 2);
  });

  it('is what auto chooses here, and says what it is', async () => {
    const info = await openEngine('native', 0);
    expect(info.available.find(({ name }) => name === 'native')).toMatchObject({ ok: true });
    expect(tf.getBackend()).toBe('native');
    expect(physicalCores()).toBeGreaterThanOrEqual(1);
  });

  it('reads a copy, that outlives the tensor', () => {
    const x = tf.tensor1d([1, 2, 3]);
    const values = x.dataSync();
    values[0] = 9;
    expect([...x.dataSync()]).toEqual([1, 2, 3]);
    x.dispose();
    tf.dispose(tf.tensor1d([7, 7, 7]));
    expect([...values]).toEqual([9, 2, 3]);
  });

  it('keeps data until the last of the tensors that share it is gone', () => {
    const x = tf.tensor1d([1, 2, 3, 4]);
    const y = x.reshape([2, 2]);
    x.dispose();
    tf.dispose(tf.zeros([4]));
    expect([...y.dataSync()]).toEqual([1, 2, 3, 4]);
    y.dispose();
  });

  it('takes tensors of another backend', async () => {
    await openEngine('cpu', 0);
    const x = tf.tensor1d([1, 2, 3]);
    await openEngine('native', 2);
    const sum = tf.add(x, x);
    expect([...sum.dataSync()]).toEqual([2, 4, 6]);
    tf.dispose([x, sum]);
  });

  it('names a kernel that it does not have, and shapes that a kernel does not take', () => {
    tf.tidy(() => {
      expect(() => tf.erf(tf.scalar(1))).toThrow(/'Erf' not registered for backend 'native'/);
      expect(() => tf.add(tf.ones([2, 3]), tf.ones([3]))).toThrow(/Add .* does not take the shapes \[2,3\] and \[3\]/);
      expect(() => tf.tensor(['text'])).toThrow(/no tensors of type string/);
    });
  });

  it('refuses sizes and values that do not fit, in C++ as well', async () => {
    const found = findAddon();
    if (!('addon' in found)) throw new Error(found.why);
    const { addon } = found;
    const x = new Float32Array(6);
    // Kernels run later, so what they find comes with the next wait or read.
    const failing = (put: () => void) => () => {
      put();
      addon.wait();
    };
    const three = new Float32Array(3);
    expect(failing(() => addon.rmsNorm(x, new Float32Array(4), 1e-5, x))).toThrow('RmsNorm: x is not made of rows');
    expect(failing(() => addon.linear(x, [x], new Float32Array(), 2, [three]))).toThrow(
      'Linear: out has 3 elements, expected 4',
    );
    expect(failing(() => addon.embedding(Int32Array.of(2), x, 3, three))).toThrow('id 2 is not in [0, 2)');
    addon.embedding(Int32Array.of(-1), x, 3, three);
    await expect(addon.read(three, new Float32Array(3))).rejects.toThrow('id -1 is not in [0, 2)');
    expect([...(await addon.read(x, new Float32Array(6)))]).toEqual([...x]);
    expect(() => addon.add(x, x, new Int32Array(6) as never)).toThrow('expected a Float32Array');
    expect(() => addon.add(x, x, undefined as never)).toThrow('expected a Float32Array');
    expect(() => (addon.add as (...args: unknown[]) => void)(x, x)).toThrow('expected 3 arguments');
    expect(() => addon.setThreads(0)).toThrow('between 1 and 1024');
  });

  it('has every kernel of the operations itself', async () => {
    await openEngine('cpu', 0);
    await import('../../src/ops/index.ts');
    const names = (backend: string) => new Set(tf.getKernelsForBackend(backend).map(({ kernelName }) => kernelName));
    const before = names('native');
    // Compositions are registered when they are first called; none may have been.
    await openEngine('native', 2);
    tf.tidy(() => {
      const x = normals([4, 8], 1);
      tf.grads((a, b) => tf.sum(linear(rmsNorm(a, tf.ones([8]), 1e-5), b)))([x, normals([3, 8], 2)]);
    });
    expect(names('native')).toEqual(before);
    const pairs = [
      'Embedding',
      'RmsNorm',
      'Linear',
      'LinearPair',
      'LinearTriple',
      'Attention',
      'MemoryAttention',
      'Swiglu',
      'CrossEntropy',
      'GatherTokens',
    ];
    const single = ['LinearResidual', 'View', 'Rope', 'TokenScores', 'SelectTokens', 'Adamw', 'GlobalNorm'];
    const all = [...single, ...pairs, ...pairs.map((name) => `${name}Grad`)];
    expect(all.filter((name) => !before.has(name))).toEqual([]);
  });

  it('uses its buffers again', () => {
    const backend = tf.backend() as NativeBackend;
    const step = (): void => tf.tidy(() => void tf.add(tf.ones([1000]), tf.ones([1000])));
    step();
    const { used, free } = backend.bufferBytes();
    for (let i = 0; i < 100; i++) step();
    expect(backend.bufferBytes()).toEqual({ used, free });
  });

  it.each([
    { name: 'sum of everything', run: () => tf.sum(tf.ones([3, 4])), expected: [12] },
    {
      name: 'sum of the last axis',
      run: () =>
        tf.sum(
          tf.tensor2d([
            [1, 2],
            [3, 4],
          ]),
          1,
        ),
      expected: [3, 7],
    },
    {
      name: 'sum of the first axis',
      run: () =>
        tf.sum(
          tf.tensor2d([
            [1, 2],
            [3, 4],
          ]),
          0,
        ),
      expected: [4, 6],
    },
    {
      name: 'argMax',
      run: () =>
        tf.argMax(
          tf.tensor2d([
            [1, 5, 5],
            [9, 4, 0],
          ]),
          1,
        ),
      expected: [1, 0],
    },
    { name: 'addN', run: () => tf.addN([tf.ones([2]), tf.ones([2]), tf.ones([2])]), expected: [3, 3] },
    {
      name: 'concat of columns',
      run: () =>
        tf.concat(
          [
            tf.tensor2d([[1], [2]]),
            tf.tensor2d([
              [3, 4],
              [5, 6],
            ]),
          ],
          1,
        ),
      expected: [1, 3, 4, 2, 5, 6],
    },
    {
      name: 'slice of columns',
      run: () =>
        tf.slice(
          tf.tensor2d([
            [1, 2, 3],
            [4, 5, 6],
          ]),
          [0, 1],
          [2, 2],
        ),
      expected: [2, 3, 5, 6],
    },
    {
      name: 'split',
      run: () =>
        tf.split(
          tf.tensor2d([
            [1, 2, 3],
            [4, 5, 6],
          ]),
          [1, 2],
          1,
        )[1]!,
      expected: [2, 3, 5, 6],
    },
    { name: 'cast to integers', run: () => tf.cast(tf.tensor1d([1.7, -1.7]), 'int32'), expected: [1, -1] },
    { name: 'product with a number', run: () => tf.mul(tf.tensor1d([1, 2]), 3), expected: [3, 6] },
    {
      name: 'matMul',
      run: () =>
        tf.matMul(
          tf.tensor2d([
            [1, 2],
            [3, 4],
          ]),
          tf.tensor2d([
            [1, 0],
            [1, 1],
          ]),
          true,
          true,
        ),
      expected: [1, 4, 2, 6],
    },
  ])('$name', ({ run, expected }) => {
    const values = tf.tidy(() => run().dataSync());
    expect([...values]).toEqual(expected);
  });

  it('keeps integers integers', () => {
    const values = tf.tidy(() => int32([1, -2, 3]).reshape([3, 1]).dataSync());
    expect(values).toEqual(Int32Array.of(1, -2, 3));
  });
});

describeNative('buffer pool', () => {
  it('rounds up by an eighth at most', () => {
    for (const bytes of [0, 1, 255, 256, 257, 1000, 4096, 123_457, 2 ** 31 + 5]) {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size).toBeLessThanOrEqual(Math.max(256, bytes * 1.125));
      expect(size % 4).toBe(0);
    }
  });

  it('hands a returned buffer out again, at the aligned place', () => {
    const pool = new BufferPool({ alignment: () => 48, added: () => 0, done: () => 0 });
    const first = pool.take(1000);
    expect(viewOf(first, 'float32', 250).byteOffset).toBe(48);
    pool.give(first);
    expect(pool.take(990)).toBe(first);
    expect(pool.take(1000)).not.toBe(first);
  });

  it('lets go of more than it may keep', () => {
    const pool = new BufferPool({ alignment: () => 0, added: () => 0, done: () => 0 });
    const sizes = Array.from({ length: 12 }, (_, i) => 2 ** 26 + i * 2 ** 24);
    for (const size of sizes) pool.give(pool.take(size));
    expect(pool.sizes().used).toBe(0);
    expect(pool.sizes().free).toBeLessThanOrEqual(Math.max(2 ** 28, 1.5 * sizeClass(sizes.at(-1)!)));
  });
});
