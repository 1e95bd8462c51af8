/**
 * What the model is given to read memories: the text behind the shared interval of positions, and the memories of its
 * chunks (paper §3.1).
 *
 * Legend: B sequences, T text tokens, p prefix tokens (`<s>Reference:`), C chunks, R memory slots of a chunk.
 */

import type { MemoryConfig } from '../config/schema.ts';
import * as tf from '../engine/tf.ts';
import type { LayerMemories } from '../model/forward.ts';
import { unpackMemories } from '../ops/index.ts';
import type { BankIdentity } from './layout.ts';
import type { StepMemories } from './step_memories.ts';

/**
 * Positions of prefix and text, `[p + T]`: the prefix from 0, then the interval that all memories share, then the text.
 * @param first position of the first text token within the text, above 0 when decoding goes on
 */
export function readingPositions(
  prefixLength: number,
  textLength: number,
  referenceTokens: number,
  first = 0,
): Int32Array {
  const positions = new Int32Array(prefixLength + textLength);
  for (let i = 0; i < prefixLength; i++) positions[i] = i;
  const offset = textPosition(prefixLength, referenceTokens) + first;
  for (let i = 0; i < textLength; i++) positions[prefixLength + i] = offset + i;
  return positions;
}

/** Position of the first text token when memories are read. */
export function textPosition(prefixLength: number, referenceTokens: number): number {
  return prefixLength + referenceTokens;
}

/** Each row of `flat` `[B, T]` behind `prefix`: `[B, p + T]`. */
export function withPrefix(flat: Int32Array, prefix: Int32Array, textLength: number): Int32Array {
  const width = prefix.length + textLength;
  const out = new Int32Array((flat.length / textLength) * width);
  for (let row = 0; row * textLength < flat.length; row++) {
    out.set(prefix, row * width);
    out.set(flat.subarray(row * textLength, (row + 1) * textLength), row * width + prefix.length);
  }
  return out;
}

/** The targets of `withPrefix`: the prefix is given, not learned. */
export function withPrefixIgnored(targets: Int32Array, prefixLength: number, textLength: number): Int32Array {
  return withPrefix(targets, new Int32Array(prefixLength).fill(-1), textLength);
}

/** Shape of the stored memories of a step, `[M, W]`. */
export function rowsShape({ rows, count }: StepMemories): [memories: number, words: number] {
  return [count, rows.length / count];
}

/** The stored memories of a step on the engine, as `unpackMemories` takes them. */
export function rowsTensor(step: StepMemories): tf.Tensor2D {
  return tf.tensor2d(step.rows, rowsShape(step), 'int32');
}

/**
 * Puts the memories of a step on the engine. The tensors belong to the caller; see `disposeMemories`.
 * @param start first token that belongs to a chunk, p when the prefix stands in front
 * @param rows the rows of `step` where they are on the engine already; freed here
 */
export function memoryTensors(
  step: StepMemories,
  { layout }: Pick<BankIdentity, 'layout'>,
  memory: Pick<MemoryConfig, 'chunkLength' | 'memoriesPerChunk'>,
  sequences: number,
  start: number,
  rows = rowsTensor(step),
): LayerMemories {
  const { keys, values } = unpackMemories(rows, { type: step.type, ...layout });
  rows.dispose();
  return {
    keys,
    values,
    lengths: tf.tensor1d(step.lengths, 'int32'),
    index: slotTensor(step.index, sequences, memory.memoriesPerChunk),
    start,
    chunkLength: memory.chunkLength,
    gradient: false,
  };
}

/** The slots `[B, C, R]` of `slotIndex` on the engine. */
export function slotTensor(index: Int32Array, sequences: number, slots: number): tf.Tensor3D {
  return tf.tensor3d(index, [sequences, index.length / (sequences * slots), slots], 'int32');
}

/** Frees what `memoryTensors` made. */
export function disposeMemories({ keys, values, lengths, index }: LayerMemories): void {
  tf.dispose([...keys, ...values, lengths, index]);
}
