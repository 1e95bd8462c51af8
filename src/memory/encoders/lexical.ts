/** Retrieval by the words of a text. */

import { UserError } from '../../errors.ts';
import { normalised } from '../index.ts';
import type { StoredEncoder } from '../layout.ts';
import type { RetrievalEncoder, WrittenReferences } from './encoder.ts';

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
  readonly readsMemories = false;
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

  async encodeReferences({ tokens }: Pick<WrittenReferences, 'tokens'>): Promise<Float32Array> {
    const out = new Float32Array(tokens.length * this.dimensions);
    tokens.forEach((text, i) => {
      this.#encode(text, out.subarray(i * this.dimensions, (i + 1) * this.dimensions));
    });
    return normalised(out, this.dimensions);
  }

  async encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array> {
    return await this.encodeReferences({ tokens: chunks });
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

/** Whether a stored encoder gives vectors that are mostly zero, as this one does. */
export function isSparse({ description }: Pick<StoredEncoder, 'description'>): boolean {
  return description.kind === 'lexical';
}

/** A second mix, so that features in one place of the vector do not share a bucket too. */
function bucketOf(feature: number): number {
  return mix(feature ^ 0x9e3779b9) % FREQUENCY_BUCKETS;
}
