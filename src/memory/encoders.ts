/**
 * What a reference is found by. An encoder turns references and chunks of text into vectors of length one whose inner
 * product says how well they fit. It is made once for a bank and stored in it, so that queries are encoded as the
 * references were.
 *
 * Legend: n texts, d dimensions, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import { UserError } from '../errors.ts';
import { normalised } from './index.ts';
import { type MemoryLayout, rowLength, type StoredEncoder } from './layout.ts';

/** References after writing. */
export interface WrittenReferences {
  /** Token ids of each, without prefix. */
  tokens: readonly Int32Array[];
  /** [n, Lmem, 2, K, S, D] */
  rows: Float32Array;
  /** Kept tokens of each that are real, [n]. */
  keptLengths: ArrayLike<number>;
}

export interface RetrievalEncoder {
  readonly dimensions: number;
  /** Vectors of written references, [n, d]. */
  encodeReferences(references: WrittenReferences): Float32Array;
  /** Vectors of chunks of text given as token ids, [n, d]. */
  encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array>;
  /** Kind and parameters; with `state` enough to make the encoder again. */
  describe(): Record<string, unknown>;
  /** Fitted numbers; empty when there are none. */
  state(): Uint8Array;
}

/** Writes texts as references are written; what `KeysEncoder` encodes queries with. */
export type WriteTexts = (texts: readonly Int32Array[]) => Promise<Omit<WrittenReferences, 'tokens'>>;

const COMPILE_AGAIN = 'delete the bank folder and run `memory3 compile`';

/** Buckets of the table of document frequencies; features that share one share their frequency. */
const FREQUENCY_BUCKETS = 2 ** 18;

