/**
 * The memory bank: a log-structured store of explicit memories in a folder (paper §3.2, "warm start").
 *
 *   bank.json, encoder.bin     what the bank is for; never change
 *   segment-<id>/              immutable memories, see segment.ts
 *   codec-<hash>.bin           codecs, when memories are stored as codes
 *   manifest-<version>.json    the segments, tombstones and codecs of a version
 *   CURRENT                    the newest whole version
 *
 * A `Bank` is a snapshot: it keeps the version it opened, whatever a writer does meanwhile.
 *
 * Legend: n memories asked for, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import { UserError } from '../errors.ts';
import { BankWriter, type BankWriterOptions } from './bank_writer.ts';
import type { BankIdentity, MemoryRecord, ReaderIdentity } from './layout.ts';
import { type Manifest, Versions } from './manifest.ts';
import type { Catalog, RecordTable } from './records.ts';
import { type CacheStats, RowCache } from './row_cache.ts';
import { type RowFormat, rowFormat, rowValues } from './row_format.ts';
import { type SegmentEntry, SegmentReader } from './segment.ts';

export interface BankOptions {
  /** A version to open instead of the current one. */
  version?: number;
  /** What the reader can read; left out, anything is opened, as for listing. */
  identity?: ReaderIdentity;
  /** Rows kept in memory; share one cache among versions. Default: 256 MiB of its own. */
  cache?: RowCache;
}

const CACHE_BYTES = 256 * 2 ** 20;
const VECTORS_AT_ONCE = 4096;

/** An opened segment with the columns that look-ups need. */
interface LoadedSegment {
  reader: SegmentReader;
  catalog: Catalog;
}

/** Where a memory lies: row `row` of segment number `segment`. */
interface Place {
  segment: number;
  row: number;
}

/** One version of a bank, for reading. Positions count its memories from 0 in the order of the segments. */
export class Bank {
  readonly folder: string;
  readonly identity: BankIdentity;
  readonly version: number;
  /** sha256 over everything this version holds. */
  readonly contentHash: string;
  /** Hashes of the weights that wrote the memories, sorted. */
  readonly writers: readonly string[];
  /** How memories are stored. */
  readonly format: RowFormat;
  #segments: LoadedSegment[];
  #places: Place[] = [];
  #positions = new Map<string, number>();
  /** Numbers of the segments by id. */
  #numbers = new Map<string, number>();
  #cache: RowCache;
  #lastRecords: { segment: number; table: RecordTable } | undefined;

  private constructor(
    folder: string,
    identity: BankIdentity,
    manifest: Manifest,
    segments: LoadedSegment[],
    cache: RowCache,
  ) {
    this.folder = folder;
    this.identity = identity;
    this.version = manifest.version;
    this.contentHash = manifest.contentHash;
    this.writers = [...new Set(manifest.segments.map((segment) => segment.writer))].sort();
    this.format = rowFormat(this.identity);
    this.#segments = segments;
    this.#cache = cache;
    segments.forEach(({ reader, catalog }, segment) => {
      this.#numbers.set(reader.entry.id, segment);
      const deleted = new Set(reader.entry.deleted);
      catalog.ids.forEach((id, row) => {
        if (deleted.has(row)) return;
        this.#positions.set(id, this.#places.length);
        this.#places.push({ segment, row });
      });
    });
    this.#forgetDeleted();
  }

  /**
   * Makes an empty bank of version 0.
   * @throws UserError input_invalid when the folder holds a bank already
   */
  static async create(folder: string, identity: BankIdentity, options: BankWriterOptions = {}): Promise<BankWriter> {
    const versions = await Versions.create(folder, identity);
    return BankWriter.open(versions, await versions.current(), options);
  }

  /**
   * Opens a bank for changes and removes what a killed writer left behind.
   * @param options.version go back to this version first: later ones are dropped, as a run that resumes from an
   * earlier checkpoint makes them again
   * @throws UserError artefact_missing when there is no bank or no such version
   */
  static async openForWriting(
    folder: string,
    options: BankWriterOptions & { version?: number } = {},
  ): Promise<BankWriter> {
    const versions = await Versions.open(folder);
    const current = await versions.current();
    const manifest = options.version === undefined ? current : await versions.get(options.version);
    const writer = await BankWriter.open(versions, manifest, options);
    if (manifest.version !== current.version) await versions.makeCurrent(manifest);
    const numbers = await versions.numbers();
    await versions.removeAllBut(numbers.filter((number) => number <= manifest.version));
    return writer;
  }

