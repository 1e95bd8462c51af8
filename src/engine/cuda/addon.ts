/** Loads the addon for GPUs and says what it can do. */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Kernels, TensorValues } from '../kernels/kernels.ts';
import type { KernelProfile } from '../native/addon.ts';

/** The data of a tensor by its number, 0 for none, or [number, offset, count] for a part of it. */
export type CudaValues = number | [number: number, offset: number, count: number];

/** How the numbers of a tensor are stored. */
export const STORAGE = { float32: 0, int32: 1, bool: 2, bfloat16: 3 } as const;
export type StorageType = keyof typeof STORAGE;

/**
 * Kernels go into a stream of the GPU and run in order, while JavaScript goes on. Numbers are stored as float32 or
 * bfloat16 and come and go as float32. An argument that does not fit throws at once; what only the GPU can see, such as a
 * token id out of range, becomes the error of the next `read`, `readNow` or `wait`.
 */
export interface CudaAddon extends Kernels<CudaValues, CudaValues, CudaValues> {
  /** Opens the GPU of this number, once, and says what it is. */
  open(device: number): string;
  /** Loads cuBLASLt, once, and says which one it is. */
  openBlas(): string;
  /** The number of new data; null when the memory of the GPU is full. */
  allocate(count: number, storage: number): number | null;
  /**
   * The number of new data that gets the values of `source` on a stream of its own, while kernels run; null when the memory
   * of the GPU is full. `source` must not change before the data is used, which waits for it.
   */
  upload(source: TensorValues, storage: number): number | null;
  /** Gives data back, once the kernels called until now are done. */
  release(number: number): void;
  /** A promise of `target` with what `source` holds when the stream comes to it. */
  read<T extends TensorValues>(source: number, target: T): Promise<T>;
  /** The same, but waits. */
  readNow(source: number, target: TensorValues): void;
  /** Copies the present contents of `source` into `target` when the stream comes to it. */
  write(source: TensorValues, target: number): void;
  /** Blocks until the stream is empty. */
  wait(): void;
  /** Gives the GPU back; all tensors are lost. */
  close(): void;
  /** Bytes of the GPU's memory that tensors use. */
  usedBytes(): number;
  /** The most that those were at once since the last call. */
  takePeakBytes(): number;
  /** Bytes of the GPU's memory as the driver tells. */
  memoryInfo(): { free: number; total: number };
  /** Whether kernels are timed from now on. */
  profile(on: boolean): void;
  /** What ran on the GPU while timed, since the last call, the longest first. */
  takeProfile(): KernelProfile[];
  /** Whether the device is only emulated, for tests. */
  emulated?: boolean;
}

/** Where scripts/build_native.sh leaves the addon, the same from src/ and from dist/; or what MEMORY3_CUDA_ADDON names. */
function cudaAddonPath(): string {
  const built = new URL('../../../build/native/memory3_cuda.node', import.meta.url);
  return resolve(process.env.MEMORY3_CUDA_ADDON ?? fileURLToPath(built));
}

const require = createRequire(import.meta.url);

/** Whether the addon is built; it is not loaded. */
export const isCudaBuilt = (): boolean => existsSync(cudaAddonPath());

/** Loads the addon; it needs no driver until it is opened. @throws Error when it does not load */
export function loadCudaAddon(): CudaAddon {
  return require(cudaAddonPath()) as CudaAddon;
}
