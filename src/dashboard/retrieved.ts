/** By which chunks of training a memory was read. */

import type { Retrievals } from '../tracking/values.ts';
import type { MemoryDetail } from './api.ts';
import { type MediaPlace, readMedia } from './media.ts';

const MOST_CHUNKS = 50;

/** Where the rows lie that record which chunks read which memories, under one key. */
export interface RetrievalRecords {
  key: string;
  places: MediaPlace[];
}

/** @param within the resolved folder that the files must lie in */
export function retrievalsOf(
  within: string,
  id: string,
  records: readonly RetrievalRecords[],
): MemoryDetail['retrieved'] {
  const retrieved: MemoryDetail['retrieved'] = { count: 0, recordedChunks: 0, chunks: [] };
  for (const { key, places } of records) {
    for (const place of places) {
      const open = { key, from: Number.NEGATIVE_INFINITY, to: Number.POSITIVE_INFINITY };
      for (const { step, value } of readMedia(within, [place], open)) {
        addRetrievals(retrieved, step, value as Retrievals, id);
      }
    }
  }
  retrieved.chunks = retrieved.chunks.slice(-MOST_CHUNKS);
  return retrieved;
}

function addRetrievals(retrieved: MemoryDetail['retrieved'], step: number, { chunks }: Retrievals, id: string): void {
  for (const chunk of Array.isArray(chunks) ? chunks : []) {
    if (!Array.isArray(chunk?.memories)) continue;
    retrieved.recordedChunks += 1;
    const memory = chunk.memories.find((one) => one?.id === id);
    if (memory === undefined) continue;
    retrieved.count += 1;
    retrieved.chunks.push({
      step,
      text: String(chunk.text),
      ...(typeof memory.score === 'number' && { score: memory.score }),
    });
  }
}
