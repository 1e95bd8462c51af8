/**
 * Every operation of the model through the cuda engine, values and gradients, beside the native engine: that activations
 * kept in bfloat16 go from one to the next, and that what must be precise is.
 */

import { beforeAll, expect, it } from 'vitest';
import type { CudaBackend } from '../../src/engine/cuda/backend.ts';
import * as tf from '../../src/engine/tf.ts';
import {
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
import { withGradients } from '../native/support.ts';
import { cuda, expectAsNative, integers, NATIVE, numbers, open, valuesOn } from './engine_support.ts';
import { describeCuda } from './support.ts';

const positions = (tokens: number, first = 0): tf.Tensor1D =>
  tf.tensor1d(
    Array.from({ length: tokens }, (_, i) => first + i),
    'int32',
  );
const backend = (): CudaBackend => tf.backend() as CudaBackend;

describeCuda('operations on the cuda engine', () => {
  it.each([
    {
      name: 'embedding',
      run: () =>
        withGradients((weight) => [embedding(integers([3, 0, 6, 3, 3]), weight as tf.Tensor2D)], [numbers([7, 13], 1)]),
    },
    {
      name: 'RMSNorm',
      run: () => withGradients((x, weight) => [rmsNorm(x, weight, 1e-5)], [numbers([9, 35], 1), numbers([35], 2)]),
    },
    {
      name: 'linear with a residual',
      run: () =>
        withGradients(
          (x, weight, residual) => [linear(x as tf.Tensor2D, weight as tf.Tensor2D, residual as tf.Tensor2D)],
          [numbers([9, 24], 1), numbers([17, 24], 2), numbers([9, 17], 3)],
        ),
    },
    {
      name: 'three linear maps',
      run: () =>
        withGradients(
          (x, ...weights) => [tf.concat(linears(x as tf.Tensor2D, weights as tf.Tensor2D[]), 1)],
          [numbers([9, 24], 1), numbers([16, 24], 2), numbers([8, 24], 3), numbers([5, 24], 4)],
        ),
    },
    {
      name: 'RoPE',
      run: () => withGradients((x) => [rope(x as tf.Tensor4D, positions(7, 3), 10000)], [numbers([2, 7, 3, 16], 1)]),
    },
    {
      name: 'SwiGLU',
      run: () => withGradients((gate, up) => [swiglu(gate, up)], [numbers([9, 37], 1), numbers([9, 37], 2)]),
    },
    {
      name: 'loss',
      run: () => {
        const targets = integers([3, -1, 0, 30, 7, 7, 12]);
        return withGradients(
          (hidden, weight) => [crossEntropy(hidden as tf.Tensor2D, weight as tf.Tensor2D, targets as tf.Tensor1D).sum],
          [numbers([7, 24], 1), numbers([31, 24], 2, 0.2)],
        );
      },
    },
    {
      name: 'tokens gathered',
      run: () =>
        withGradients(
          (x) => [gatherTokens(x as tf.Tensor4D, integers([0, 4, 2, 2, 1, 3], [1, 3, 2]) as tf.Tensor3D)],
          [numbers([1, 5, 3, 8], 1)],
        ),
    },
    {
      name: 'scores of tokens',
      run: () => {
        const scores = tokenScores(
          numbers([2, 9, 4, 16], 1) as tf.Tensor4D,
          numbers([2, 9, 2, 16], 2) as tf.Tensor4D,
          integers([9, 5]) as tf.Tensor1D,
          2,
          'softmax',
        );
        return [scores];
      },
    },
    {
      name: 'the optimiser',
      run: () => {
        const state = {
          parameter: numbers([5, 7], 1),
          gradient: numbers([5, 7], 2),
          m: numbers([5, 7], 3),
          v: tf.square(numbers([5, 7], 4)),
        };
        const options = { lr: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, step: 3, gradScale: 0.5 };
        const [updated] = adamw([state], { ...options, inPlace: false });
        return [updated!.parameter, updated!.m, updated!.v, globalNorm([state.gradient, state.m])];
      },
      // None of it is an activation.
      tolerances: { bfloat16: 1e-5 },
    },
  ])('$name', async ({ run, tolerances }) => await expectAsNative(run, tolerances));

  it.each([
    { name: 'plain', dim: 16, heads: 2, kvHeads: 2, memories: false },
    { name: 'grouped, with memories', dim: 32, heads: 6, kvHeads: 2, memories: true },
    { name: 'of the dimension of the paper, with memories', dim: 80, heads: 4, kvHeads: 1, memories: true },
  ])('attention, $name', async ({ dim, heads, kvHeads, memories }) => {
    const tokens = 21;
    const run = (): tf.Tensor[] => {
      const context = [
        numbers([1, tokens, heads, dim], 1),
        numbers([1, tokens, kvHeads, dim], 2),
        numbers([1, tokens, kvHeads, dim], 3),
      ];
      const stored = memories ? [numbers([3, kvHeads, 5, dim], 4), numbers([3, kvHeads, 5, dim], 5)] : [];
      const reading = {
        ...{ lengths: integers([5, 0, 3]), index: integers([0, 2, -1, 1, 2, 0], [1, 3, 2]) },
        ...{ start: 2, chunkLength: 8, gradient: true },
      };
      return withGradients(
        (q, k, v, keys, values) => {
          const memory = keys && values ? { keys, values, ...reading } : undefined;
          const { out, share } = attention(q!, k!, v!, memory);
          return memories ? [out, share] : [out];
        },
        [...context, ...stored],
      );
    };
    await expectAsNative(run);
  });

  it('chooses the same tokens as the native engine', async () => {
    const run = (): tf.Tensor[] => [selectTokens(numbers([2, 3, 17], 1) as tf.Tensor3D, 5)];
    expect(await valuesOn(cuda('bfloat16'), run)).toEqual(await valuesOn(NATIVE, run));
  });

  it.each(['float32', 'float16', 'bfloat16'] as const)('unpacks memories stored as %s', async (type) => {
    const layout = { memoryLayers: 2, kvHeads: 2, keptTokens: 3, headDim: 16 };
    const words = 2 * layout.memoryLayers * 2 * 3 * 16 * (type === 'float32' ? 1 : 0.5);
    const rows = Int32Array.from({ length: 3 * words }, (_, i) => 0x3a00_3b00 + (i % 97) * 0x0001_0003);
    const run = (): tf.Tensor[] => {
      const { keys, values } = unpackMemories(integers(rows, [3, words]) as tf.Tensor2D, { type, ...layout });
      return [...keys, ...values];
    };
    await expectAsNative(run);
  });
});

describeCuda('storage on the cuda engine', () => {
  beforeAll(async () => await open(cuda('bfloat16')));

  it('keeps activations in bfloat16 and everything else in float32', () =>
    tf.tidy(() => {
      const [x, weight] = [numbers([4, 8], 1), numbers([8, 8], 2)];
      const half = linear(x as tf.Tensor2D, weight as tf.Tensor2D);
      const types = (tensors: tf.Tensor[]): string[] => tensors.map((tensor) => backend().typeOf(tensor));
      expect(types([x, weight, half])).toEqual(['float32', 'float32', 'bfloat16']);
      expect(
        types([tf.add(half, half), tf.concat([half, half]), half.slice([0, 0], [2, 8]), half.reshape([-1])]),
      ).toEqual(Array(4).fill('bfloat16'));
      expect(types([tf.add(half, x), tf.concat([half, x]), tf.sum(half)])).toEqual(Array(3).fill('float32'));
      const gradients = tf.grads((a, b) => tf.sum(linear(a as tf.Tensor2D, b as tf.Tensor2D)))([x, weight]);
      expect(types(gradients)).toEqual(['bfloat16', 'float32']);
    }));

  it('appends to a store in place from the second time on', () => {
    const store = tf.fill([1, 8, 2, 4], 0) as tf.Tensor4D;
    const first = appendTokens(store, numbers([1, 3, 2, 4], 1) as tf.Tensor4D, 0);
    expect(backend().typeOf(first)).toBe('bfloat16');
    const second = appendTokens(first, numbers([1, 2, 2, 4], 2) as tf.Tensor4D, 3);
    expect(second.dataId).toBe(first.dataId);
    const expected = tf.concat([numbers([1, 3, 2, 4], 1), numbers([1, 2, 2, 4], 2), tf.zeros([1, 3, 2, 4])], 1);
    expect(second.dataSync()).toEqual(expected.dataSync());
    tf.dispose([store, first, second, expected]);
  });

  it('gives values to other engines and takes them from there', async () => {
    const x = numbers([5, 3], 1);
    const half = rmsNorm(x, tf.ones([3]), 1e-5);
    const values = half.dataSync();
    await open(NATIVE);
    const doubled = tf.add(half, half);
    expect(doubled.dataSync()).toEqual(values.map((value) => 2 * value));
    await open(cuda('bfloat16'));
    const again = tf.add(doubled, doubled);
    expect(again.dataSync()).toEqual(values.map((value) => 4 * value));
    tf.dispose([x, half, doubled, again]);
  });

  it('gives what a tensor held when it was asked, also when the tensor is gone', async () => {
    const x = tf.tensor1d([1, 2, 3]);
    const reading = x.data();
    x.dispose();
    tf.dispose(tf.tensor1d([7, 7, 7]));
    expect([...(await reading)]).toEqual([1, 2, 3]);
    await expect(tf.time(() => tf.dispose(tf.ones([3])))).resolves.toMatchObject({ kernelMs: expect.any(Number) });
  });
});
