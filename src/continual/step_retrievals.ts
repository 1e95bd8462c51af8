/**
 * What the chunks of a step found in the bank, over its micro-batches, for the record.
 *
 * Legend: B sequences, C chunks, R memory slots of a chunk.
 */

import type { RunConfig } from '../config/schema.ts';
import { cutChunks } from '../memory/retrieve.ts';
import type { Retrievals } from '../tracking/values.ts';
import type { FoundMemories, Reading } from './batch_reader.ts';

interface Part {
  /** Token ids of the text, [B · T]. */
  ids: Int32Array;
  found: FoundMemories;
  /** Number of the memory in each slot, [B, C, R]; −1: none. */
  index: Int32Array;
}

export class StepRetrievals {
  private readonly parts: Part[] = [];

  /** Takes what is needed of a reading; its rows are not kept. */
  add({ ids, found, stored, online }: Reading): void {
    this.parts.push({ ids, found, index: stored?.index ?? online!.index });
  }

  /** True when no micro-batch of the step read memories. */
  get isEmpty(): boolean {
    return this.parts.length === 0;
  }

  numbers(): Record<string, number> {
    const scores = this.parts.flatMap(({ found }) => Array.from(found.scores).filter((score) => !Number.isNaN(score)));
    const sum = scores.reduce((total, score) => total + score, 0);
    return {
      ...(scores.length > 0 && { 'memory/retrieval_score': sum / scores.length }),
      'memory/retrieved': new Set(this.parts.flatMap(({ found }) => found.ids)).size,
      'memory/excluded': this.parts.reduce((total, { found }) => total + found.excluded, 0),
    };
  }

  /** The first `count` chunks of the step with the memories that they read. */
  async chunks(
    count: number,
    { data, memory }: Pick<RunConfig, 'data' | 'memory'>,
    decode: (ids: Int32Array) => Promise<string>,
  ): Promise<Retrievals['chunks']> {
    const slots = memory.memoriesPerChunk;
    const all: { text: Int32Array; memories: Retrievals['chunks'][number]['memories'] }[] = [];
    for (const { ids, found, index } of this.parts) {
      const texts = cutChunks(ids, data.sequenceLength).flatMap((sequence) => cutChunks(sequence, memory.chunkLength));
      for (const [chunk, text] of texts.slice(0, count - all.length).entries()) {
        const read = index.subarray(chunk * slots, (chunk + 1) * slots);
        all.push({ text, memories: memoriesOf(read, found, found.scores[chunk]!) });
      }
    }
    return await Promise.all(all.map(async ({ text, memories }) => ({ text: await decode(text), memories })));
  }
}

/** @param score of the first; NaN when all were found by the chunks before */
function memoriesOf(read: Int32Array, { ids }: FoundMemories, score: number): Retrievals['chunks'][number]['memories'] {
  return Array.from(
    read.filter((number) => number >= 0),
    (number, slot) => {
      const id = ids[number]!;
      return slot === 0 && !Number.isNaN(score) ? { id, score: Number(score.toPrecision(6)) } : { id };
    },
  );
}
