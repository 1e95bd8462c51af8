/**
 * The memories of one training step as typed arrays, ready to become tensors.
 *
 * Legend: B sequences, C chunks, R memory slots of a chunk, M memories, K key-value heads, S kept tokens, D head dimension.
 */

import type { Bank } from './bank.ts';
import { type MemoryLayout, rowLength } from './layout.ts';

export interface StepMemories {
  /** Ids of the memories 0, 1, …; fewer than M when M was padded. */
  ids: string[];
  /** M: rows of the arrays below. */
  count: number;
  /** Keys of each memory layer, [M, K, S, D]. */
  keys: Float32Array[];
  /** Values of each memory layer, [M, K, S, D]. */
  values: Float32Array[];
  /** Tokens of a memory that are real, [M]; 0 for padding. */
  lengths: Int32Array;
  /** Memory in each slot, [B, C, R]; −1: none. */
  index: Int32Array;
}

export interface StepMemoryOptions {
  /** Slots of a chunk, R. */
  memoriesPerChunk: number;
  /** M is a multiple of this (and at least this), so that few shapes occur. Default 1. */
  padTo?: number;
}

/**
 * Reads each memory of a batch once and packs it.
 * @param chunkIds ids that each chunk reads, [B][C][≤ R], as `chunkMemories` gives them
 * @throws UserError memory_unknown, file_corrupt, file_truncated
 */
export async function stepMemories(
  bank: Bank,
  chunkIds: readonly (readonly (readonly string[])[])[],
  { memoriesPerChunk, padTo = 1 }: StepMemoryOptions,
): Promise<StepMemories> {
  const { ids, index } = slotIndex(chunkIds, memoriesPerChunk);
  const count = Math.max(1, Math.ceil(ids.length / padTo)) * padTo;
  const lengths = new Int32Array(count);
  ids.forEach((id, memory) => {
    lengths[memory] = bank.keptLength(id);
  });
  return { ids, count, ...splitLayers(await bank.readRows(ids), bank.identity.layout, count), lengths, index };
}

/** Numbers the ids in the order in which they first occur and writes the numbers into the slots, [B, C, R]. */
export function slotIndex(
  chunkIds: readonly (readonly (readonly string[])[])[],
  slots: number,
): { ids: string[]; index: Int32Array } {
  const chunksPerSequence = chunkIds[0]?.length ?? 0;
  const numbers = new Map<string, number>();
  const index = new Int32Array(chunkIds.length * chunksPerSequence * slots).fill(-1);
  chunkIds.forEach((sequence, b) => {
    if (sequence.length !== chunksPerSequence) throw new RangeError('the sequences have different numbers of chunks');
    sequence.forEach((ids, c) => {
      if (ids.length > slots) throw new RangeError(`a chunk reads ${ids.length} memories, there are ${slots} slots`);
      ids.forEach((id, r) => {
        const number = numbers.get(id) ?? numbers.size;
        numbers.set(id, number);
        index[(b * chunksPerSequence + c) * slots + r] = number;
      });
    });
  });
  return { ids: [...numbers.keys()], index };
}

/** Rows [n, Lmem, 2, K, S, D] as keys and values of each layer, [count, K, S, D] with zeros from n on. */
function splitLayers(rows: Float32Array, layout: MemoryLayout, count: number): Pick<StepMemories, 'keys' | 'values'> {
  const width = rowLength(layout);
  const part = layout.kvHeads * layout.keptTokens * layout.headDim;
  const pick = (layer: number, keyOrValue: 0 | 1): Float32Array => {
    const out = new Float32Array(count * part);
    for (let memory = 0; memory * width < rows.length; memory++) {
      const start = memory * width + (2 * layer + keyOrValue) * part;
      out.set(rows.subarray(start, start + part), memory * part);
    }
    return out;
  };
  const layers = Array.from({ length: layout.memoryLayers }, (_, layer) => layer);
  return { keys: layers.map((layer) => pick(layer, 0)), values: layers.map((layer) => pick(layer, 1)) };
}
