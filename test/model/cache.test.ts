/** Decoding step by step gives what one pass over the whole text gives, also while the memories change by chunk. */

import { beforeAll, describe, expect, it } from 'vitest';
import { modelSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { KeyValueCache } from '../../src/model/cache.ts';
import { forward, type LayerMemories } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, type ModelShape } from '../../src/model/shape.ts';
import { PURPOSE, randomInt, randomNormals } from '../../src/random.ts';
import { ENGINES } from '../engines.ts';
import { relativeError } from './golden.ts';

const shape: ModelShape = {
  ...modelSchema.parse({
    ...{ numLayers: 3, hiddenSize: 16, numHeads: 4, kvHeads: 2, headDim: 6, mlpWidth: 20, memoryLayers: 2 },
    ...{ initStd: 0.4, embeddingStd: 1 },
  }),
  vocabSize: 40,
};
const BATCH = 2;
const PREFIX = 3;
const CHUNK = 4;
const TOKENS = PREFIX + 3 * CHUNK + 2;
const KEPT = 3;
/** What each chunk of each sequence reads; the last chunk is a short one. */
const INDEX = [
  [[-1, -1], [0, -1], [1, 0], [2, 1]],
  [[3, -1], [-1, -1], [3, 2], [0, 3]],
]; // biome-ignore format: one line a sequence

const ids = Array.from({ length: BATCH }, (_, b) =>
  Int32Array.from({ length: TOKENS }, (_, t) => randomInt(3, PURPOSE.test, b, t, shape.vocabSize)),
);
const positions = Int32Array.from({ length: TOKENS }, (_, t) => (t < PREFIX ? t : t + 10));

function makeMemories(): Omit<LayerMemories, 'index' | 'start'> {
  const make = (number: number) =>
    tf.tensor4d(randomNormals(5, PURPOSE.test, number, 4 * 2 * KEPT * 6), [4, 2, KEPT, 6]);
  const lengths = tf.tensor1d([3, 2, 3, 1], 'int32');
  return { keys: [make(1), make(2)], values: [make(3), make(4)], lengths, chunkLength: CHUNK, gradient: false };
}

describe.each(ENGINES)('KeyValueCache on %s', (engine) => {
  let model: Model;
  let memories: Omit<LayerMemories, 'index' | 'start'>;
  beforeAll(async () => {
    await openEngine(engine, 0, 'float32');
    model = new Model(shape, initParameters(shape, 9));
    memories = makeMemories();
  });

  /** Hidden states of the tokens [from, to) given those before in the cache. */
  function decode(
    cache: KeyValueCache,
    from: number,
    to: number,
    reading?: { index: number[][][]; start: number },
  ): Float32Array {
    return tf.tidy(() => {
      const read = reading && {
        ...memories,
        start: reading.start,
        index: tf.tensor3d(reading.index, undefined, 'int32'),
      };
      const part = ids.map((row) => row.subarray(from, to));
      const { hidden } = forward(model, { ids: part, positions: positions.subarray(from, to), memories: read, cache });
      return hidden.dataSync<'float32'>();
    });
  }

  function whole(reading?: { index: number[][][]; start: number }): Float32Array {
    return tf.tidy(() => {
      const read = reading && {
        ...memories,
        start: reading.start,
        index: tf.tensor3d(reading.index, undefined, 'int32'),
      };
      return forward(model, { ids, positions, memories: read }).hidden.dataSync<'float32'>();
    });
  }

  /** The rows [from, to) of every sequence. */
  function rows(hidden: Float32Array, from: number, to: number): number[] {
    const d = shape.hiddenSize;
    return ids.flatMap((_, b) => [...hidden.subarray((b * TOKENS + from) * d, (b * TOKENS + to) * d)]);
  }

  it('token by token without memories', () => {
    const expected = whole();
    const cache = new KeyValueCache();
    for (let t = 0; t < TOKENS; t++) {
      expect(cache.length).toBe(t);
      expect(relativeError(decode(cache, t, t + 1), rows(expected, t, t + 1))).toBeLessThan(1e-5);
    }
    cache.dispose();
  });

  it('prompt at once, then token by token, memories changing with the chunk', () => {
    const expected = whole({ index: INDEX, start: PREFIX });
    const cache = new KeyValueCache();
    // The prompt ends inside the second chunk.
    const prompt = PREFIX + CHUNK + 2;
    const promptIndex = INDEX.map((chunks) => chunks.slice(0, 2));
    expect(
      relativeError(decode(cache, 0, prompt, { index: promptIndex, start: PREFIX }), rows(expected, 0, prompt)),
    ).toBeLessThan(1e-5);
    for (let t = prompt; t < TOKENS; t++) {
      const chunk = Math.floor((t - PREFIX) / CHUNK);
      const index = INDEX.map((chunks) => [chunks[chunk]!]);
      expect(relativeError(decode(cache, t, t + 1, { index, start: 0 }), rows(expected, t, t + 1))).toBeLessThan(1e-5);
    }
    cache.dispose();
  });

  it('sees the memories: other memories give other hidden states', () => {
    const swapped = INDEX.map((chunks) =>
      chunks.map((slots) => slots.map((memory) => (memory < 0 ? memory : 3 - memory))),
    );
    const [a, b] = [whole({ index: INDEX, start: PREFIX }), whole({ index: swapped, start: PREFIX })];
    expect(relativeError(rows(a, 0, PREFIX), rows(b, 0, PREFIX))).toBe(0);
    expect(relativeError(rows(a, PREFIX, TOKENS), rows(b, PREFIX, TOKENS))).toBeGreaterThan(1e-2);
  });

  it('frees its tensors', () => {
    const before = tf.memory().numTensors;
    const cache = new KeyValueCache();
    for (let t = 0; t < 4; t++) decode(cache, t, t + 1);
    expect(tf.memory().numTensors).toBe(before + 2 * shape.numLayers);
    cache.dispose();
    expect(tf.memory().numTensors).toBe(before);
    expect(cache.length).toBe(0);
  });
});
