/**
 * The memories of one training step as typed arrays, ready to become tensors.
 *
 * Legend: B sequences, C chunks, R memory slots of a chunk, M memories, W words of a stored memory.
 */

import type { StorageType } from '../ops/index.ts';
import type { Bank } from './bank.ts';

export interface StepMemories {
  /** Ids of the memories 0, 1, …; fewer than M when M was padded. */
  ids: string[];
  /** M: rows of the arrays below. */
  count: number;
  /** The memories as `unpackMemories` takes them, [M, W]; zeros for padding. */
  rows: Int32Array;
  /** The type of the numbers in the rows. */
  type: StorageType;
  /** Tokens of a memory that are real, [M]; 0 for padding. */
  lengths: Int32Array;
  /** Memory in each slot, [B, C, R]; −1: none. */
  index: Int32Array;
}

/** Where stored memories are read from. */
export type StoredMemories = Pick<Bank, 'format' | 'keptLength' | 'readStored'>;

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
  bank: StoredMemories,
  chunkIds: readonly (readonly (readonly string[])[])[],
  { memoriesPerChunk, padTo = 1 }: StepMemoryOptions,
): Promise<StepMemories> {
  const { ids, index } = slotIndex(chunkIds, memoriesPerChunk);
  const count = Math.max(1, Math.ceil(ids.length / padTo)) * padTo;
  const lengths = new Int32Array(count);
  ids.forEach((id, memory) => {
    lengths[memory] = bank.keptLength(id);
  });
  const { type, readBytes } = bank.format;
  const rows = new Uint8Array(count * readBytes);
  rows.set(await bank.format.read(await bank.readStored(ids)));
  return { ids, count, rows: new Int32Array(rows.buffer), type, lengths, index };
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