  /**
   * Opens a version for reading.
   * @throws UserError artefact_missing (no bank, no such version), artefact_mismatch (another model, tokenizer or
   * writer), file_truncated, file_corrupt or version_unsupported, naming the file and what to do
   */
  static async open(folder: string, options: BankOptions = {}): Promise<Bank> {
    const versions = await Versions.open(folder);
    const manifest = options.version === undefined ? await versions.current() : await versions.get(options.version);
    if (options.identity !== undefined) refuseForeign(versions, manifest, options.identity);
    const bank = await versions.identityOf(manifest);
    const segments: LoadedSegment[] = [];
    try {
      for (const entry of manifest.segments) segments.push(await loadSegment(folder, bank, entry));
    } catch (error) {
      await Promise.all(segments.map(({ reader }) => reader.close()));
      throw error;
    }
    return new Bank(folder, bank, manifest, segments, options.cache ?? new RowCache(CACHE_BYTES));
  }

  /** Memories in this version. */
  get size(): number {
    return this.#places.length;
  }

  /** The segments of this version, with their deleted rows. */
  get segments(): readonly SegmentEntry[] {
    return this.#segments.map(({ reader }) => reader.entry);
  }

  /** Ids of all memories, by position. */
  ids(): string[] {
    return this.#places.map(({ segment, row }) => this.#segment(segment).catalog.ids[row]!);
  }

  has(id: string): boolean {
    return this.#positions.has(id);
  }

  /** Token ids of the reference, without prefix. @throws UserError memory_unknown */
  tokens(id: string): Int32Array {
    const { segment, row } = this.#place(id);
    const { tokens, starts } = this.#segment(segment).catalog;
    return tokens.subarray(starts[row], starts[row + 1]);
  }

  /** Kept tokens of the memory that are real. @throws UserError memory_unknown */
  keptLength(id: string): number {
    const { segment, row } = this.#place(id);
    return this.#segment(segment).catalog.keptLengths[row]!;
  }

  /** Hash of the weights that wrote the memory. @throws UserError memory_unknown */
  writer(id: string): string {
    return this.#segment(this.#place(id).segment).reader.entry.writer;
  }

