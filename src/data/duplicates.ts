/**
 * Documents that were met before, exactly or nearly, among millions of kept ones in bounded memory: locality-sensitive
 * hashing of MinHash signatures (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", §3.4).
 */

import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { DeduplicationConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { diskError } from '../io/files.ts';
import { type Banding, banding, bandKeys, EXACT_WORDS, estimatedSimilarity, SIGNATURE_VALUES } from './min_hash.ts';

export interface Match {
  kind: 'duplicate' | 'near duplicate';
  /** Running number of the kept document that it repeats. */
  of: number;
  /** Estimated Jaccard similarity; 1 for a duplicate. */
  similarity: number;
}

const SIGNATURE_BYTES = 4 * SIGNATURE_VALUES;
/** Bytes of a packed entry: exact hash, then signature, little endian. */
export const ENTRY_BYTES = 4 * EXACT_WORDS + SIGNATURE_BYTES;

/** Exact hash and signature of a kept document in ENTRY_BYTES bytes; a document without signature has zeros. */
export function packEntry(exact: Uint32Array, signature: Uint32Array | undefined): Uint8Array {
  const words = new Uint32Array(ENTRY_BYTES / 4);
  words.set(exact);
  if (signature) words.set(signature, EXACT_WORDS);
  return new Uint8Array(words.buffer);
}

/** What {@link packEntry} packed; more bytes than ENTRY_BYTES are not looked at. */
export function unpackEntry(entry: Uint8Array): { exact: Uint32Array; signature: Uint32Array | undefined } {
  // Copied, for alignment; `slice` of a Buffer would not copy.
  const words = new Uint32Array(Uint8Array.from(entry.subarray(0, ENTRY_BYTES)).buffer);
  const signature = words.subarray(EXACT_WORDS);
  return {
    exact: words.subarray(0, EXACT_WORDS),
    signature: signature.some((value) => value !== 0) ? signature : undefined,
  };
}

/** Rows of a bucket that are looked at, newest first, whatever their keys. */
const MAX_STEPS = 32;
/** Candidates of a band whose signatures are compared, newest first. */
const MAX_CANDIDATES = 8;
const NONE = -1;

/**
 * Finds which kept documents a document repeats. Holds two generations of `window` kept documents each: when the young one
 * is full, the old one is forgotten and the young one becomes old. So a document is compared with at least the last
 * `window` kept ones, and the answers depend on nothing but the calls of `add` before: a new one that is given the same
 * entries in the same order answers the same.
 *
 * Memory: 22 bytes a kept document, and 10 for each band (16 bands at a similarity of 0.75, 42 at 0.5), up to twice
 * `window`; the tables of a generation are taken from the system at once but get real as they are filled. Signatures are
 * in files in `folder`, 512 bytes each, that are removed by `close` (a killed process leaves `.*.tmp` files); a folder serves
 * one at a time.
 *
 * A check looks at no more than 32 documents of a bucket and compares with no more than 8 of a band, the newest, so that it
 * takes bounded time when very many kept documents share a band (filled-in forms). What is lost then: a near duplicate
 * whose original is older than those in every band that they share.
 */
export class Duplicates {
  readonly #config: DeduplicationConfig;
  readonly #folder: string;
  readonly #banding: Banding;
  readonly #keys: Uint32Array;
  #young: Generation;
  #old: Generation | undefined;
  #kept = 0;

  /** @throws UserError config_invalid when the window is larger than memory */
  constructor(config: DeduplicationConfig, folder: string) {
    this.#config = config;
    this.#folder = folder;
    this.#banding = config.near ? banding(config.similarity) : { bands: 0, rows: 0 };
    this.#keys = new Uint32Array(this.#banding.bands);
    this.#young = this.#newGeneration(0);
  }

  /** Documents added so far; the running number of the next. */
  get kept(): number {
    return this.#kept;
  }

  /**
   * The kept document that one with these hashes repeats: the newest with the same text, else the first with a similarity
   * of at least the configured one that the bands lead to. Changes nothing.
   */
  check(exact: Uint32Array, signature: Uint32Array | undefined): Match | undefined {
    const generations = this.#old ? [this.#young, this.#old] : [this.#young];
    if (this.#config.exact) {
      for (const generation of generations) {
        const row = generation.findExact(exact);
        if (row !== NONE) return { kind: 'duplicate', of: generation.first + row, similarity: 1 };
      }
    }
    if (!this.#config.near || signature === undefined) return undefined;
    bandKeys(signature, this.#banding, this.#keys);
    for (const generation of generations) {
      const near = generation.findNear(signature, this.#keys, this.#config.similarity);
      if (near) return { kind: 'near duplicate', of: generation.first + near.row, similarity: near.similarity };
    }
    return undefined;
  }

  /** Adds a kept document. @throws UserError disk_full */
  add(exact: Uint32Array, signature: Uint32Array | undefined): void {
    if (this.#young.size === this.#config.window) {
      const oldest = this.#old;
      this.#old = this.#young;
      this.#young = oldest?.emptied(this.#kept) ?? this.#newGeneration(this.#kept);
    }
    const signed = this.#config.near ? signature : undefined;
    if (signed) bandKeys(signed, this.#banding, this.#keys);
    this.#young.add(this.#config.exact ? exact : undefined, signed, this.#keys);
    this.#kept += 1;
  }

  /** Removes the files; the last call. */
  close(): void {
    this.#young.close();
    this.#old?.close();
  }

  #newGeneration(first: number): Generation {
    const { window } = this.#config;
    const path = join(this.#folder, `.signatures-${first === 0 ? 0 : 1}.tmp`);
    try {
      return new Generation(window, this.#banding.bands, path, first);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new UserError('config_invalid', {
        where: 'data.deduplication.window',
        what: `no memory for tables of ${window} documents`,
        action: 'take a smaller one',
        cause: error,
      });
    }
  }
}

/** The kept documents of one window, in rows. */
class Generation {
  /** Running number of the document in row 0. */
  first: number;
  size = 0;
  readonly #bands: number;
  /** The first word of the exact hashes leads to their rows, the rest is compared. */
  readonly #exactRows: HashChains;
  readonly #exactRest: Uint32Array;
  readonly #bandRows: HashChains;
  readonly #signatures: SignatureFile | undefined;
  /** Rows that this check compared with. */
  readonly #compared: number[] = [];

  constructor(capacity: number, bands: number, path: string, first: number) {
    this.first = first;
    this.#bands = bands;
    this.#exactRows = new HashChains(capacity, 1);
    this.#exactRest = new Uint32Array(capacity * (EXACT_WORDS - 1));
    this.#bandRows = new HashChains(capacity, bands);
    this.#signatures = bands > 0 ? new SignatureFile(path) : undefined;
  }

  /** Itself without any documents: its tables are used again. */
  emptied(first: number): this {
    this.first = first;
    this.size = 0;
    this.#exactRows.clear();
    this.#bandRows.clear();
    this.#signatures?.clear();
    return this;
  }

  add(exact: Uint32Array | undefined, signature: Uint32Array | undefined, keys: Uint32Array): void {
    const row = this.size;
    this.#signatures?.append(signature);
    if (exact) {
      this.#exactRows.add(row, 0, exact[0]!);
      this.#exactRest.set(exact.subarray(1), row * (EXACT_WORDS - 1));
    }
    if (signature) for (let band = 0; band < this.#bands; band++) this.#bandRows.add(row, band, keys[band]!);
    this.size += 1;
  }

  findExact(exact: Uint32Array): number {
    const isSame = (row: number) => {
      const at = row * (EXACT_WORDS - 1);
      for (let i = 1; i < EXACT_WORDS; i++) if (this.#exactRest[at + i - 1] !== exact[i]) return false;
      return true;
    };
    return this.#exactRows.find(0, exact[0]!, isSame);
  }

  findNear(signature: Uint32Array, keys: Uint32Array, least: number): { row: number; similarity: number } | undefined {
    this.#compared.length = 0;
    let similarity = 0;
    for (let band = 0; band < this.#bands; band++) {
      let candidates = 0;
      const isNear = (row: number) => {
        candidates += 1;
        if (candidates > MAX_CANDIDATES || this.#compared.includes(row)) return false;
        this.#compared.push(row);
        similarity = estimatedSimilarity(signature, this.#signatures!.read(row));
        return similarity >= least;
      };
      const row = this.#bandRows.find(band, keys[band]!, isNear);
      if (row !== NONE) return { row, similarity };
    }
    return undefined;
  }

  close(): void {
    this.#signatures?.close();
  }
}

/**
 * For each of `columns` columns a hash table from 32-bit keys to rows: chains through the rows of a bucket, newest first.
 * 10 bytes for each row and column.
 */
class HashChains {
  readonly #columns: number;
  readonly #buckets: number;
  /** Newest row of a bucket + 1, 0 for none [columns, buckets]. */
  readonly #heads: Uint32Array;
  /** The next older row in the same bucket + 1 [capacity, columns]. */
  readonly #next: Uint32Array;
  readonly #keys: Uint32Array;

  constructor(capacity: number, columns: number) {
    this.#columns = columns;
    this.#buckets = Math.ceil(capacity / 2);
    this.#heads = new Uint32Array(columns * this.#buckets);
    this.#next = new Uint32Array(capacity * columns);
    this.#keys = new Uint32Array(capacity * columns);
  }

  clear(): void {
    this.#heads.fill(0);
  }

  add(row: number, column: number, key: number): void {
    const bucket = this.#bucket(column, key);
    const at = row * this.#columns + column;
    this.#keys[at] = key;
    this.#next[at] = this.#heads[bucket]!;
    this.#heads[bucket] = row + 1;
  }

  /** The newest row with this key that is accepted, among the MAX_STEPS newest of its bucket; or NONE. */
  find(column: number, key: number, accepts: (row: number) => boolean): number {
    let row = this.#heads[this.#bucket(column, key)]! - 1;
    for (let step = 0; row !== NONE && step < MAX_STEPS; step++) {
      const at = row * this.#columns + column;
      if (this.#keys[at] === key && accepts(row)) return row;
      row = this.#next[at]! - 1;
    }
    return NONE;
  }

  #bucket(column: number, key: number): number {
    return column * this.#buckets + Math.floor((key / 2 ** 32) * this.#buckets);
  }
}

/** Signatures that wait to be written together. */
const WAITING = 256;
/** Signatures read before that are kept; row r only in place r mod CACHED. */
const CACHED = 4096;

/** Signatures by row in a file; the newest and those read lately are in memory (2.2 MB). */
class SignatureFile {
  readonly #path: string;
  readonly #file: number;
  readonly #waiting = new Uint32Array(WAITING * SIGNATURE_VALUES);
  readonly #cache = new Uint32Array(CACHED * SIGNATURE_VALUES);
  readonly #cachedRows = new Int32Array(CACHED).fill(NONE);
  /** Rows in the file; those after them wait. */
  #written = 0;
  #size = 0;

  constructor(path: string) {
    this.#path = path;
    this.#file = openSync(path, 'w+');
  }

  clear(): void {
    this.#cachedRows.fill(NONE);
    this.#written = 0;
    this.#size = 0;
  }

  /** Without a signature its row holds zeros. */
  append(signature: Uint32Array | undefined): void {
    const at = (this.#size - this.#written) * SIGNATURE_VALUES;
    if (signature) this.#waiting.set(signature, at);
    else this.#waiting.fill(0, at, at + SIGNATURE_VALUES);
    this.#size += 1;
    if (this.#size - this.#written === WAITING) this.#write();
  }

  /** The signature of a row, until the next call. */
  read(row: number): Uint32Array {
    const from = (rows: Uint32Array, i: number) => rows.subarray(i * SIGNATURE_VALUES, (i + 1) * SIGNATURE_VALUES);
    if (row >= this.#written) return from(this.#waiting, row - this.#written);
    const cached = from(this.#cache, row % CACHED);
    if (this.#cachedRows[row % CACHED] !== row) {
      this.#cachedRows[row % CACHED] = NONE;
      const read = readSync(this.#file, bytesOf(cached), 0, SIGNATURE_BYTES, row * SIGNATURE_BYTES);
      if (read < SIGNATURE_BYTES) {
        throw new UserError('file_truncated', { where: this.#path, what: `signature ${row} is missing` });
      }
      this.#cachedRows[row % CACHED] = row;
    }
    return cached;
  }

  close(): void {
    closeSync(this.#file);
    rmSync(this.#path, { force: true });
  }

  #write(): void {
    const bytes = bytesOf(this.#waiting);
    try {
      for (let done = 0; done < bytes.byteLength; ) {
        done += writeSync(this.#file, bytes, done, bytes.byteLength - done, this.#written * SIGNATURE_BYTES + done);
      }
    } catch (error) {
      throw diskError(error, this.#path);
    }
    this.#written = this.#size;
  }
}

const bytesOf = (words: Uint32Array) => new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
