/**
 * The kernels of an engine that has C++ of its own. All such engines have the same, under the same names and with the same
 * arguments (native/cpu/kernels.h, native/cuda/kernels.h); only what stands for the values of a tensor is theirs: typed
 * arrays in native, numbers of buffers on a GPU.
 */

/** The values of a tensor in JavaScript: float32, int32 or bool. */
export type TensorValues = Float32Array | Int32Array | Uint8Array;

declare const content: unique symbol;

/** What an engine takes for the values of a tensor, seen from outside. */
interface Handle<Content extends string> {
  readonly [content]: Content;
}
export type Floats = Handle<'floats'>;
export type Ints = Handle<'ints'>;
/** Of a tensor of any type. */
export type Values = Handle<'floats' | 'ints' | 'bools'>;

/**
 * Without memories theirs are empty, and `firstVisible` where the context is seen from its start. The shape holds the
 * fields of AttentionShape in native/cpu/attention.h.
 */
export type AttentionArguments<F, I> = [
  q: F,
  k: F,
  v: F,
  memoryKeys: F,
  memoryValues: F,
  lengths: I,
  index: I,
  firstVisible: I,
  shape: number[],
];

/** Kernels that take `F` for float32, `I` for int32 and `V` for any values. */
export interface Kernels<F, I, V> {
  embedding(ids: I, weight: F, width: number, out: F): void;
  embeddingGrad(ids: I, dy: F, rows: number, dWeight: F): void;
  rmsNorm(x: F, weight: F, epsilon: number, out: F): void;
  rmsNormGrad(x: F, weight: F, dy: F, epsilon: number, dx: F, dWeight: F): void;
  linear(x: F, weights: F[], residual: F, rows: number, outs: F[]): void;
  linearGrad(x: F, weights: F[], dys: F[], rows: number, dx: F, dWeights: F[]): void;
  rope(...args: [x: F, positions: I, heads: number, dim: number, theta: number, inverse: boolean, out: F]): void;
  attention(...args: [...AttentionArguments<F, I>, out: F, share: F, lse: F]): void;
  attentionGrad(
    ...args: [...AttentionArguments<F, I>, dy: F, out: F, lse: F, dq: F, dk: F, dv: F, dMemoryKeys: F, dMemoryValues: F]
  ): void;
  swiglu(gate: F, up: F, out: F): void;
  swigluGrad(gate: F, up: F, dy: F, dGate: F, dUp: F): void;
  crossEntropy(...args: [hidden: F, weight: F, targets: I, sum: F, losses: F, dHidden: F, dWeight: F]): void;
  tokenScores(
    ...args: [
      q: F,
      k: F,
      lengths: I,
      tokens: number,
      heads: number,
      kvHeads: number,
      skip: number,
      softmax: boolean,
      out: F,
    ]
  ): void;
  selectTokens(scores: F, tokens: number, count: number, out: I): void;
  gatherTokens(...args: [x: F, indices: I, tokens: number, heads: number, kept: number, out: F]): void;
  gatherTokensGrad(...args: [indices: I, dy: F, tokens: number, heads: number, kept: number, dx: F]): void;
  /** `type`: 0 float32, 1 float16, 2 bfloat16. */
  unpackMemories(rows: I, type: number, memories: number, parts: F[]): void;
  adamw(
    ...args: [
      parameters: F[],
      gradients: F[],
      m: F[],
      v: F[],
      lr: number,
      beta1: number,
      beta2: number,
      epsilon: number,
      weightDecay: number,
      step: number,
      gradScale: number,
      newParameters: F[],
      newM: F[],
      newV: F[],
    ]
  ): void;
  globalNorm(tensors: F[], norm: F): void;
  matMul(
    ...args: [
      a: F,
      b: F,
      rows: number,
      columns: number,
      inner: number,
      transposeA: boolean,
      transposeB: boolean,
      out: F,
    ]
  ): void;
  add(a: F, b: F, out: F): void;
  multiply(a: F, b: F, out: F): void;
  scale(a: F, factor: F, out: F): void;
  sumAxis(x: F, outer: number, axis: number, inner: number, out: F): void;
  copyRows(
    ...args: [
      from: F,
      fromOffset: number,
      fromStride: number,
      rows: number,
      width: number,
      toStride: number,
      toOffset: number,
      to: F,
    ]
  ): void;
  argMax(x: F, out: I): void;
  fill(value: number, out: V): void;
  cast(from: V, to: V): void;
}
