/**
 * Which memories the chunks of a text read.
 *
 * Legend: B sequences, T tokens of a sequence, C = ⌈T / chunkLength⌉ chunks, R memories a chunk reads at most.
 */

import type { MemoryConfig, RetrievalConfig } from '../config/schema.ts';
import type { Bank } from './bank.ts';
import { BankIndex } from './bank_index.ts';
import type { RetrievalEncoder } from './encoders/encoder.ts';
import type { LexicalEncoder } from './encoders/lexical.ts';
import type { VectorIndex } from './index.ts';
import { exceeds } from './overlap.ts';
import { exhaustiveIndex, SparseIndex } from './sparse_index.ts';

/** A memory that was found, with its cosine similarity to the query. */
export interface Found {
  id: string;
  score: number;
}

/** Something that finds memories; `Retriever` is the real one. */
export interface MemorySearch {
  /** For each chunk of token ids at most `count` memories, nearest first. */
  search(chunks: readonly Int32Array[], count: number): Promise<Found[][]>;
  /** Token ids of the reference that the memory was written from. */
  tokens(id: string): Int32Array;
}

/** Memories found by their vectors that are scored again, when the encoder does so. */
const RESCORED = 64;

/** Search over the references of a bank version, or over references that are not written yet. */
export class Retriever implements MemorySearch {
  #encoder: RetrievalEncoder;
  #index: VectorIndex;
  /** Finds most of the memories when the bank has such an index; the others are in `#index`. */
  #large: BankIndex | undefined;
  #ids: string[] = [];
  /** Where an encoder that scores again reads the memories. */
  #bank: Bank | undefined;
  #size: number | undefined;
  #tokens: (id: string) => Int32Array;

  private constructor(encoder: RetrievalEncoder, index: VectorIndex, tokens: (id: string) => Int32Array) {
    this.#encoder = encoder;
    this.#index = index;
    this.#tokens = tokens;
  }

  /**
   * Loads the index of a bank version, and the vectors that it does not cover, into memory. A retriever belongs to its
   * version: make a new one after a growth, and close this one.
   * @throws UserError file_corrupt or file_truncated, naming the file
   */
  static async fromBank(bank: Bank, encoder: RetrievalEncoder): Promise<Retriever> {
    const retriever = new Retriever(encoder, exhaustiveIndex(bank.identity.encoder), (id) => bank.tokens(id));
    retriever.#bank = bank;
    retriever.#large = await BankIndex.open(bank);
    const covered = retriever.#large?.segments;
    for await (const { ids, vectors } of bank.vectors(covered)) retriever.#add(ids, vectors);
    retriever.#size = bank.size;
    return retriever;
  }

  /** Encodes references by their tokens alone: for training that writes memories in the step (`memories: online`). */
  static async fromReferences(
    references: AsyncIterable<{ id: string; tokens: Int32Array }> | Iterable<{ id: string; tokens: Int32Array }>,
    encoder: LexicalEncoder,
  ): Promise<Retriever> {
    const texts = new Map<string, Int32Array>();
    const index = new SparseIndex(encoder.dimensions);
    const retriever = new Retriever(encoder, index, (id) => texts.get(id) ?? new Int32Array(0));
    for await (const { id, tokens } of references) {
      texts.set(id, tokens);
      retriever.#add([id], await encoder.encodeReferences({ tokens: [tokens] }));
    }
    return retriever;
  }

  /** Frees the index of a large bank without waiting for the garbage collector. */
  async close(): Promise<void> {
    await this.#large?.close();
  }

  get size(): number {
    return this.#size ?? this.#ids.length;
  }

  tokens(id: string): Int32Array {
    return this.#tokens(id);
  }

