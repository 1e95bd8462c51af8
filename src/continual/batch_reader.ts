/**
 * What a micro-batch of the continual stage reads, as typed arrays: its tokens and the memories of its chunks. A pure
 * function of configuration, data, bank version and place, so that it can be made in another thread and ahead of its step.
 *
 * Legend: B sequences, T tokens, C chunks, R memory slots of a chunk, N references, L tokens of the longest with its prefix.
 */

import type { RunConfig } from '../config/schema.ts';
import type { Batch } from '../data/batches.ts';
import type { Bank } from '../memory/bank.ts';
import { type ChunkMemories, chunkMemories, cutChunks, type Retriever } from '../memory/retrieve.ts';
import { type StepMemories, slotIndex, stepMemories } from '../memory/step_memories.ts';
import { padded } from '../memory/write.ts';
import { type TextBatches, timed } from '../train/text_batches.ts';

/** Memories kept in RAM. */
export const CACHE_BYTES = 256 * 2 ** 20;

/** Which micro-batch: steps from 1, micro-batches and validation batches from 0. */
export type Place = { kind: 'training'; step: number; micro: number } | { kind: 'validation'; batch: number };

/** References that the step itself encodes (`memories: online`). */
export interface OnlineTexts {
  /** Prefix and reference tokens, [N, L], padded at the end; N = 0 when no chunk found any. */
  ids: Int32Array;
  /** Tokens of each row, prefix included. */
  lengths: number[];
  /** Reference in each slot, [B, C, R]; −1: none. */
  index: Int32Array;
}

/** How the memories of a batch were found, for the record. */
export interface FoundMemories {
  /** Ids of the memories 0, 1, … of the slots. */
  ids: string[];
  /** Similarity of the memory that each chunk found itself, which stands in its first slot, [B · C]; NaN: it found none. */
  scores: Float32Array;
  /** Candidates passed over because they overlap their sequence too much. */
  excluded: number;
}

export interface Reading extends Pick<Batch, 'ids' | 'targets'> {
  /** One of the two, as `continual.memories` says. */
  stored?: StepMemories;
  online?: OnlineTexts;
  found: FoundMemories;
  /** Milliseconds that reading tokens, and searching and reading memories took. */
  dataMs: number;
  retrievalMs: number;
}

/** A version of the bank, opened to be searched and read. */
export interface OpenVersion {
  bank: Bank;
  retriever: Retriever;
}

/** Finds and reads the memories of micro-batches. */
export class BatchReader {
  private readonly config: RunConfig;
  private readonly text: TextBatches;
  private readonly prefix: Int32Array;

  /**
   * @param text of the steps with memories
   * @param prefix token ids of `<s>Reference:`
   */
  constructor(config: RunConfig, text: TextBatches, prefix: Int32Array) {
    this.config = config;
    this.text = text;
    this.prefix = prefix;
  }

  /** @throws UserError of a damaged dataset or bank, naming the file */
  async read(place: Place, version: OpenVersion): Promise<Reading> {
    const data = await timed(() => this.tokens(place));
    const { ids, targets } = data.value;
    const memories = await timed(() => this.memories(place, ids, version));
    return { ids, targets, ...memories.value, dataMs: data.ms, retrievalMs: memories.ms };
  }

  private tokens(place: Place): Promise<Batch> {
    if (place.kind === 'validation') return this.text.validating(place.batch);
    return this.text.training(place.step, place.micro);
  }

  private async memories(
    { kind }: Place,
    ids: Int32Array,
    { bank, retriever }: OpenVersion,
  ): Promise<Pick<Reading, 'stored' | 'online' | 'found'>> {
    const { retrieval, memory, continual } = this.config;
    const { overlapThreshold, evaluationOverlapThreshold } = retrieval;
    const chunks = await chunkMemories(
      cutChunks(ids, this.text.sequenceLength),
      {
        ...{ ...retrieval, ...memory },
        overlapThreshold: kind === 'training' ? overlapThreshold : evaluationOverlapThreshold,
      },
      retriever,
    );
    const slots = chunks.map((sequence) => sequence.chunks);
    const { memoriesPerChunk } = memory;
    if (continual.memories === 'bank') {
      const stored = await stepMemories(bank, slots, { memoriesPerChunk });
      return { stored, found: foundMemories(chunks, stored.ids) };
    }
    const { ids: read, index } = slotIndex(slots, memoriesPerChunk);
    const found = foundMemories(chunks, read);
    if (read.length === 0) return { online: { ids: new Int32Array(0), lengths: [], index }, found };
    const texts = read.map((id) => bank.tokens(id));
    return { online: { ...padded(texts, this.prefix), index }, found };
  }
}

function foundMemories(chunks: readonly ChunkMemories[], ids: string[]): FoundMemories {
  const scores = chunks.flatMap(({ own }) => own.map((found) => found?.score ?? Number.NaN));
  const excluded = chunks.reduce((sum, sequence) => sum + sequence.excluded, 0);
  return { ids, scores: Float32Array.from(scores), excluded };
}