  /** The record of one memory. @throws UserError memory_unknown, file_corrupt */
  async get(id: string): Promise<MemoryRecord> {
    const { segment, row } = this.#place(id);
    return (await this.#records(segment)).record(row);
  }

  /** All records by position, one segment in memory at a time. */
  async *list(): AsyncGenerator<MemoryRecord> {
    for (const { segment, row } of this.#places) yield (await this.#records(segment)).record(row);
  }

  /** Numbers of the memories `ids`, in their order: [n, Lmem, 2, K, S, D]. @throws UserError as `readStored` */
  async readRows(ids: readonly string[]): Promise<Float32Array> {
    return await rowValues(this.format, await this.readStored(ids));
  }

  /**
   * The memories `ids` as they are stored, in their order: [n, rowBytes]. Rows that are not in the cache are read in the
   * order in which they lie on disk.
   * @throws UserError memory_unknown, file_corrupt, file_truncated
   */
  async readStored(ids: readonly string[]): Promise<Uint8Array> {
    const width = this.format.rowBytes;
    const out = new Uint8Array(ids.length * width);
    const missing: { slot: number; key: string; place: Place }[] = [];
    ids.forEach((id, slot) => {
      const place = this.#place(id);
      const key = `${this.#segment(place.segment).reader.entry.id}:${place.row}`;
      const row = this.#cache.get(key);
      if (row === undefined) missing.push({ slot, key, place });
      else out.set(row, slot * width);
    });
    missing.sort((a, b) => a.place.segment - b.place.segment || a.place.row - b.place.row);
    for (const { slot, key, place } of missing) {
      const { reader } = this.#segment(place.segment);
      const target = out.subarray(slot * width, (slot + 1) * width);
      if (!reader.readChecked(place.row, target)) target.set(await reader.rows(place.row, place.row + 1));
      if (this.#cache.maxBytes >= width) this.#cache.set(key, target.slice());
    }
    return out;
  }

  /** The memory in row `row` of a segment; undefined when the version does not hold it. */
  idAt(segment: string, row: number): string | undefined {
    const number = this.#numbers.get(segment);
    const id = number === undefined ? undefined : this.#segment(number).catalog.ids[row];
    const position = id === undefined ? undefined : this.#positions.get(id);
    const place = position === undefined ? undefined : this.#places[position];
    return place?.segment === number && place?.row === row ? id : undefined;
  }

  /**
   * Retrieval vectors of all memories by position, in pieces: where they lie, ids and vectors [n, dimensions].
   * @param without ids of segments to pass over
   */
  async *vectors(
    without: ReadonlySet<string> = new Set(),
  ): AsyncGenerator<{ segment: string; rows: number[]; ids: string[]; vectors: Float32Array }> {
    const { dimensions } = this.identity.encoder;
    for (const { reader, catalog } of this.#segments) {
      if (without.has(reader.entry.id)) continue;
      const deleted = new Set(reader.entry.deleted);
      for (let from = 0; from < reader.entry.memories; from += VECTORS_AT_ONCE) {
        const until = Math.min(reader.entry.memories, from + VECTORS_AT_ONCE);
        const all = await reader.vectors(from, until);
        const rows = Array.from({ length: until - from }, (_, i) => from + i).filter((row) => !deleted.has(row));
        const vectors = new Float32Array(rows.length * dimensions);
        rows.forEach((row, i) => {
          vectors.set(all.subarray((row - from) * dimensions, (row - from + 1) * dimensions), i * dimensions);
        });
        yield { segment: reader.entry.id, rows, ids: rows.map((row) => catalog.ids[row]!), vectors };
      }
    }
  }

  /** The retrieval vector of a memory, [dimensions]. @throws UserError memory_unknown, file_corrupt */
  async vector(id: string): Promise<Float32Array> {
    const { segment, row } = this.#place(id);
    return await this.#segment(segment).reader.vectors(row, row + 1);
  }

  /** Reads every byte of this version and checks it. @throws UserError file_corrupt or file_truncated, naming the file */
  async verify(): Promise<void> {
    for (const { reader } of this.#segments) await reader.verify();
  }

  /** Use of the row cache, over all banks that share it. */
  get cacheStats(): CacheStats {
    return this.#cache.stats;
  }

  async close(): Promise<void> {
    await Promise.all(this.#segments.map(({ reader }) => reader.close()));
  }

  #place(id: string): Place {
    const position = this.#positions.get(id);
    const place = position === undefined ? undefined : this.#places[position];
    if (place === undefined) {
      const what = `version ${this.version} holds no memory ${id}`;
      throw new UserError('memory_unknown', {
        where: this.folder,
        what,
        action: 'list the ids with `memory3 bank ls`',
      });
    }
    return place;
  }

  #segment(number: number): LoadedSegment {
    return this.#segments[number]!;
  }

  /** A cache that was filled from another version must not keep what this one has deleted. */
  #forgetDeleted(): void {
    const deleted = new Map(this.#segments.map(({ reader: { entry } }) => [entry.id, new Set(entry.deleted)]));
    this.#cache.retain((key) => {
      const [segment = '', row] = key.split(':');
      return deleted.get(segment)?.has(Number(row)) === false;
    });
  }

  async #records(segment: number): Promise<RecordTable> {
    if (this.#lastRecords?.segment !== segment) {
      this.#lastRecords = { segment, table: await this.#segment(segment).reader.records() };
    }
    return this.#lastRecords.table;
  }
}

async function loadSegment(folder: string, identity: BankIdentity, entry: SegmentEntry): Promise<LoadedSegment> {
  const reader = await SegmentReader.open(folder, entry, identity);
  try {
    return { reader, catalog: (await reader.records()).catalog() };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

function refuseForeign(versions: Versions, manifest: Manifest, reader: ReaderIdentity): void {
  const { folder, identity } = versions;
  const refuse = (name: string, bankSide: string, readerSide: string): void => {
    throw new UserError('artefact_mismatch', {
      where: folder,
      what: `the bank was written by ${name} ${bankSide}, it is to be read by ${name} ${readerSide}`,
      action: `read it with the checkpoint that wrote it, or delete the folder and run \`memory3 compile\``,
    });
  };
  if (identity.modelKey !== reader.modelKey) refuse('model', identity.modelKey, reader.modelKey);
  if (identity.tokenizerHash !== reader.tokenizerHash)
    refuse('tokenizer', identity.tokenizerHash, reader.tokenizerHash);
  const foreign = manifest.segments.find((segment) => !reader.writers.includes(segment.writer));
  if (foreign !== undefined) refuse('weights', foreign.writer, reader.writers.join(' or ') || '(none)');
}
