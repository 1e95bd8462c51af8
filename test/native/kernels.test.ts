/** Every fused kernel of the native engine against its portable composition, forward and backward. */

import { expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import {
  adamw,
  attention,
  crossEntropy,
  embedding,
  gatherTokens,
  globalNorm,
  linear,
  rmsNorm,
  rope,
  selectTokens,
  swiglu,
  tokenScores,
} from '../../src/ops/index.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import { addon, describeNative, expectAsComposed, int32, normals, withGradients } from './support.ts';

/** Odd sizes, sizes around those of vectors and blocks, and enough work for several threads. */
const MATRICES = [
  [1, 1],
  [3, 5],
  [17, 16],
  [65, 33],
  [130, 257],
] as const;

const ids = (count: number, below: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => (i * i * 7) % below);

describeNative('fused kernels of the native engine', () => {
  it.each(MATRICES)('embedding of width %i, %i tokens', (width, tokens) =>
    expectAsComposed(() =>
      withGradients((weight) => [embedding(int32(ids(tokens, 11)), weight!)], [normals([11, width], 1)]),
    ),
  );

  it.each(MATRICES)('rmsNorm [%i, %i]', (rows, width) =>
    expectAsComposed(() =>
      withGradients((x, weight) => [rmsNorm(x!, weight!, 1e-5)], [normals([rows, width], 1), normals([width], 2)]),
    ),
  );

  it('rmsNorm of zeros', () =>
    expectAsComposed(() =>
      withGradients((x, weight) => [rmsNorm(x!, weight!, 1e-5)], [tf.zeros([4, 20]), normals([20], 2)]),
    ));

  it('the gradient of rmsNorm of no rows is 0', async () => {
    await openEngine('native', 2);
    const [none, weight, dWeight] = [new Float32Array(), Float32Array.of(1, 2), Float32Array.of(7, 7)];
    addon().rmsNormGrad(none, weight, none, 1e-5, none, dWeight);
    addon().wait();
    expect(dWeight).toEqual(new Float32Array(2));
  });

  it.each([
    [1, 1, 1],
    [1, 40, 300],
    [5, 3, 2],
    [97, 33, 65],
    [256, 64, 128],
  ])('linear, %i rows, %i → %i', (rows, inputs, outputs) =>
    expectAsComposed(() =>
      withGradients((x, weight) => [linear(x!, weight!)], [normals([rows, inputs], 1), normals([outputs, inputs], 2)]),
    ),
  );

  it.each([
    { shape: [1, 1, 1, 2], positions: [0] },
    { shape: [2, 3, 3, 6], positions: [0, 7, 2047] },
    { shape: [3, 40, 4, 32], positions: Array.from({ length: 40 }, (_, i) => i + 100) },
  ])('rope $shape', ({ shape, positions }) =>
    expectAsComposed(() =>
      withGradients((x) => [rope(x as tf.Tensor4D, tf.tensor1d(positions, 'int32'), 10000)], [normals(shape, 1)]),
    ),
  );

  it.each(MATRICES)('swiglu [%i, %i]', (rows, width) =>
    expectAsComposed(() =>
      withGradients((gate, up) => [swiglu(gate!, up!)], [normals([rows, width], 1, 8), normals([rows, width], 2)]),
    ),
  );

  it('swiglu of very large and very small gates', () =>
    expectAsComposed(() =>
      withGradients(
        (gate, up) => [swiglu(gate!, up!)],
        [tf.tensor2d([[-200, -88, -30, 0, 30, 88, 200]]), tf.ones([1, 7])],
      ),
    ));

  it.each([
    { tokens: 1, width: 1, vocabulary: 2 },
    { tokens: 7, width: 5, vocabulary: 13 },
    { tokens: 130, width: 33, vocabulary: 65 },
    { tokens: 1030, width: 5, vocabulary: 33 }, // two blocks
  ])('crossEntropy, $tokens tokens, $vocabulary words', ({ tokens, width, vocabulary }) =>
    expectAsComposed(() => {
      const targets = ids(tokens, vocabulary).map((target, i) => (i % 5 === 3 ? -1 : target));
      const loss = (hidden?: tf.Tensor, weight?: tf.Tensor): tf.Tensor[] => {
        const { sum, losses } = crossEntropy(hidden!, weight!, int32(targets));
        return [sum, losses];
      };
      return withGradients(loss, [normals([tokens, width], 1), normals([vocabulary, width], 2)]);
    }),
  );

  it('crossEntropy of logits of ±1000, and of no target at all', async () => {
    const run = (targets: number[]) => () =>
      withGradients(
        (hidden, weight) => [crossEntropy(hidden!, weight!, int32(targets)).sum],
        [normals([3, 4], 1, 30), normals([9, 4], 2, 30)],
      );
    await expectAsComposed(run([0, 8, 4]));
    await expectAsComposed(run([-1, -1, -1]));
  });

  it.each(['softmax', 'exp'] as const)('tokenScores and selectTokens by %s', (rule) =>
    expectAsComposed(() => {
      const [q, k] = [normals([3, 37, 6, 5], 1), normals([3, 37, 2, 5], 2)];
      const scores = tokenScores(q, k, int32([37, 12, 3]), 4, rule);
      return [scores, selectTokens(scores, 9)];
    }),
  );

  it('selectTokens prefers the earlier of equal scores', () =>
    expectAsComposed(() => [selectTokens(tf.tensor3d([[[1, 2, 2, -1, 2, 1, 0, -1]]]), 4)]));

  it('gatherTokens, also of a token twice', () =>
    expectAsComposed(() => {
      const indices = int32(ids(2 * 3 * 5, 7), [2, 3, 5]);
      return withGradients((x) => [gatherTokens(x!, indices)], [normals([2, 7, 3, 5], 1)]);
    }));

  it.each([1, 100])('adamw, step %i', (step) =>
    expectAsComposed(() => {
      // Of many sizes, one longer than what is updated together.
      const updates = [[130, 257], [3], [], [7, 16]].map((shape, i) => ({
        parameter: normals(shape, 4 * i + 1),
        gradient: normals(shape, 4 * i + 2),
        m: normals(shape, 4 * i + 3),
        v: tf.square(normals(shape, 4 * i + 4)),
      }));
      const options = {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weightDecay: 0.1,
        step,
        gradScale: 0.3,
        inPlace: false,
      };
      return adamw(updates, options).flatMap(({ parameter, m, v }) => [parameter, m, v]);
    }),
  );

  it('globalNorm, also of what is not finite', async () => {
    await expectAsComposed(() => [globalNorm([normals([130, 257], 1), normals([3], 2), tf.scalar(5)])]);
    await openEngine('native', 2);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const [norm] = tf.tidy(() => globalNorm([tf.tensor1d([1, value, 1])]).dataSync());
      expect(norm).toBe(value);
    }
  });
});

