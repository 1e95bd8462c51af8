/**
 * Every operation of the model with inputs of odd sizes, to be run on two engines.
 * Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads, D headDim, M memories, S kept
 * tokens, C chunks, R slots, N rows.
 */

import * as tf from '../../src/engine/tf.ts';
import {
  type AttentionMemory,
  adamw,
  appendTokens,
  attention,
  crossEntropy,
  embedding,
  gatherTokens,
  globalNorm,
  linear,
  linears,
  rmsNorm,
  rope,
  selectTokens,
  swiglu,
  tokenScores,
  unpackMemories,
} from '../../src/ops/index.ts';
import { range } from './cases.ts';

export interface Operation {
  name: string;
  /** Shapes of the float inputs, which are random. */
  inputs: number[][];
  /** Inputs that are float32 on every device: weights, gradients of weights, optimiser state. */
  float32?: number[];
  /** Inputs whose gradient of a random function of the first output is compared too. */
  differentiable?: number[];
  /** Factor on the random inputs. */
  scale?: number;
  run(inputs: tf.Tensor[]): tf.Tensor[];
}

const int32 = (values: ArrayLike<number>, shape: number[] = [values.length]): tf.Tensor =>
  tf.tensor(Int32Array.from(values), shape, 'int32');

/** `small` for emulated devices and sanitizers, `large` for a GPU. */
export type Size = 'small' | 'large';

export function operations(size: Size): Operation[] {
  return [...rowOperations(size), ...attentionOperations(size), ...memoryOperations(size), ...plainOperations()];
}

function rowOperations(size: Size): Operation[] {
  const [rows, width, wide] = size === 'small' ? [19, 48, 80] : [301, 3200, 3328];
  const vocabulary = size === 'small' ? 67 : 6007;
  const ids = range(rows).map((i) => (i * i) % vocabulary);
  return [
    {
      name: 'embedding',
      inputs: [[vocabulary, width]],
      float32: [0],
      differentiable: [0],
      run: ([weight]) => [embedding(int32(ids), weight!)],
    },
    {
      name: 'rmsNorm',
      inputs: [[rows, width], [width]],
      float32: [1],
      differentiable: [0, 1],
      run: ([x, weight]) => [rmsNorm(x!, weight!, 1e-5)],
    },
    {
      name: 'linear with residual',
      inputs: [
        [rows, width],
        [wide, width],
        [rows, wide],
      ],
      float32: [1],
      differentiable: [0, 1, 2],
      run: ([x, weight, residual]) => [linear(x!, weight!, residual)],
    },
    {
      name: 'three linears',
      inputs: [
        [rows, width],
        [wide, width],
        [16, width],
        [16, width],
      ],
      float32: [1, 2, 3],
      differentiable: [0, 1],
      run: ([x, ...weights]) => linears(x!, weights),
    },
    {
      name: 'swiglu',
      inputs: [
        [rows, wide],
        [rows, wide],
      ],
      differentiable: [0, 1],
      run: ([gate, up]) => [swiglu(gate!, up!)],
    },
    {
      name: 'rope',
      inputs: [[2, rows, 4, 80]],
      differentiable: [0],
      run: ([x]) => [rope(x as tf.Tensor4D, tf.tensor1d(range(rows, 7), 'int32'), 10_000)],
    },
    {
      name: 'crossEntropy',
      inputs: [
        [rows, width],
        [vocabulary, width],
      ],
      float32: [1],
      differentiable: [0, 1],
      scale: 0.3,
      run: ([hidden, weight]) => {
        const targets = int32(ids.map((id, i) => (i % 5 === 3 ? -1 : id)));
        const { sum, losses } = crossEntropy(hidden as tf.Tensor2D, weight as tf.Tensor2D, targets as tf.Tensor1D);
        return [sum, losses];
      },
    },
    {
      name: 'adamw',
      inputs: [[wide, width], [wide, width], [wide, width], [wide, width], [width], [width], [width], [width]],
      float32: [0, 1, 2, 3, 4, 5, 6, 7],
      run: (given) => {
        const update = (first: number) => {
          const [parameter, gradient, m, v] = given.slice(first, first + 4) as [
            tf.Tensor,
            tf.Tensor,
            tf.Tensor,
            tf.Tensor,
          ];
          return { parameter, gradient, m, v: tf.mul(v, v) };
        };
        const options = { lr: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, step: 3, gradScale: 0.5 };
        return adamw([update(0), update(4)], { ...options, inPlace: false }).flatMap((state) => Object.values(state));
      },
    },
    {
      name: 'globalNorm',
      inputs: [[wide, width], [width]],
      float32: [0, 1],
      run: (tensors) => [globalNorm(tensors)],
    },
  ];
}

