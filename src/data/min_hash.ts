/**
 * Short forms of documents that tell whether two are the same, or nearly: a hash of the text, and MinHash signatures
 * (Broder, "On the resemblance and containment of documents", 1997).
 */

import { createHash } from 'node:crypto';
import { philox } from '../random.ts';
import { HashCounts, mix32, WordScanner } from './words.ts';

/** 32-bit words of an exact hash. */
export const EXACT_WORDS = 4;
/** Values of a signature. */
export const SIGNATURE_VALUES = 128;
/** Words of a shingle. */
export const SHINGLE_WORDS = 5;

/** The first 128 bits of the sha256 of the text [EXACT_WORDS], every run of white space taken as one space, none at the ends. */
export function exactHash(text: string): Uint32Array {
  const digest = createHash('sha256').update(text.trim().replace(/\s+/g, ' ')).digest();
  return Uint32Array.from({ length: EXACT_WORDS }, (_, i) => digest.readUInt32LE(4 * i));
}

/** Rounds in which any element can fall into any place; in as many after them every element falls into a given one. */
const FREE_ROUNDS = SIGNATURE_VALUES;
const BIN_SHIFT = 32 - Math.log2(SIGNATURE_VALUES);
const EMPTY = 0xffffffff;
/** Distinct shingles kept for further rounds. With so many a place stays empty in the first with probability 10⁻¹². */
const KEPT_SHINGLES = 4096;

/** "MinHash " in ASCII: the key of all constants below, part of what a stored signature means. */
const KEY = [0x4d696e48, 0x61736820] as const;
const constants = (kind: number, count: number) =>
  Uint32Array.from({ length: count }, (_, i) => philox([i, kind, 0, 0], KEY)[0]);
/** Makes each round a hash function of its own. */
const ROUND_SEEDS = constants(0, 2 * FREE_ROUNDS);
/** Odd factors of the words of a shingle, by place. */
const PLACE_FACTORS = constants(1, SHINGLE_WORDS).map((factor) => factor | 1);
const BAND_FACTORS = constants(2, SIGNATURE_VALUES).map((factor) => factor | 1);

/**
 * Signs documents. A document is the set of its shingles, all runs of five words ({@link WordScanner}; fewer words are one
 * shingle). Two signatures agree in each place with a probability of the Jaccard similarity |A ∩ B| / |A ∪ B| of the sets.
 *
 * Computed as a fast similarity sketch (Dahlgaard, Knudsen, Thorup, "Fast similarity sketching", FOCS 2017) instead of with
 * 128 hash functions: a round hashes every shingle once, into one of the places and to a value, and a place keeps its least.
 * Long documents fill all places in the first round; short ones take more rounds for the empty places only.
 */
export class MinHash {
  readonly #scanner = new WordScanner();
  readonly #seen = new HashCounts();
  readonly #shingles = new Uint32Array(KEPT_SHINGLES);
  readonly #round = new Uint32Array(SIGNATURE_VALUES);
  /** The last words of the block before, then the words of a block. */
  readonly #words = new Uint32Array(SHINGLE_WORDS - 1 + this.#scanner.hashes.length);

  /** The signature [SIGNATURE_VALUES] of a text; undefined when it has no words. */
  sign(text: string): Uint32Array | undefined {
    const values = new Uint32Array(SIGNATURE_VALUES).fill(EMPTY);
    const distinct = this.#firstRound(text, values);
    if (distinct === 0) return undefined;
    for (let round = 1; values.includes(EMPTY); round++) {
      this.#round.fill(EMPTY);
      const seed = ROUND_SEEDS[round]!;
      for (let i = 0; i < distinct; i++) {
        const value = Math.min(mix32(this.#shingles[i]! ^ seed), EMPTY - 1);
        const place = round < FREE_ROUNDS ? value >>> BIN_SHIFT : round - FREE_ROUNDS;
        if (value < this.#round[place]!) this.#round[place] = value;
      }
      for (let i = 0; i < SIGNATURE_VALUES; i++) if (values[i] === EMPTY) values[i] = this.#round[i]!;
    }
    return values;
  }

  /** Lays all shingles into `values`; gives how many distinct ones are kept. */
  #firstRound(text: string, values: Uint32Array): number {
    const words = this.#words;
    const carried = SHINGLE_WORDS - 1;
    this.#seen.clear();
    this.#scanner.start(text);
    let count = this.#scanner.next();
    if (count < SHINGLE_WORDS) return count === 0 ? 0 : this.#add(shortShingle(this.#scanner.hashes, count), values);
    words.set(this.#scanner.hashes.subarray(0, count));
    for (let length = count; count > 0; length = carried + count) {
      for (let at = 0; at + SHINGLE_WORDS <= length; at++) this.#add(shingleAt(words, at), values);
      words.copyWithin(0, length - carried, length);
      count = this.#scanner.next();
      words.set(this.#scanner.hashes.subarray(0, count), carried);
    }
    return this.#seen.size;
  }

  #add(shingle: number, values: Uint32Array): number {
    const { size } = this.#seen;
    if (size < KEPT_SHINGLES) {
      if (this.#seen.add(shingle) > 1) return size;
      this.#shingles[size] = shingle;
    }
    const value = mix32(shingle ^ ROUND_SEEDS[0]!);
    const place = value >>> BIN_SHIFT;
    if (value < values[place]!) values[place] = value;
    return size + 1;
  }
}

function shingleAt(words: Uint32Array, at: number): number {
  let sum = 0;
  for (let i = 0; i < SHINGLE_WORDS; i++) sum += Math.imul(words[at + i]!, PLACE_FACTORS[i]!);
  return mix32(sum | 0);
}

function shortShingle(words: Uint32Array, count: number): number {
  let sum = count;
  for (let i = 0; i < count; i++) sum += Math.imul(words[i]!, PLACE_FACTORS[i]!);
  return mix32(sum | 0);
}

/** Share of places in which two signatures agree: an estimate of the Jaccard similarity, its variance at most J (1 − J) / 128. */
export function estimatedSimilarity(a: Uint32Array, b: Uint32Array): number {
  let same = 0;
  for (let i = 0; i < SIGNATURE_VALUES; i++) if (a[i] === b[i]) same++;
  return same / SIGNATURE_VALUES;
}

export interface Banding {
  bands: number;
  /** Values of a band. */
  rows: number;
}

/**
 * How signatures are cut for locality-sensitive hashing (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", §3.4):
 * documents of similarity J agree in all `rows` values of at least one of `bands` bands with probability 1 − (1 − J^rows)^bands.
 * Takes the most rows, hence the fewest false candidates, for which that is at least 0.99 at J = threshold + 0.1 (above a
 * threshold of 0.8: half-way from it to 1).
 */
export function banding(threshold: number): Banding {
  const similarity = Math.min(threshold + 0.1, (threshold + 1) / 2);
  for (let rows = SIGNATURE_VALUES; rows > 1; rows--) {
    const bands = Math.floor(SIGNATURE_VALUES / rows);
    if (1 - (1 - similarity ** rows) ** bands >= 0.99) return { bands, rows };
  }
  return { bands: SIGNATURE_VALUES, rows: 1 };
}

/** One 32-bit hash of each band of a signature, into `keys` [bands]. */
export function bandKeys(signature: Uint32Array, { bands, rows }: Banding, keys: Uint32Array): void {
  for (let band = 0; band < bands; band++) {
    let hash = band;
    for (let i = band * rows; i < (band + 1) * rows; i++)
      hash = mix32(Math.imul(hash, BAND_FACTORS[i]!) ^ signature[i]!);
    keys[band] = hash;
  }
}
