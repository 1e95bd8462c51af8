import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import {
  disposeMemories,
  memoryTensors,
  readingPositions,
  withPrefix,
  withPrefixIgnored,
} from '../../src/memory/reading.ts';
import type { StepMemories } from '../../src/memory/step_memories.ts';

beforeAll(() => openEngine('cpu', 1));

describe('reading', () => {
  it('places the text behind the interval that all memories share', () => {
    expect([...readingPositions(2, 3, 10)]).toEqual([0, 1, 12, 13, 14]);
    expect([...readingPositions(0, 2, 10, 5)]).toEqual([15, 16]);
  });

  it('puts the prefix before every row, and ignores it in the targets', () => {
    const rows = Int32Array.from([5, 6, 7, 8]);
    expect([...withPrefix(rows, Int32Array.from([1, 2]), 2)]).toEqual([1, 2, 5, 6, 1, 2, 7, 8]);
    expect([...withPrefixIgnored(rows, 1, 2)]).toEqual([-1, 5, 6, -1, 7, 8]);
  });

  it('makes tensors of the packed memories and frees them all', () => {
    const before = tf.memory().numTensors;
    const layout = { memoryLayers: 2, kvHeads: 2, keptTokens: 1, headDim: 2 };
    // Memory m holds keys 4m…, values 200 + 4m…, and 100 more in the second layer.
    const row = (m: number): number[] =>
      [0, 200, 100, 300].flatMap((from) => [0, 1, 2, 3].map((i) => from + 4 * m + i));
    const step: StepMemories = {
      ids: ['a', 'b'],
      count: 3,
      rows: new Int32Array(Float32Array.from([0, 1, 2].flatMap(row)).buffer),
      type: 'float32',
      lengths: Int32Array.from([1, 1, 0]),
      index: Int32Array.from([-1, -1, 0, -1, 1, 0, 1, -1]),
    };
    const memories = memoryTensors(step, { layout }, { chunkLength: 4, memoriesPerChunk: 2 }, 2, 7);
    expect(memories.keys[1]!.shape).toEqual([3, 2, 1, 2]);
    expect(memories.keys[1]!.arraySync()[1]).toEqual([[[104, 105]], [[106, 107]]]);
    expect(memories.values[0]!.arraySync()[2]).toEqual([[[208, 209]], [[210, 211]]]);
    expect((memories.index as tf.Tensor3D).arraySync()).toEqual([
      [
        [-1, -1],
        [0, -1],
      ],
      [
        [1, 0],
        [1, -1],
      ],
    ]);
    expect(memories).toMatchObject({ start: 7, chunkLength: 4, gradient: false });
    disposeMemories(memories);
    expect(tf.memory().numTensors).toBe(before);
  });
});
