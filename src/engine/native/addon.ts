/** Loads the native addon and says what it can do. The functions are described in native/cpu/kernels.h. */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

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

/** The values of a tensor: float32, int32 or bool. */
export type TensorValues = Float32Array | Int32Array | Uint8Array;

/**
 * Kernels go into a stream and run in order on threads of the addon, while JavaScript goes on. They read and write arrays
 * where they are, so every array must live until the stream is past its kernels. Sizes and indices are checked in C++; a
 * misfit becomes the error of the next `read` or `wait`, an argument of the wrong type throws at once.
 */
export interface NativeAddon {
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
  linear(
    ...args: [x: Float32Array, weights: Float32Array[], residual: Float32Array, rows: number, outs: Float32Array[]]
  ): void;
  linearGrad(
    ...args: [
      x: Float32Array,
      weights: Float32Array[],
      dys: Float32Array[],
      rows: number,
      dx: Float32Array,
      dWeights: Float32Array[],
    ]
  ): void;
  rope(
    ...args: [
      x: Float32Array,
      positions: Int32Array,
      heads: number,
      dim: number,
      theta: number,
      inverse: boolean,
      out: Float32Array,
    ]
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
      sum: Float32Array,
      losses: Float32Array,
      dHidden: Float32Array,
      dWeight: Float32Array,
    ]
  ): void;
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
  selectTokens(scores: Float32Array, tokens: number, count: number, out: Int32Array): void;
  gatherTokens(
    ...args: [x: Float32Array, indices: Int32Array, tokens: number, heads: number, kept: number, out: Float32Array]
  ): void;
  gatherTokensGrad(
    ...args: [indices: Int32Array, dy: Float32Array, tokens: number, heads: number, kept: number, dx: Float32Array]
  ): void;
  /** `type`: 0 float32, 1 float16, 2 bfloat16. */
  unpackMemories(rows: Int32Array, type: number, memories: number, parts: Float32Array[]): void;
  adamw(
    ...args: [
      parameters: Float32Array[],
      gradients: Float32Array[],
      m: Float32Array[],
      v: Float32Array[],
      lr: number,
      beta1: number,
      beta2: number,
      epsilon: number,
      weightDecay: number,
      step: number,
      gradScale: number,
      newParameters: Float32Array[],
      newM: Float32Array[],
      newV: Float32Array[],
    ]
  ): void;
  globalNorm(tensors: Float32Array[], norm: Float32Array): void;
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
  scale(a: Float32Array, factor: Float32Array, out: Float32Array): void;
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
  argMax(x: Float32Array, out: Int32Array): void;
  fill(value: number, out: TensorValues): void;
  cast(from: TensorValues, to: TensorValues): void;
}

/**
 * Without memories theirs are empty, and `firstVisible` where the context is seen from its start. The shape holds the
 * fields of AttentionShape in native/cpu/attention.h.
 */
export type AttentionArguments = [
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  memoryKeys: Float32Array,
  memoryValues: Float32Array,
  lengths: Int32Array,
  index: Int32Array,
  firstVisible: Int32Array,
  shape: number[],
];

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
