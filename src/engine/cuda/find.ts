/** Whether there is a GPU for the CUDA engine, and what else it needs, in words. */

import { type CudaDevice, type CudaDriver, findAddon } from '../native/addon.ts';
import { isCudaBuilt, loadCudaAddon } from './addon.ts';

/** The GPU of this process: the first that CUDA_VISIBLE_DEVICES leaves. */
export const DEVICE = 0;

/** The oldest GPUs with bfloat16 and asynchronous copies: A100. */
const OLDEST = 8;

export interface CudaFound {
  ok: boolean;
  /** What is there, or what is missing and what to do. */
  why: string;
  /** Whether there is a GPU that something else keeps from being used. */
  missed?: boolean;
}

/** Looks without opening a GPU. Only an addon that MEMORY3_CUDA_ADDON names is loaded: for tests, it may need no GPU. */
export function findCuda(): CudaFound {
  if (process.env.MEMORY3_CUDA_ADDON !== undefined && isEmulated()) {
    return { ok: true, why: 'an emulated device, for tests' };
  }
  const driver = cudaDriver();
  const [first] = 'devices' in driver ? driver.devices : [];
  if (!isCudaBuilt()) {
    const what =
      'not available: the addon for GPUs is not built; scripts/build_native.sh builds it where nvcc is (CUDA 12 or newer)';
    return {
      ok: false,
      why: first ? `${what}. There is a GPU: ${describeDevice(first)}` : what,
      missed: first !== undefined,
    };
  }
  if ('why' in driver) return { ok: false, why: `not available: ${driver.why}` };
  if (!first) return { ok: false, why: 'not available: the driver sees no GPU; look at CUDA_VISIBLE_DEVICES' };
  if (Number.parseInt(first.computeCapability, 10) < OLDEST) {
    const what = `${describeDevice(first)} is too old, compute capability ${OLDEST}.0 (A100) or newer is needed`;
    return { ok: false, why: `not available: ${what}; CUDA_VISIBLE_DEVICES chooses another GPU`, missed: true };
  }
  return { ok: true, why: `${describeDevice(first)}, driver for CUDA ${driver.driver}` };
}

/** The driver, its GPUs and the library for products of matrices, a line each. */
export function describeGpus(): string[] {
  const driver = cudaDriver();
  if ('why' in driver) return [`NVIDIA driver: ${driver.why}`];
  const devices = driver.devices.map((device, number) => `GPU ${number}: ${describeDevice(device)}`);
  return [`NVIDIA driver: for CUDA ${driver.driver}`, ...devices, `cuBLASLt: ${describeBlas()}`];
}

function describeBlas(): string {
  if (!isCudaBuilt()) return 'not looked for: the addon for GPUs, which loads it, is not built';
  try {
    const addon = loadCudaAddon();
    addon.open(DEVICE);
    return addon.openBlas();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function isEmulated(): boolean {
  try {
    return loadCudaAddon().emulated === true;
  } catch {
    return false; // Opening it tells why.
  }
}

function cudaDriver(): CudaDriver {
  const found = findAddon();
  return 'addon' in found
    ? found.addon.cudaDriver()
    : { why: `not asked: the native addon, which asks it, ${found.why}` };
}

function describeDevice({ name, computeCapability, memory }: CudaDevice): string {
  return `${name}, compute capability ${computeCapability}, ${Math.floor(memory / 2 ** 20)} MiB`;
}