interface AttentionCase {
  name: string;
  B: number;
  T: number;
  H: number;
  K: number;
  D: number;
  /** Memories, slots, kept tokens; none when absent. */
  memory?: { M: number; R: number; S: number; chunkLength: number; start: number; gradient: boolean };
  /** Tokens of the context before the queries: the keys are a store with room, and there is no gradient. */
  before?: number;
  documents?: boolean;
}

function attentionOperations(size: Size): Operation[] {
  const dims = size === 'small' ? [16, 48, 80, 128] : [16, 32, 48, 64, 80, 96, 112, 128];
  const base = size === 'small' ? { B: 2, T: 37, H: 4, K: 2 } : { B: 2, T: 301, H: 8, K: 2 };
  const memory = { M: 5, R: 3, S: 8, chunkLength: 8, start: 3, gradient: true };
  const cases: AttentionCase[] = dims.flatMap((D) => [
    { name: `attention D ${D}`, ...base, D },
    { name: `attention D ${D}, memories with gradient`, ...base, D, memory },
  ]);
  cases.push(
    { name: 'attention, one head of keys', ...base, K: 1, D: 32 },
    { name: 'attention, as many heads of keys', ...base, K: base.H, D: 32, memory },
    {
      name: 'attention, one memory of one token',
      ...base,
      D: 16,
      memory: { ...memory, M: 1, R: 1, S: 1, gradient: false },
    },
    { name: 'attention, documents', ...base, D: 32, documents: true },
    { name: 'attention, documents and memories', ...base, D: 32, documents: true, memory },
    { name: 'decoding one token', ...base, T: 1, D: 80, before: 3 * base.T },
    {
      name: 'decoding, memories',
      ...base,
      T: 1,
      D: 80,
      before: base.T,
      memory: { ...memory, start: 0, gradient: false },
    },
    { name: 'decoding three tokens', ...base, T: 3, D: 64, before: 50 },
  );
  if (size === 'large') {
    const paper = { B: 1, T: 2048, H: 40, K: 8, D: 80 };
    const five = { M: 40, R: 5, S: 8, chunkLength: 64, start: 0, gradient: true };
    cases.push(
      { name: 'attention, the paper’s', ...paper },
      { name: 'attention, the paper’s, memories', ...paper, memory: five },
    );
  }
  return cases.map(attentionOperation);
}

function attentionOperation({ name, B, T, H, K, D, memory, before, documents }: AttentionCase): Operation {
  const keyTokens = T + (before ?? 0);
  const room = before === undefined ? keyTokens : keyTokens + 5;
  const inputs = [
    [B, T, H, D],
    [B, room, K, D],
    [B, room, K, D],
  ];
  if (memory) for (const _ of 'kv') inputs.push([memory.M, K, memory.S, D]);
  const numbers = memory?.gradient ? [0, 1, 2, 3, 4] : [0, 1, 2];
  return {
    name,
    inputs,
    ...(before === undefined && { differentiable: numbers }),
    run: ([q, k, v, keys, values]) => {
      const firstVisible = documents ? int32(documentStarts(B, T), [B, T]) : undefined;
      const read = memory && { ...memoriesOf(B, T, memory), keys: keys!, values: values! };
      const { out, share } = attention(q!, k!, v!, read, { keyTokens, firstVisible });
      return [out, share];
    },
  };
}

