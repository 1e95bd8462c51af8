/** Kernels stay inside their arrays and write all of what they give; what is broken in the input shows in the output. */

import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import type { NativeAddon, TensorValues } from '../../src/engine/native/addon.ts';
import type { NativeBackend } from '../../src/engine/native/backend.ts';
import * as tf from '../../src/engine/tf.ts';
import { KeyValueCache } from '../../src/model/cache.ts';
import { encodeReferences } from '../../src/model/encode.ts';
import { forward, logits } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters } from '../../src/model/shape.ts';
import { lossAndGradients } from '../../src/model/training.ts';
import { attention, crossEntropy, globalNorm, rmsNorm, swiglu, unpackMemories } from '../../src/ops/index.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import { describeNative, int32, normals } from './support.ts';

const GUARD = 24;
const MARK = 0x5a;

/** Runs every kernel on copies of its arrays that have marks before and behind them. */
function guardedAddon(addon: NativeAddon, broken: Set<string>): NativeAddon {
  const call = (name: string, args: unknown[]): unknown => {
    // Values that are written while something is being read come to the array behind that.
    addon.wait();
    const marked: { array: TensorValues; bytes: Uint8Array }[] = [];
    const guard = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(guard);
      if (!ArrayBuffer.isView(value)) return value;
      const array = value as TensorValues;
      const bytes = new Uint8Array(array.byteLength + 2 * GUARD).fill(MARK);
      const Type = array.constructor as Float32ArrayConstructor;
      const copy = new Type(bytes.buffer, GUARD, array.length);
      copy.set(array);
      marked.push({ array, bytes });
      return copy;
    };
    (addon[name as keyof NativeAddon] as (...given: unknown[]) => unknown)(...args.map(guard));
    addon.wait();
    for (const { array, bytes } of marked) {
      array.set(new (array.constructor as Float32ArrayConstructor)(bytes.buffer, GUARD, array.length));
      const marks = [...bytes.subarray(0, GUARD), ...bytes.subarray(-GUARD)];
      if (marks.some((byte) => byte !== MARK)) broken.add(name);
    }
    return undefined;
  };
  const own = new Set([
    'setThreads',
    'alignment',
    'read',
    'write',
    'wait',
    'close',
    'describe',
    'added',
    'done',
    'takeProfile',
  ]);
  return new Proxy(addon, {
    get: (target, name: string) =>
      own.has(name) ? Reflect.get(target, name) : (...args: unknown[]) => call(name, args),
  });
}

/** Sizes that no vector, tile or block divides. */
const SHAPE = {
  ...{ numLayers: 2, hiddenSize: 35, numHeads: 6, kvHeads: 2, headDim: 10, mlpWidth: 37, memoryLayers: 2 },
  init: 'depth' as const,
  ...{ vocabSize: 131, ropeTheta: 10000, normEpsilon: 1e-5, tieEmbeddings: false, initStd: 0.1, embeddingStd: 1 },
};
const [BATCH, TOKENS] = [3, 53];
const count = (length: number, first = 0): Int32Array => Int32Array.from({ length }, (_, i) => first + i);

