import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ADDON_PATH, type CudaDriver, type NativeAddon } from '../../src/engine/native/addon.ts';
import { describeNative } from '../native/support.ts';
import { EMULATED_PATH } from './support.ts';

const SOURCE = fileURLToPath(new URL('fake_libcuda.cpp', import.meta.url));

/** What the driver is found to say in a process of its own, with libraries of `folder` before those of the system. */
function driverWith(folder: string, environment: Record<string, string> = {}): CudaDriver {
  const script = 'console.log(JSON.stringify(require(process.argv[1]).cudaDriver()))';
  const env = { ...process.env, LD_LIBRARY_PATH: folder, ...environment };
  return JSON.parse(
    execFileSync(process.execPath, ['-e', script, ADDON_PATH], { env, encoding: 'utf8' }),
  ) as CudaDriver;
}

describeNative('the driver of GPUs', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'memory3-driver-'));
    execFileSync(process.env.CXX ?? 'c++', ['-shared', '-fPIC', '-o', join(folder, 'libcuda.so.1'), SOURCE]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('lists its GPUs', () => {
    expect(driverWith(folder)).toEqual({
      driver: '12.4',
      devices: [
        { name: 'Imaginary H100', memory: 80 * 2 ** 30, computeCapability: '9.0' },
        { name: 'Imaginary A100', memory: 40 * 2 ** 30, computeCapability: '8.0' },
      ],
    });
  });

  it.each([
    ['34', 'stub for linking'],
    ['100', 'sees no GPU.*--gpus all'],
    ['802', 'nvidia-fabricmanager'],
    ['803', 'restart the machine'],
    ['804', 'compat folder'],
    ['999', '/dev/nvidia'],
    ['46', 'nvidia-smi'],
  ])('says what to do about error %s', (code, remedy) => {
    const found = driverWith(folder, { FAKE_CUDA_INIT: code });
    expect(found).toEqual({ why: expect.stringMatching(new RegExp(`as imagined \\(${code}\\); .*${remedy}`)) });
  });

  it('says so when it sees no GPU', () => {
    expect(driverWith(folder, { FAKE_CUDA_COUNT: '0' })).toEqual({ why: expect.stringContaining('sees no GPU') });
  });

  it('says what is wrong with a library of this name that is none', () => {
    const broken = mkdtempSync(join(tmpdir(), 'memory3-driver-'));
    writeFileSync(join(broken, 'libcuda.so.1'), 'not a library');
    try {
      expect(driverWith(broken)).toEqual({
        why: expect.stringMatching(/driver is not there \(.*libcuda.so.1.*install/),
      });
    } finally {
      rmSync(broken, { recursive: true });
    }
  });

  it.skipIf(existsSync('/dev/nvidiactl'))('is not there where no GPU is', () => {
    expect(driverWith('')).toEqual({
      why: expect.stringMatching(/driver is not there \(libcuda.so.1: .*\); install it/),
    });
  });
});

const BUILT_BY_NVCC = join(dirname(ADDON_PATH), 'memory3_cuda.node');

// Only where nvcc is; nothing else looks at what it made, since no GPU need be here.
describe.skipIf(!existsSync(BUILT_BY_NVCC))('the addon for real GPUs', () => {
  const require = createRequire(import.meta.url);

  it('loads without a driver and has the kernels of the emulated one', () => {
    const real = require(BUILT_BY_NVCC) as object;
    const expected = Object.keys(require(EMULATED_PATH) as object).filter((name) => name !== 'emulated');
    expect(Object.keys(real)).toEqual(expect.arrayContaining(expected));
    expect(expected).toContain('attentionGrad');
  });

  it('says what is missing when it is opened where there is no GPU', ({ skip }) => {
    const { cudaDriver } = require(ADDON_PATH) as NativeAddon;
    if (!('why' in cudaDriver())) skip('there is a GPU');
    const { open } = require(BUILT_BY_NVCC) as { open(device: number): string };
    expect(() => open(0)).toThrow(/driver/);
  });
});