  async search(chunks: readonly Int32Array[], count: number): Promise<Found[][]> {
    const queries = await this.#encoder.encodeQueries(chunks);
    const first = this.#encoder.rescore === undefined ? count : Math.max(count, RESCORED);
    const { ids, scores } = await this.#index.search(queries, first);
    const large = await this.#large?.search(queries, first);
    const results: Found[][] = [];
    for (let chunk = 0; chunk < chunks.length; chunk++) {
      const found: Found[] = [];
      for (let slot = chunk * first; slot < (chunk + 1) * first && ids[slot]! >= 0; slot++) {
        found.push({ id: this.#ids[ids[slot]!]!, score: scores[slot]! });
      }
      if (large !== undefined) merge(found, large[chunk]!, first);
      const { dimensions } = this.#encoder;
      const query = queries.subarray(chunk * dimensions, (chunk + 1) * dimensions);
      results.push((await this.#rescored(query, found)).slice(0, count));
    }
    return results;
  }

  /** `found` in the order of the exact scores, equal ones as they were; for other encoders as it is. */
  async #rescored(query: Float32Array, found: Found[]): Promise<Found[]> {
    if (this.#encoder.rescore === undefined || this.#bank === undefined) return found;
    const bank = this.#bank;
    const rows = await bank.readRows(found.map(({ id }) => id));
    const scores = this.#encoder.rescore(query, { rows, keptLengths: found.map(({ id }) => bank.keptLength(id)) });
    return found.map(({ id }, i) => ({ id, score: scores[i]! })).sort((a, b) => b.score - a.score);
  }

  #add(ids: readonly string[], vectors: Float32Array): void {
    const first = this.#ids.length;
    this.#index.add(
      ids.map((_, i) => first + i),
      vectors,
    );
    for (const id of ids) this.#ids.push(id);
  }
}

/** Adds `more` to `found` and keeps the `count` nearest; equal ones stay in their order, those of `more` first. */
function merge(found: Found[], more: readonly Found[], count: number): void {
  found.unshift(...more);
  found.sort((a, b) => b.score - a.score);
  found.length = Math.min(found.length, count);
}

export type ChunkMemoryOptions = Pick<RetrievalConfig, 'query' | 'candidates' | 'overlapThreshold'> &
  Pick<MemoryConfig, 'chunkLength' | 'memoriesPerChunk'>;

/** What the chunks of one sequence read. */
export interface ChunkMemories {
  /** The memory that each chunk retrieved itself, [C]. */
  own: (Found | undefined)[];
  /** Ids that each chunk reads, its own first, then those of the chunks before, without repetitions: [C][≤ R]. */
  chunks: string[][];
  /** Candidates passed over because they overlap the sequence too much. */
  excluded: number;
}

/**
 * Memories of training sequences (paper §3.5): each chunk retrieves one reference, the nearest that does not overlap the
 * whole sequence by more than the threshold, and also reads those of the chunks before it.
 * @param sequences token ids, [B][T]
 * @param options `query` `previous`: a chunk is searched for with the chunk before it, as in decoding, and the first
 * chunk has no memory of its own; `own`: with itself
 */
export async function chunkMemories(
  sequences: readonly Int32Array[],
  options: ChunkMemoryOptions,
  memories: MemorySearch,
): Promise<ChunkMemories[]> {
  const cut = sequences.map((sequence) => cutChunks(sequence, options.chunkLength));
  const queries = cut.map((chunks) => (options.query === 'previous' ? chunks.slice(0, -1) : chunks));
  const found = await memories.search(queries.flat(), options.candidates);
  let next = 0;
  return sequences.map((sequence, b) => {
    const candidates = found.slice(next, next + queries[b]!.length);
    next += candidates.length;
    if (options.query === 'previous') candidates.unshift([]);
    const { allowed, excluded } = overlapFilter(sequence, options.overlapThreshold, memories);
    const own = candidates.map((nearest) => nearest.find(({ id }) => allowed(id)));
    const chunks = own.map((_, chunk) => newestFirst(own, chunk, options.memoriesPerChunk));
    return { own, chunks, excluded: excluded() };
  });
}

/**
 * Says of a memory whether its reference overlaps `sequence` by no more than `threshold`; each is looked at once.
 * @returns `allowed`, and `excluded`: how many different memories were not
 */
export function overlapFilter(
  sequence: Int32Array,
  threshold: number,
  memories: Pick<MemorySearch, 'tokens'>,
): { allowed: (id: string) => boolean; excluded: () => number } {
  const known = new Map<string, boolean>();
  const allowed = (id: string): boolean => {
    const answer = known.get(id) ?? !exceeds(sequence, memories.tokens(id), threshold);
    known.set(id, answer);
    return answer;
  };
  return { allowed, excluded: () => [...known.values()].filter((answer) => !answer).length };
}

/** Pieces of `chunkLength` tokens; the last may be shorter. */
export function cutChunks(sequence: Int32Array, chunkLength: number): Int32Array[] {
  const count = Math.ceil(sequence.length / chunkLength);
  return Array.from({ length: count }, (_, c) => sequence.subarray(c * chunkLength, (c + 1) * chunkLength));
}

/** Ids retrieved by `chunk` and the chunks just before it, `count` chunks in all. */
function newestFirst(own: readonly (Found | undefined)[], chunk: number, count: number): string[] {
  const ids = new Set<string>();
  for (let c = chunk; c >= 0 && c > chunk - count; c--) {
    const found = own[c];
    if (found !== undefined) ids.add(found.id);
  }
  return [...ids];
}
