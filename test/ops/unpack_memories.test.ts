import { expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { packHalf, unpackHalf } from '../../src/ops/half.ts';
import { type StorageType, unpackMemories } from '../../src/ops/unpack_memories.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { onEachBackend } from './support.ts';

/** The stored bytes of `numbers` as words, and the float32 values that they stand for. */
function stored(numbers: Float32Array, type: StorageType): { words: Int32Array; values: Float32Array } {
  if (type === 'float32') return { words: new Int32Array(numbers.buffer), values: numbers };
  const halves = packHalf(numbers, type);
  return { words: new Int32Array(halves.buffer), values: unpackHalf(halves, type) };
}

onEachBackend('unpackMemories', () => {
  it.each([
    { type: 'float32', memories: 1, layout: { memoryLayers: 1, kvHeads: 1, keptTokens: 1, headDim: 2 } },
    { type: 'float16', memories: 3, layout: { memoryLayers: 2, kvHeads: 3, keptTokens: 5, headDim: 6 } },
    { type: 'bfloat16', memories: 7, layout: { memoryLayers: 3, kvHeads: 1, keptTokens: 3, headDim: 10 } },
    { type: 'float32', memories: 5, layout: { memoryLayers: 2, kvHeads: 2, keptTokens: 4, headDim: 16 } },
  ] as const)('splits $memories memories of $type, $layout', ({ type, memories, layout }) => {
    const part = layout.kvHeads * layout.keptTokens * layout.headDim;
    const width = 2 * layout.memoryLayers * part;
    const { words, values } = stored(randomNormals(3, PURPOSE.test, 0, memories * width), type);
    const before = tf.memory().numTensors;
    const rows = tf.tensor2d(words, [memories, words.length / memories], 'int32');
    const { keys, values: memoryValues } = unpackMemories(rows, { type, ...layout });
    for (let layer = 0; layer < layout.memoryLayers; layer++) {
      for (const [keyOrValue, tensor] of [keys[layer]!, memoryValues[layer]!].entries()) {
        expect(tensor.shape).toEqual([memories, layout.kvHeads, layout.keptTokens, layout.headDim]);
        const expected = Array.from({ length: memories }, (_, memory) => {
          const start = memory * width + (2 * layer + keyOrValue) * part;
          return Array.from(values.subarray(start, start + part));
        });
        expect(Array.from(tensor.dataSync())).toEqual(expected.flat());
      }
    }
    tf.dispose([rows, ...keys, ...memoryValues]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it.each(['float16', 'bfloat16'] as const)('reads every %s number exactly', (type) => {
    const halves = Uint16Array.from({ length: 65_536 }, (_, half) => half);
    const rows = tf.tensor2d(new Int32Array(halves.buffer), [16, 2048], 'int32');
    const layout = { memoryLayers: 1, kvHeads: 2, keptTokens: 4, headDim: 256 };
    const { keys, values } = unpackMemories(rows, { type, ...layout });
    const expected = unpackHalf(halves, type);
    const [read, alsoRead] = [keys[0]!.dataSync(), values[0]!.dataSync()];
    const wrong: number[] = [];
    for (let memory = 0; memory < 16; memory++) {
      const at = memory * 4096;
      for (let i = 0; i < 2048; i++) {
        if (!Object.is(read[memory * 2048 + i], expected[at + i])) wrong.push(at + i);
        if (!Object.is(alsoRead[memory * 2048 + i], expected[at + 2048 + i])) wrong.push(at + 2048 + i);
      }
    }
    expect(wrong).toEqual([]);
    tf.dispose([rows, ...keys, ...values]);
  });
});
