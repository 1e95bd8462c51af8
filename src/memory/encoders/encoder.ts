/**
 * What a reference is found by. An encoder turns references and chunks of text into vectors of length one whose inner
 * product says how well they fit. It is made once for a bank and stored in it, so that queries are encoded as the
 * references were.
 *
 * Legend: n texts, d dimensions, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import type { StoredEncoder } from '../layout.ts';

/** References after writing. */
export interface WrittenReferences {
  /** Text of each. */
  texts: readonly string[];
  /** Token ids of each, without prefix. */
  tokens: readonly Int32Array[];
  /** [n, Lmem, 2, K, S, D] */
  rows: Float32Array;
  /** Kept tokens of each that are real, [n]. */
  keptLengths: ArrayLike<number>;
}

export interface RetrievalEncoder {
  readonly dimensions: number;
  /** True when references are encoded by their memories and not by their texts or tokens alone. */
  readonly readsMemories: boolean;
  /** Vectors of written references, [n, d]. */
  encodeReferences(references: WrittenReferences): Promise<Float32Array>;
  /** Vectors of chunks of text given as token ids, [n, d]. */
  encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array>;
  /**
   * Exact scores, [n], of the memories that the vectors found, by which they are ordered again: for an encoder whose
   * vectors tell only part of what the memories hold.
   * @param query one vector of `encodeQueries`, [d]
   */
  rescore?(query: Float32Array, memories: Pick<WrittenReferences, 'rows' | 'keptLengths'>): Float32Array;
  /** Kind and parameters; with `state` enough to make the encoder again. */
  describe(): Record<string, unknown>;
  /** Fitted numbers; empty when there are none. */
  state(): Uint8Array;
}

/** The attention queries of chunks of text, [n, Lmem, K, D]; see `chunkQueries`. */
export type ChunkQueries = (chunks: readonly Int32Array[]) => Promise<Float32Array>;

/** The text of a chunk, without special tokens. */
export type DecodeChunk = (chunk: Int32Array) => Promise<string>;

/** What a bank stores of an encoder. */
export function storedEncoder(encoder: RetrievalEncoder): StoredEncoder {
  return { dimensions: encoder.dimensions, description: encoder.describe(), state: encoder.state() };
}
