/** How the cuda engine is chosen and opened, and what it says when something is wrong. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { ADDON_PATH } from '../../src/engine/native/addon.ts';
import * as tf from '../../src/engine/tf.ts';
import { UserError } from '../../src/errors.ts';
import { attention, embedding, rmsNorm } from '../../src/ops/index.ts';
import { counted, cuda, integers, numbers, open } from './engine_support.ts';
import { CUDA_PATH, describeCuda, EMULATED_PATH, FAKE_LIBRARIES } from './support.ts';

const CHILD = fileURLToPath(new URL('engine_child.ts', import.meta.url));
const FAKE_DRIVER = fileURLToPath(new URL('fake_libcuda.cpp', import.meta.url));
const emulated = CUDA_PATH === EMULATED_PATH;

/** What a process of its own prints. */
function inProcess(work: string, environment: Record<string, string>): string {
  const kept = { PATH: process.env.PATH ?? '', HOME: '/nonexistent' };
  const env = { ...kept, MEMORY3_CUDA_LIBS: FAKE_LIBRARIES, ...environment };
  return execFileSync(process.execPath, ['--import', 'tsx', CHILD, work], { env, encoding: 'utf8' });
}

describeCuda('the cuda engine', () => {
  it('computes in bfloat16 unless float32 is asked for, and says what it is', async () => {
    const info = await openEngine('cuda', 0);
    expect(info).toMatchObject({ name: 'cuda', precision: 'bfloat16' });
    expect(info.reason).toMatch(/^chosen \(.*compute capability \d+\.\d+.*cuBLASLt/);
    expect(tf.getBackend()).toBe('cuda');
    expect(tf.backend().floatPrecision()).toBe(16);
    expect(await openEngine('cuda', 0, 'float32')).toMatchObject({ precision: 'float32' });
    expect(tf.backend().floatPrecision()).toBe(32);
  });

  it('has the kernels of the native engine', async () => {
    const names = (backend: string) => tf.getKernelsForBackend(backend).map(({ kernelName }) => kernelName);
    await openEngine('native', 2);
    await openEngine('cuda', 0);
    expect(names('cuda').length).toBeGreaterThan(40);
    expect(names('cuda')).toEqual(names('native'));
  });

  it('tells a token id that is none with the next read, and goes on', async () => {
    await open(cuda('bfloat16'));
    const weight = numbers([7, 8], 1) as tf.Tensor2D;
    const rows = embedding(integers([3, 7]) as tf.Tensor1D, weight);
    await expect(rows.data()).rejects.toThrow('token id 7 does not lie between 0 and 6');
    rows.dispose();
    expect(() => tf.tidy(() => embedding(integers([-1]) as tf.Tensor1D, weight).dataSync())).toThrow('token id -1');
    const fine = embedding(integers([6]) as tf.Tensor1D, weight);
    expect((await fine.data()).every(Number.isFinite)).toBe(true);
    tf.dispose([fine, weight]);
  });

  it('leaves nothing behind when a kernel refuses its inputs', async () => {
    await open(cuda('bfloat16'));
    const before = counted();
    tf.tidy(() => {
      const x = numbers([1, 5, 2, 264], 1);
      expect(() => attention(x, x, x)).toThrow(/264/);
      expect(() => rmsNorm(numbers([3, 5], 2), numbers([4], 3), 1e-5)).toThrow('rmsNorm: x is no rows');
      expect(() => tf.erf(tf.scalar(1))).toThrow(/'Erf' not registered for backend 'cuda'/);
      expect(() => tf.add(tf.ones([2, 3]), tf.ones([3]))).toThrow(/Add .* does not take the shapes/);
      expect(() => tf.tensor(['text'])).toThrow(/no tensors of type string/);
    });
    expect(counted()).toEqual(before);
  });
});

describe.skipIf(!existsSync(EMULATED_PATH) || !existsSync(ADDON_PATH) || !emulated)('the memory of a GPU', () => {
  it('is told when it is full, with the tensor and what to lower, and may be used again', () => {
    const environment = { MEMORY3_CUDA_ADDON: EMULATED_PATH, MEMORY3_EMULATOR_BYTES: String(72 * 2 ** 20) };
    const told = JSON.parse(inProcess('full', environment)) as Record<'full' | 'scratch', object> &
      Record<string, number>;
    const problem = { code: 'device_memory', exitCode: 13 };
    expect(told.full).toMatchObject(problem);
    expect(told.full).toHaveProperty(
      'message',
      expect.stringMatching(
        /^kernel Linear: .* is full: a tensor \[4096, 2048\] of bfloat16 needs 16 MiB; tensors use \d+ MiB, \d+ of 72 MiB/,
      ),
    );
    expect(told.full).toHaveProperty('message', expect.stringMatching(/batchSize.*accumulate.*recompute: true/));
    expect(told.scratch).toMatchObject({
      ...problem,
      message: expect.stringMatching(/^kernel CrossEntropy: .* is full: \d+ MiB were asked for/),
    });
    expect(told.after).toBe(told.before);
    expect(told.afterScratch).toBe(told.before);
    expect(told.value).toBe(8);
  });
});

describe.skipIf(!existsSync(EMULATED_PATH) || !existsSync(ADDON_PATH))('a machine without a GPU', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'memory3-engine-'));
    const library = join(folder, 'libcuda.so.1');
    execFileSync(process.env.CXX ?? 'c++', ['-shared', '-fPIC', '-o', library, FAKE_DRIVER]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const opened = (
    environment: Record<string, string>,
    choice = 'cuda',
  ): { code?: string; message?: string; name?: string; reason?: string } =>
    JSON.parse(inProcess(`open ${choice}`, environment)) as object;

  it('finds an addon by a path from the current folder', () => {
    expect(opened({ MEMORY3_CUDA_ADDON: relative(process.cwd(), EMULATED_PATH) })).toMatchObject({ name: 'cuda' });
  });

  it('refuses cuda in words', () => {
    expect(opened({ MEMORY3_CUDA_ADDON: join(folder, 'none.node') })).toMatchObject({
      code: 'engine_unavailable',
      message: expect.stringMatching(
        /engine: cuda: not available: the addon for GPUs is not built; .*nvcc.*Available here: native/s,
      ),
    });
    const withDriver = { LD_LIBRARY_PATH: folder };
    const auto = opened({ ...withDriver, MEMORY3_CUDA_ADDON: join(folder, 'none.node') }, 'auto');
    expect(auto).toMatchObject({
      name: 'native',
      reason: expect.stringMatching(/cuda: not available: the addon .*There is a GPU: Imaginary H100/),
    });
  });

  it('says what is wrong with the driver or the GPU', () => {
    // Some addon: it is there, and before the GPU is in order it is not opened.
    const environment = { MEMORY3_CUDA_ADDON: ADDON_PATH, LD_LIBRARY_PATH: folder };
    const noGpu = opened({ ...environment, FAKE_CUDA_INIT: '100' });
    expect(noGpu).toMatchObject({ code: 'engine_unavailable', message: expect.stringContaining('sees no GPU') });
    const old = opened({ ...environment, FAKE_CUDA_MAJOR: '7' });
    const why = /Imaginary H100, compute capability 7.0, 81920 MiB is too old, compute capability 8.0/;
    expect(old).toMatchObject({ code: 'engine_unavailable', message: expect.stringMatching(why) });
    const auto = opened({ ...environment, FAKE_CUDA_MAJOR: '7' }, 'auto');
    expect(auto).toMatchObject({ name: 'native', reason: expect.stringMatching(why) });
  });

  it('describes driver, GPUs and libraries', () => {
    const described = (more: Record<string, string>): unknown =>
      JSON.parse(inProcess('gpus', { LD_LIBRARY_PATH: folder, MEMORY3_CUDA_ADDON: EMULATED_PATH, ...more }));
    expect(described({})).toEqual([
      'NVIDIA driver: for CUDA 12.4',
      'GPU 0: Imaginary H100, compute capability 9.0, 81920 MiB',
      'GPU 1: Imaginary A100, compute capability 8.0, 40960 MiB',
      expect.stringMatching(/^cuBLASLt 13.* \(.*fake_cuda_libs/),
    ]);
    expect(described({ FAKE_CUDA_INIT: '100' })).toEqual([
      expect.stringMatching(/^GPUs: none can be used; .*sees no GPU/),
    ]);
    const missing = expect.stringMatching(/^cuBLASLt: .*not.*MEMORY3_CUDA_LIBS/s);
    expect(described({ MEMORY3_CUDA_LIBS: '/nowhere' })).toContainEqual(missing);
  });

  it('says why the addon does not start, and never falls to another engine silently', () => {
    const environment = { MEMORY3_CUDA_ADDON: EMULATED_PATH, MEMORY3_CUDA_LIBS: '/nowhere' };
    const missing = /does not start: .*cuBLAS.*MEMORY3_CUDA_LIBS/s;
    expect(opened(environment)).toMatchObject({ code: 'engine_unavailable', message: expect.stringMatching(missing) });
    expect(opened(environment, 'auto')).toMatchObject({ name: 'native', reason: expect.stringMatching(missing) });
    expect(opened({ ...environment, MEMORY3_CUDA_LIBS: FAKE_LIBRARIES }, 'auto')).toMatchObject({ name: 'cuda' });
  });

  it('refuses bfloat16 on other engines', async () => {
    for (const engine of ['native', 'wasm'] as const) {
      const error = await openEngine(engine, 0, 'bfloat16').catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(UserError);
      expect(error).toMatchObject({
        code: 'config_invalid',
        message: expect.stringContaining(`${engine} computes in float32 only`),
      });
    }
    expect(opened({ MEMORY3_CUDA_ADDON: join(folder, 'none.node') }, 'auto bfloat16')).toMatchObject({
      code: 'engine_unavailable',
      message: expect.stringMatching(
        /precision: bfloat16: nothing here computes so; cuda: not available.*use precision: auto/s,
      ),
    });
  });
});