interface Memory {
  kept: number;
  lengths: number[];
  /** `[C][R]`, the same for all sequences but turned by one memory each. */
  index: number[][];
  start: number;
  chunkLength: number;
}

interface Case {
  name: string;
  batch?: number;
  tokens: number;
  keyTokens?: number;
  heads: number;
  kvHeads: number;
  dim: number;
  memory?: Memory;
  /** Keys where a document begins, one list for each sequence; the lists are used in turn. */
  documents?: number[][];
}

const base = { tokens: 45, heads: 4, kvHeads: 2, dim: 16 };
const memory: Memory = {
  kept: 3,
  lengths: [3, 2, 0, 1, 3],
  index: [
    [0, 1, 2],
    [4, -1, 0],
    [3, 3, -1],
  ],
  start: 0,
  chunkLength: 16,
};

const CASES: Case[] = [
  { name: 'one token', tokens: 1, heads: 1, kvHeads: 1, dim: 1 },
  { name: 'several blocks', ...base, batch: 1, tokens: 133 },
  { name: 'odd everything', tokens: 37, heads: 3, kvHeads: 1, dim: 5 },
  { name: 'as many key-value heads as heads', ...base, kvHeads: 4 },
  { name: 'one key-value head', ...base, kvHeads: 1 },
  { name: 'eight heads a group', ...base, heads: 16 },
  { name: 'cache, one query', ...base, tokens: 1, keyTokens: 40 },
  { name: 'cache, some queries', ...base, tokens: 19, keyTokens: 40 },
  { name: 'memories', ...base, memory },
  { name: 'one slot', ...base, memory: { ...memory, index: [[0], [1], [-1]] } },
  { name: 'no slot filled', ...base, memory: { ...memory, index: [[-1], [-1], [-1]] } },
  { name: 'all lengths 0', ...base, memory: { ...memory, lengths: [0, 0, 0, 0, 0] } },
  { name: 'all memories full', ...base, memory: { ...memory, lengths: [3, 3, 3, 3, 3] } },
  { name: 'memories, start inside', ...base, memory: { ...memory, start: 7 } },
  { name: 'memories, start behind the text', ...base, memory: { ...memory, start: 45 } },
  { name: 'memories, text longer than the chunks', ...base, memory: { ...memory, chunkLength: 5 } },
  { name: 'memories, one chunk for all', ...base, memory: { ...memory, index: [[0, 3, 4]], chunkLength: 200 } },
  { name: 'memories, one key-value head', ...base, kvHeads: 1, memory },
  { name: 'memories, odd dimensions', tokens: 21, heads: 6, kvHeads: 2, dim: 7, memory: { ...memory, chunkLength: 7 } },
  { name: 'memories and cache, one query', ...base, tokens: 1, keyTokens: 30, memory },
  { name: 'memories and cache, some queries', ...base, tokens: 20, keyTokens: 30, memory: { ...memory, start: 3 } },
];