/** Some slots are empty, one memory is shorter than the others and one has no token. */
function memoriesOf(
  B: number,
  T: number,
  memory: NonNullable<AttentionCase['memory']>,
): Omit<AttentionMemory, 'keys' | 'values'> {
  const { M, R, S, start, chunkLength, gradient } = memory;
  const chunks = Math.max(1, Math.ceil((T - start) / chunkLength) - 1);
  const index = range(B * chunks * R).map((slot) => (slot % 7 === 5 ? -1 : (slot * 3) % M));
  const lengths = range(M).map((m) => (M === 1 ? S : m === 1 ? Math.ceil(S / 2) : m === 2 ? 0 : S));
  return { lengths: int32(lengths), index: int32(index, [B, chunks, R]), start, chunkLength, gradient };
}

/** Documents of 11 and 13 tokens in turn. */
function documentStarts(B: number, T: number): Int32Array {
  return range(B * T).map((i) => {
    const token = i % T;
    return token - (token % 24) + (token % 24 < 11 ? 0 : 11);
  });
}

function memoryOperations(size: Size): Operation[] {
  const [N, T, H, K, D] = size === 'small' ? [3, 17, 4, 2, 16] : [64, 128, 40, 8, 80];
  const kept = 5;
  const lengths = range(N).map((n) => T - (n % 4));
  return [
    ...(['softmax', 'exp'] as const).map((rule) => ({
      name: `tokenScores by ${rule}`,
      inputs: [
        [N, T, H, D],
        [N, T, K, D],
      ],
      run: ([q, k]: tf.Tensor[]) => [tokenScores(q!, k!, int32(lengths), 3, rule)],
    })),
    { name: 'selectTokens', inputs: [[N, K, T]], float32: [0], run: ([scores]) => [selectTokens(scores!, kept)] },
    {
      name: 'gatherTokens',
      inputs: [[N, T, K, D]],
      differentiable: [0],
      run: ([x]) => {
        const places = range(N * K * kept).map((i) => ((i % kept) * 3 + Math.floor(i / kept)) % T);
        return [gatherTokens(x!, int32(places, [N, K, kept]))];
      },
    },
    ...(['float32', 'float16', 'bfloat16'] as const).map((type) => ({
      name: `unpackMemories of ${type}`,
      inputs: [],
      run: () => {
        const layout = { memoryLayers: 2, kvHeads: K, keptTokens: kept, headDim: D };
        const words = (2 * 2 * K * kept * D) / (type === 'float32' ? 1 : 2);
        // Both halves of each word are numbers of ordinary size in every type.
        const rows = range(N * words).map((i) => ((0x3c00 + (i % 999)) << 16) | (0x3c00 + (i % 777)));
        const { keys, values } = unpackMemories(int32(rows, [N, words]) as tf.Tensor2D, { type, ...layout });
        return [...keys, ...values];
      },
    })),
  ];
}

function plainOperations(): Operation[] {
  return [
    {
      name: 'matMul',
      inputs: [
        [19, 33],
        [33, 21],
      ],
      float32: [0, 1],
      run: ([a, b]) => [tf.matMul(a as tf.Tensor2D, b as tf.Tensor2D)],
    },
    {
      name: 'add, mul, sum',
      inputs: [
        [7, 13, 5],
        [7, 13, 5],
      ],
      run: ([a, b]) => [tf.add(a!, b!), tf.mul(a!, b!), tf.sum(a!), tf.sum(a!, 1)],
    },
    {
      name: 'slice, concat, split',
      inputs: [
        [7, 12],
        [5, 12],
      ],
      run: ([a, b]) => [tf.slice(a!, [2, 0], [4, 12]), tf.concat([a!, b!]), ...tf.split(a!, [5, 7], 1)],
    },
    { name: 'argMax', inputs: [[9, 301]], run: ([x]) => [tf.argMax(x!, 1)] },
    {
      name: 'appendTokens',
      inputs: [
        [2, 11, 2, 16],
        [2, 3, 2, 16],
      ],
      run: ([store, x]) => [appendTokens(store as tf.Tensor4D, x as tf.Tensor4D, 5)],
    },
  ];
}
