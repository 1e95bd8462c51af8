/** Loads the native addon and says what it can do. The functions are described in native/cpu/kernels.h. */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** All arrays are read or written where they are; sizes are checked in C++ and a misfit throws. */
export interface NativeAddon {
  setThreads(threads: number): void;
  /** Bytes from the beginning of a buffer to the first address that suits vectors. */
  alignment(buffer: ArrayBuffer): number;
  embedding(ids: Int32Array, weight: Float32Array, width: number, out: Float32Array): void;
  embeddingGrad(ids: Int32Array, dy: Float32Array, rows: number, dWeight: Float32Array): void;
  rmsNorm(x: Float32Array, weight: Float32Array, epsilon: number, out: Float32Array): void;
  rmsNormGrad(
    ...args: [
      x: Float32Array,
      weight: Float32Array,
      dy: Float32Array,
      epsilon: number,
      dx: Float32Array,
      dWeight: Float32Array,
    ]
  ): void;
  linear(x: Float32Array, weight: Float32Array, rows: number, out: Float32Array): void;
  linearGrad(
    ...args: [
      x: Float32Array,
      weight: Float32Array,
      dy: Float32Array,
      rows: number,
      dx: Float32Array,
      dWeight: Float32Array,
    ]
  ): void;
  ropeTable(positions: Int32Array, dim: number, theta: number, table: Float32Array): void;
  rope(
    ...args: [x: Float32Array, table: Float32Array, tokens: number, heads: number, inverse: boolean, out: Float32Array]
  ): void;
  attention(...args: [...AttentionArguments, out: Float32Array, share: Float32Array, lse: Float32Array]): void;
  attentionGrad(
    ...args: [
      ...AttentionArguments,
      dy: Float32Array,
      out: Float32Array,
      lse: Float32Array,
      dq: Float32Array,
      dk: Float32Array,
      dv: Float32Array,
      dMemoryKeys: Float32Array,
      dMemoryValues: Float32Array,
    ]
  ): void;
  swiglu(gate: Float32Array, up: Float32Array, out: Float32Array): void;
  swigluGrad(
    ...args: [gate: Float32Array, up: Float32Array, dy: Float32Array, dGate: Float32Array, dUp: Float32Array]
  ): void;
  crossEntropy(
    ...args: [
      hidden: Float32Array,
      weight: Float32Array,
      targets: Int32Array,
      dy: number,
      losses: Float32Array,
      dHidden: Float32Array,
      dWeight: Float32Array,
    ]
  ): number;
  tokenScores(
    ...args: [
      q: Float32Array,
      k: Float32Array,
      lengths: Int32Array,
      tokens: number,
      heads: number,
      kvHeads: number,
      skip: number,
      softmax: boolean,
      out: Float32Array,
    ]
  ): void;
  gatherTokens(
    ...args: [x: Float32Array, indices: Int32Array, tokens: number, heads: number, kept: number, out: Float32Array]
  ): void;
  gatherTokensGrad(
    ...args: [indices: Int32Array, dy: Float32Array, tokens: number, heads: number, kept: number, dx: Float32Array]
  ): void;
  adamw(
    ...args: [
      parameter: Float32Array,
      gradient: Float32Array,
      m: Float32Array,
      v: Float32Array,
      lr: number,
      beta1: number,
      beta2: number,
      epsilon: number,
      weightDecay: number,
      step: number,
      gradScale: number,
      newParameter: Float32Array,
      newM: Float32Array,
      newV: Float32Array,
    ]
  ): void;
  sumOfSquares(x: Float32Array): number;
  matMul(
    ...args: [
      a: Float32Array,
      b: Float32Array,
      rows: number,
      columns: number,
      inner: number,
      transposeA: boolean,
      transposeB: boolean,
      out: Float32Array,
    ]
  ): void;
  add(a: Float32Array, b: Float32Array, out: Float32Array): void;
  multiply(a: Float32Array, b: Float32Array, out: Float32Array): void;
  scale(a: Float32Array, factor: number, out: Float32Array): void;
  sumAxis(x: Float32Array, outer: number, axis: number, inner: number, out: Float32Array): void;
  copyRows(
    ...args: [
      from: Float32Array,
      fromOffset: number,
      fromStride: number,
      rows: number,
      width: number,
      toStride: number,
      toOffset: number,
      to: Float32Array,
    ]
  ): void;
}

/** Without memories the last five are empty but for the shape: the fields of AttentionShape in native/cpu/attention.h. */
export type AttentionArguments = [
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  memoryKeys: Float32Array,
  memoryValues: Float32Array,
  lengths: Int32Array,
  index: Int32Array,
  shape: Int32Array,
];

/** Where scripts/build_native.sh leaves the addon; the same from src/ and from dist/. */
export const ADDON_PATH = fileURLToPath(new URL('../../../build/native/memory3_native.node', import.meta.url));

const require = createRequire(import.meta.url);

/**
 * Looks whether the addon is there and loads.
 * @returns the addon, or why there is none
 */
export function findAddon(): { addon: NativeAddon } | { why: string } {
  if (!existsSync(ADDON_PATH)) return { why: 'is not built (run scripts/build_native.sh)' };
  try {
    return { addon: require(ADDON_PATH) as NativeAddon };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { why: `does not load (${message}); build it again with scripts/build_native.sh` };
  }
}
