/**
 * What the memory bank asks of the addon. Calls run on a thread of libuv; typed arrays are used where they are and must
 * not be changed or transferred until the promise is settled.
 */

import { findAddon } from './addon.ts';

/** Vectors of one block: as in native/cpu/sparse_search.h. */
export const SPARSE_BLOCK = 16_384;

/** At most SPARSE_BLOCK vectors: their numbers that are not zero, by dimension. */
export interface SparseBlock {
  /** Vectors in it. */
  size: number;
  /** The numbers of dimension j are [starts[j], starts[j + 1]), [d + 1]. */
  starts: Int32Array;
  /** The vector that each number belongs to, ascending in each dimension. */
  rows: Uint16Array;
  values: Float32Array;
}

/** The functions of native/addon/bank.cpp. */
interface NativeBank {
  sparseSearch(
    ...args: [
      blocks: readonly SparseBlock[],
      queries: Float32Array,
      dimensions: number,
      k: number,
      threads: number,
      ids: Int32Array,
      scores: Float32Array,
    ]
  ): Promise<void>;
  readRows(
    ...args: [files: Int32Array, offsets: Float64Array, slots: Int32Array, width: number, out: Uint8Array]
  ): Promise<void>;
}

/** The functions, or undefined where there is no addon. */
export function nativeBank(): NativeBank | undefined {
  const found = findAddon();
  return 'addon' in found ? (found.addon as unknown as NativeBank) : undefined;
}
