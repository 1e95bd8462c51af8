/** Loads the native addon and says what it can do. */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Kernels, TensorValues } from '../kernels/kernels.ts';

export type { TensorValues } from '../kernels/kernels.ts';

/** What the calls of one kernel took. */
export interface KernelProfile {
  name: string;
  calls: number;
  seconds: number;
}

/** A GPU as NVIDIA's driver describes it. */
export interface CudaDevice {
  name: string;
  /** Bytes. */
  memory: number;
  /** Such as 9.0. */
  computeCapability: string;
}

/** The newest version of CUDA that the driver runs, such as 13.0, and its GPUs; or why there is nothing to use. */
export type CudaDriver = { driver: string; devices: CudaDevice[] } | { why: string };

/**
 * Kernels go into a stream and run in order on threads of the addon, while JavaScript goes on. They read and write arrays
 * where they are, so every array must live until the stream is past its kernels. Sizes and indices are checked in C++; a
 * misfit becomes the error of the next `read` or `wait`, an argument of the wrong type throws at once.
 */
export interface NativeAddon extends Kernels<Float32Array, Int32Array, TensorValues> {
  /** Waits for the stream and sets the threads that share a kernel. */
  setThreads(threads: number): void;
  /** A promise of `target` with what `source` holds when the stream comes to it. */
  read<T extends TensorValues>(source: TensorValues, target: T): Promise<T>;
  /** Copies the present contents of `source` into `target` when the stream comes to it. */
  write(source: TensorValues, target: TensorValues): void;
  /** Blocks until the stream is empty. */
  wait(): void;
  /** Ends the threads; kernels that wait are dropped. */
  close(): void;
  /** Kernels put into the stream so far. */
  added(): number;
  /** How many of them are done. */
  done(): number;
  /** What ran since the last call, the longest first. */
  takeProfile(): KernelProfile[];
  /** What computes, in words. */
  describe(): string;
  /** The instruction sets that products can use here, the best first. */
  instructions(): string[];
  /** Products use this one from now on. For tests and measurements. */
  useInstructions(name: string): void;
  /** What NVIDIA's driver says of this machine; without a driver, why, and what to do. */
  cudaDriver(): CudaDriver;
  /** Bytes from the beginning of a buffer to the first address that suits vectors. */
  alignment(buffer: ArrayBuffer): number;
}

/** Where scripts/build_native.sh leaves the addon, the same from src/ and from dist/; or what MEMORY3_ADDON names. */
export const ADDON_PATH =
  process.env.MEMORY3_ADDON ?? fileURLToPath(new URL('../../../build/native/memory3_native.node', import.meta.url));

const require = createRequire(import.meta.url);

/**
 * Looks whether the addon is there and loads.
 * @returns the addon, or why there is none
 */
export function findAddon(): { addon: NativeAddon } | { why: string } {
  if (!existsSync(ADDON_PATH))
    return { why: 'is not built (scripts/build_native.sh builds it, or says what is missing)' };
  try {
    return { addon: require(ADDON_PATH) as NativeAddon };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { why: `does not load (${message}); build it again with scripts/build_native.sh` };
  }
}