/** The first key that each query sees, int32 `[B, T]`. */
function firstVisible({ batch = 3, tokens, keyTokens = tokens, documents }: Omit<Case, 'name'>): tf.Tensor | undefined {
  if (!documents) return undefined;
  const values = Array.from({ length: batch * tokens }, (_, i) => {
    const key = (i % tokens) + keyTokens - tokens;
    const begins = documents[Math.floor(i / tokens) % documents.length]!;
    return Math.max(0, ...begins.filter((begin) => begin <= key));
  });
  return int32(values, [batch, tokens]);
}

function attend(shape: Case, gradient: boolean): tf.Tensor[] {
  const { batch = 3, tokens, keyTokens = tokens, heads, kvHeads, dim, memory } = shape;
  const reach = { firstVisible: firstVisible(shape) };
  const context = [batch, keyTokens, kvHeads, dim];
  const inputs = [normals([batch, tokens, heads, dim], 1, 2), normals(context, 2), normals(context, 3)];
  if (!memory) {
    return withGradients((q, k, v) => [attention(q!, k!, v!, undefined, reach).out], inputs);
  }
  const { kept, lengths, index, start, chunkLength } = memory;
  const size = [lengths.length, kvHeads, kept, dim];
  const [keys, values] = [normals(size, 4), normals(size, 5)];
  const turned = Array.from({ length: batch }, (_, b) =>
    index.flat().map((slot) => (slot < 0 ? slot : (slot + b) % lengths.length)),
  );
  const fixed = {
    ...{ lengths: int32(lengths), index: int32(turned.flat(), [batch, index.length, index[0]!.length]) },
    ...{ start, chunkLength, gradient },
  };
  const differentiable = gradient && start < tokens;
  return withGradients(
    (q, k, v, ...given) => {
      const read = { keys: given[0] ?? keys, values: given[1] ?? values, ...fixed };
      const { out, share } = attention(q!, k!, v!, read, reach);
      return [out, share];
    },
    differentiable ? [...inputs, keys, values] : inputs,
  );
}

const each = (length: number): number[] => Array.from({ length }, (_, i) => i);

/** Cuts at and around the borders of strips, panels and blocks, none, all, and random ones. */
const CUTS = [
  [],
  each(133),
  [11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 47, 48, 49, 95, 96, 97, 132],
  [48, 96],
  [17, 130],
];
const randomCuts = (seed: number): number[] =>
  each(133).filter((token) => randomInt(seed, PURPOSE.test, 0, token, 30) === 0);

const long = { ...base, batch: 2, tokens: 133, dim: 8 };
const DOCUMENT_CASES: Case[] = [
  ...CUTS.map((cuts, i) => ({ name: `cuts ${i}`, ...long, documents: [cuts, CUTS[2]!] })),
  ...[1, 2].map((seed) => ({ name: `random ${seed}`, ...long, documents: [randomCuts(seed), randomCuts(-seed)] })),
  { name: 'as many key-value heads as heads', ...long, kvHeads: 4, documents: CUTS.slice(2) },
  { name: 'eight heads a group, odd dimension', ...long, heads: 8, kvHeads: 1, dim: 5, documents: CUTS.slice(2) },
  { name: 'few queries', ...base, tokens: 6, documents: [[2, 3], [5], []] },
  { name: 'cache, one query', ...base, tokens: 1, keyTokens: 40, documents: [[17], [39], []] },
  { name: 'cache, some queries', ...base, tokens: 19, keyTokens: 40, documents: [[17, 30], [21, 22, 39], [5]] },
  { name: 'memories', ...long, memory: { ...memory, chunkLength: 48 }, documents: CUTS.slice(2) },
  {
    name: 'memories, start inside',
    ...long,
    memory: { ...memory, start: 7, chunkLength: 31 },
    documents: CUTS.slice(3),
  },
  { name: 'memories, random', ...long, memory, documents: [randomCuts(7), randomCuts(8)] },
];