/** Mixes a 32-bit word so that every input bit moves every output bit (the finaliser of MurmurHash3, A. Appleby). */
function mix(word: number): number {
  let h = word >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** How often each hashed feature (a token, or two tokens in a row) occurs in a text. */
function featureCounts(tokens: Int32Array): Map<number, number> {
  const counts = new Map<number, number>();
  const count = (feature: number): void => {
    counts.set(feature, (counts.get(feature) ?? 0) + 1);
  };
  let before: number | undefined;
  for (const token of tokens) {
    const word = mix(token + 1);
    count(word);
    if (before !== undefined) count(mix(Math.imul(before, 31) ^ word));
    before = word;
  }
  return counts;
}

/**
 * Hashed tf-idf of tokens and token bigrams: each feature adds ±(1 + ln tf)·idf to one of `dimensions` places, with
 * idf = ln((N + 1) / (df + 1)) + 1 over the N references that the encoder was fitted to (signed feature hashing,
 * Weinberger et al. 2009). Needs no model.
 */
export class LexicalEncoder implements RetrievalEncoder {
  readonly dimensions: number;
  /** References that the frequencies were counted in. */
  readonly documents: number;
  #frequencies: Uint32Array;

  private constructor(dimensions: number, documents: number, frequencies: Uint32Array) {
    this.dimensions = dimensions;
    this.documents = documents;
    this.#frequencies = frequencies;
  }

  /** Counts in how many of the references each feature occurs. Memory use does not depend on their number. */
  static async fit(
    references: AsyncIterable<Int32Array> | Iterable<Int32Array>,
    dimensions: number,
  ): Promise<LexicalEncoder> {
    const frequencies = new Uint32Array(FREQUENCY_BUCKETS);
    let documents = 0;
    for await (const tokens of references) {
      documents++;
      const buckets = new Set([...featureCounts(tokens).keys()].map(bucketOf));
      for (const bucket of buckets) frequencies[bucket]!++;
    }
    return new LexicalEncoder(dimensions, documents, frequencies);
  }

  /** The encoder that `describe` and `state` speak of. */
  static restore(dimensions: number, documents: number, state: Uint8Array): LexicalEncoder {
    if (state.byteLength !== 4 * FREQUENCY_BUCKETS) {
      throw new UserError('file_corrupt', {
        what: `the encoder has ${state.byteLength} bytes of document frequencies`,
      });
    }
    return new LexicalEncoder(dimensions, documents, new Uint32Array(state.slice().buffer));
  }

  encodeReferences({ tokens }: Pick<WrittenReferences, 'tokens'>): Float32Array {
    const out = new Float32Array(tokens.length * this.dimensions);
    tokens.forEach((text, i) => {
      this.#encode(text, out.subarray(i * this.dimensions, (i + 1) * this.dimensions));
    });
    return normalised(out, this.dimensions);
  }

  async encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array> {
    return this.encodeReferences({ tokens: chunks });
  }

  describe(): Record<string, unknown> {
    return { kind: 'lexical', dimensions: this.dimensions, documents: this.documents };
  }

  state(): Uint8Array {
    return new Uint8Array(this.#frequencies.slice().buffer);
  }

  #encode(text: Int32Array, out: Float32Array): void {
    for (const [feature, count] of featureCounts(text)) {
      const idf = Math.log((this.documents + 1) / (this.#frequencies[bucketOf(feature)]! + 1)) + 1;
      const sign = feature >>> 31 === 0 ? 1 : -1;
      out[(feature & 0x7fffffff) % this.dimensions]! += sign * (1 + Math.log(count)) * idf;
    }
  }
}

/** A second mix, so that features in one place of the vector do not share a bucket too. */
function bucketOf(feature: number): number {
  return mix(feature ^ 0x9e3779b9) % FREQUENCY_BUCKETS;
}

/**
 * The memories' own keys (paper, Remark 2): for each memory layer and key-value head the mean of the kept keys, brought
 * to length one, all of them side by side: [Lmem · K · D]. The inner product of two such vectors is therefore the mean
 * cosine over the heads, each head compared with itself only. A query is written as if it were a reference.
 */
export class KeysEncoder implements RetrievalEncoder {
  readonly dimensions: number;
  #layout: MemoryLayout;
  #writeTexts: WriteTexts;

  /** @param writeTexts writes query chunks with the model that is being served or trained */
  constructor(layout: MemoryLayout, writeTexts: WriteTexts) {
    this.dimensions = layout.memoryLayers * layout.kvHeads * layout.headDim;
    this.#layout = layout;
    this.#writeTexts = writeTexts;
  }

  encodeReferences({ rows, keptLengths }: Omit<WrittenReferences, 'tokens'>): Float32Array {
    const { memoryLayers, kvHeads, keptTokens: S, headDim: D } = this.#layout;
    const width = rowLength(this.#layout);
    const count = rows.length / width;
    const sums = new Float32Array(count * this.dimensions);
    let out = 0;
    for (let memory = 0; memory < count; memory++) {
      for (let layer = 0; layer < memoryLayers; layer++) {
        for (let head = 0; head < kvHeads; head++, out += D) {
          const keys = memory * width + (layer * 2 * kvHeads + head) * S * D;
          for (let i = 0; i < keptLengths[memory]! * D; i++) sums[out + (i % D)]! += rows[keys + i]!;
        }
      }
    }
    // Heads of equal weight first, then the whole vector.
    return normalised(normalised(sums, D), this.dimensions);
  }

  async encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array> {
    return chunks.length === 0 ? new Float32Array(0) : this.encodeReferences(await this.#writeTexts(chunks));
  }

  describe(): Record<string, unknown> {
    return { kind: 'keys', dimensions: this.dimensions };
  }

  state(): Uint8Array {
    return new Uint8Array(0);
  }
}

/** What a bank stores of an encoder. */
export function storedEncoder(encoder: RetrievalEncoder): StoredEncoder {
  return { dimensions: encoder.dimensions, description: encoder.describe(), state: encoder.state() };
}

/**
 * The encoder that a bank was made with.
 * @param writeTexts needed by the `keys` encoder for queries
 * @throws UserError version_unsupported for an encoder this program does not know
 */
export function restoreEncoder(stored: StoredEncoder, layout: MemoryLayout, writeTexts: WriteTexts): RetrievalEncoder {
  const { kind, documents } = stored.description;
  if (kind === 'lexical' && typeof documents === 'number') {
    return LexicalEncoder.restore(stored.dimensions, documents, stored.state);
  }
  if (kind === 'keys') return new KeysEncoder(layout, writeTexts);
  throw new UserError('version_unsupported', {
    what: `the bank was made with the retrieval encoder ${JSON.stringify(kind)}, which this program does not know`,
    action: COMPILE_AGAIN,
  });
}
