/**
 * Stored memories as keys and values. Legend: M memories, W words of a stored memory, Lmem memory layers, K key-value heads,
 * S kept tokens, D headDim.
 */

import * as tf from '../engine/tf.ts';
import { type HalfType, unpackHalf } from './half.ts';
import { defineKernel } from './kernel.ts';

/** How the numbers of a memory are stored. */
export type StorageType = 'float32' | HalfType;

type Attributes = { type: StorageType; memoryLayers: number; kvHeads: number; keptTokens: number; headDim: number };

const unpack = defineKernel<{ rows: tf.Tensor }, Attributes>({
  name: 'UnpackMemories',
  forward: ({ rows }, { type, memoryLayers, ...part }) => {
    const words = rows.dataSync<'int32'>();
    const { buffer, byteOffset, byteLength } = words;
    const numbers =
      type === 'float32'
        ? new Float32Array(buffer, byteOffset, words.length)
        : unpackHalf(new Uint16Array(buffer, byteOffset, byteLength / 2), type);
    const all = tf.tensor3d(numbers, [rows.shape[0]!, 2 * memoryLayers, part.kvHeads * part.keptTokens * part.headDim]);
    return tf
      .unstack(all, 1)
      .map((layer) => layer.reshape([rows.shape[0]!, part.kvHeads, part.keptTokens, part.headDim]));
  },
});

/**
 * Splits memories into the keys and values of each layer and brings their numbers to float32. No gradient.
 * @param rows the bytes of stored memories as int32 words `[M, W]`, each memory in the order Lmem, keys and values, K, S, D
 * @returns keys and values of each memory layer, `[M, K, S, D]`
 */
export function unpackMemories(
  rows: tf.Tensor2D,
  attributes: Attributes,
): { keys: tf.Tensor4D[]; values: tf.Tensor4D[] } {
  const parts = unpack({ rows }, attributes) as tf.Tensor4D[];
  return { keys: parts.filter((_, i) => i % 2 === 0), values: parts.filter((_, i) => i % 2 === 1) };
}