/** Training with memories from outside and from inside, compiling, decoding: all kernels. */
async function everything(): Promise<number[]> {
  const model = new Model(SHAPE, initParameters(SHAPE, 1));
  const optimizer = new AdamW(model.parameters, {
    ...{ beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weightDecay: 0.05, clipNorm: 1 },
  });
  const ids = Int32Array.from({ length: BATCH * TOKENS }, (_, i) => (i * i * 31) % SHAPE.vocabSize);
  const text = { ids, targets: ids, positions: count(TOKENS) };
  const reading = { start: 2, chunkLength: 19 };
  const index = () =>
    tf.tensor3d(
      Int32Array.from({ length: BATCH * 9 }, (_, i) => (i % 5) - 1),
      [BATCH, 3, 3],
      'int32',
    );
  const rule = { prefixLength: 2, keptTokens: 5, tokenScores: 'softmax' as const };
  const references = { ids: ids.subarray(0, 4 * 13), lengths: [13, 4, 2, 9], ...rule };
  const separate = { firstVisible: ids.map((_, i) => Math.floor((i % TOKENS) / 17) * 17) };
  const results: number[] = [];

  const encoded = encodeReferences(model, references.ids, references.lengths, rule);
  const memories = {
    ...{ keys: encoded.keys, values: encoded.values, lengths: tf.tensor1d(encoded.keptLengths, 'int32') },
    ...{ index: index(), gradient: false, ...reading },
  };
  for (const given of [
    { memories },
    { onlineReferences: { ...references, index: index(), ...reading } },
    {},
    separate,
  ]) {
    const { lossSum, count: tokens, gradients } = await lossAndGradients(model, { ...text, ...given });
    const { gradientNorm } = await clipAndUpdate(optimizer, gradients, { learningRate: 1e-2, clipNorm: 1, tokens });
    results.push(lossSum, gradientNorm);
    disposeGradients(gradients);
  }
  const cache = new KeyValueCache();
  for (const [from, length] of [
    [0, 7],
    [7, 1],
    [8, 1],
  ] as const) {
    const { hidden } = forward(model, { ids: count(BATCH * length), positions: count(length, from), memories, cache });
    const scores = logits(model, hidden);
    results.push(...(await scores.data()), ...(await tf.argMax(scores, 1).data()));
  }
  cache.dispose();
  for (const [type, words] of [
    ['float32', 150],
    ['float16', 75],
    ['bfloat16', 75],
  ] as const) {
    const stored = tf.tensor2d(count(7 * words, 0x3a00_3b00), [7, words], 'int32');
    const layout = { memoryLayers: 1, kvHeads: 3, keptTokens: 5, headDim: 5 };
    const { keys, values } = unpackMemories(stored, { type, ...layout });
    results.push(...(await keys[0]!.data()), ...(await values[0]!.data()));
  }
  for (const weights of (await model.weights()).values()) results.push(...weights);
  return results;
}

describeNative('guards', () => {
  beforeAll(async () => {
    await openEngine('native', 2);
  });

  it('no kernel writes outside of its arrays, nor leaves anything of them unwritten', async () => {
    const backend = tf.backend() as NativeBackend & { addon: NativeAddon };
    const { addon } = backend;
    const expected = await everything();
    expect(expected.every(Number.isFinite)).toBe(true);
    const broken = new Set<string>();
    const create = backend.create.bind(backend);
    backend.addon = guardedAddon(addon, broken);
    backend.create = (shape, dtype) => {
      const tensor = create(shape, dtype);
      // What is not written stays not a number.
      addon.fill(dtype === 'int32' ? -1 : Number.NaN, backend.values(tensor));
      return tensor;
    };
    try {
      expect(await everything()).toEqual(expected);
    } finally {
      backend.addon = addon;
      backend.create = create;
    }
    expect([...broken]).toEqual([]);
  });

  it.each([
    { name: 'attention', run: (x: tf.Tensor) => attention(x, x, x).out },
    { name: 'RMSNorm', run: (x: tf.Tensor) => rmsNorm(x.reshape([-1, 4]), tf.ones([4]), 1e-5) },
    { name: 'SwiGLU', run: (x: tf.Tensor) => swiglu(x, x) },
    { name: 'global norm', run: (x: tf.Tensor) => globalNorm([x]) },
    {
      name: 'loss',
      run: (x: tf.Tensor) => crossEntropy(x.reshape([-1, 4]), tf.ones([9, 4]), int32(new Int32Array(40))).sum,
    },
  ])('$name does not hide what is not a number', ({ run }) => {
    tf.tidy(() => {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const values = normals([1, 20, 2, 4], 7).dataSync<'float32'>();
        expect(
          run(tf.tensor4d(values, [1, 20, 2, 4]))
            .dataSync()
            .every(Number.isFinite),
        ).toBe(true);
        values[37] = bad;
        expect(
          run(tf.tensor4d(values, [1, 20, 2, 4]))
            .dataSync()
            .every(Number.isFinite),
        ).toBe(false);
      }
    });
  });
});