describeNative("attention of the native engine to a token's own document", () => {
  it.each(DOCUMENT_CASES)('$name', (shape) => expectAsComposed(() => attend(shape, true)));

  /** Output and gradients of a sequence whose first document of `cut` tokens holds `fill` everywhere, from `cut` on. */
  function secondDocument(shape: Omit<Case, 'name'>, cut: number, fill?: number): Float32Array[] {
    const { tokens, heads, kvHeads, dim } = shape;
    return tf.tidy(() => {
      const inputs = [heads, kvHeads, kvHeads].map((count, i) => {
        const x = normals([1, tokens, count, dim], i + 1);
        const first = fill === undefined ? normals([1, cut, count, dim], 9) : tf.fill([1, cut, count, dim], fill);
        return tf.concat([first, x.slice([0, cut], [1, tokens - cut])], 1);
      });
      const reach = { firstVisible: firstVisible({ ...shape, batch: 1, documents: [[cut]] }) };
      const read = shape.memory && {
        ...{ keys: normals([5, kvHeads, 3, dim], 4), values: normals([5, kvHeads, 3, dim], 5), gradient: false },
        ...{ lengths: int32(shape.memory.lengths), index: int32(shape.memory.index.flat(), [1, 3, 3]) },
        ...{ start: shape.memory.start, chunkLength: shape.memory.chunkLength },
      };
      const results = withGradients((q, k, v) => [attention(q!, k!, v!, read, reach).out], inputs);
      return results.map((x) => Float32Array.from(x.slice([0, cut], [1, tokens - cut]).dataSync<'float32'>()));
    });
  }

  it.each([13, 48, 96, 97])('gives the same bits whatever the document before holds, cut at %i', async (cut) => {
    await openEngine('native', 2);
    expect(secondDocument(long, cut, 3)).toEqual(secondDocument(long, cut));
    const reading = { ...long, memory: { ...memory, chunkLength: 31 } };
    expect(secondDocument(reading, cut, 3)).toEqual(secondDocument(reading, cut));
  });

  it('does not read the tiles of the document before', async () => {
    await openEngine('native', 2);
    for (const memories of [undefined, { ...memory, chunkLength: 48 }]) {
      const found = secondDocument({ ...long, memory: memories }, 96, Number.NaN);
      expect(found).toEqual(secondDocument({ ...long, memory: memories }, 96, 0));
      for (const values of found) expect(values.every(Number.isFinite)).toBe(true);
    }
  });

  it.each([
    { name: 'behind its token', first: [0, 2, 2], says: 'does not see itself' },
    { name: 'falls', first: [0, 1, 0], says: 'falls' },
    { name: 'is negative', first: [-1, 0, 0], says: 'negative' },
    { name: 'has another size', first: [0, 0], says: '2 elements' },
  ])('refuses a first token that $name', async ({ first, says }) => {
    await openEngine('native', 1);
    tf.tidy(() => {
      const x = normals([1, 3, 1, 2], 1);
      expect(() => attention(x, x, x, undefined, { firstVisible: int32(first) }).out.dataSync()).toThrow(says);
    });
  });
});

describeNative('attention of the native engine', () => {
  it.each(CASES)('$name', (shape) => expectAsComposed(() => attend(shape, true)));

  it('gives no gradient to a bank', () => expectAsComposed(() => attend({ name: '', ...base, memory }, false)));

  it('gives exactly nothing to memories that nobody reads and to tokens beyond the length', async () => {
    await openEngine('native', 2);
    tf.tidy(() => {
      const unread = { ...memory, index: [[1]], lengths: [3, 2, 3, 3, 3], chunkLength: 45 };
      const [, , , , , dKeys, dValues] = attend({ name: '', ...base, batch: 1, memory: unread }, true);
      for (const gradient of [dKeys!, dValues!]) {
        const nonZero = Array.from(gradient.dataSync()).flatMap((value, i) => (value === 0 ? [] : [i]));
        const size = 3 * 16; // of a memory's head
        expect(nonZero.every((i) => Math.floor(i / size / 2) === 1 && i % size < 2 * 16)).toBe(true);
        expect(nonZero.length).toBe(2 * 2 * 16);
      }
    });
  });

  it('stays finite with scores of ±1000', () =>
    expectAsComposed(() => {
      const [q, k, v] = [normals([1, 20, 2, 16], 1, 100), normals([1, 20, 1, 16], 2, 3), normals([1, 20, 1, 16], 3)];
      return [attention(q!, k!, v!).out];
    }, 1e-4));
});
