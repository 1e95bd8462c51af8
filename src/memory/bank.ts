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

import { nativeBank } from '../engine/native/bank.ts';
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

/** Segments that are opened at the same time. */
const OPENED_TOGETHER = 4;
/** From so many rows on a thread reads them: for fewer a promise would take longer. */
const READ_ON_THREAD = 16;

/** More than the rows of any call; SLOTS · memories must stay below 2⁵³. */
const SLOTS = 2 ** 24;

/** An opened segment with the columns that look-ups need. */
interface LoadedSegment {
  reader: SegmentReader;
  catalog: Catalog;
  /** The rows that are not deleted, ascending; undefined: all. */
  live: Int32Array | undefined;
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
  /** Position of the first memory of each segment, and their number. */
  #firsts: number[] = [0];
  #positions = new Map<string, number>();
  /** Numbers of the segments by id. */
  #numbers = new Map<string, number>();
  #cache: RowCache;
  /** Keys of the segments in the cache. */
  #cacheKeys: number[];
  /** Reads on threads; the files stay open until they are done. */
  #reads = new Set<Promise<void>>();
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
    this.#cacheKeys = segments.map(({ reader }) => cache.keys(reader.entry.id));
    segments.forEach(({ reader, catalog, live }, segment) => {
      this.#numbers.set(reader.entry.id, segment);
      const first = this.#firsts[segment]!;
      const count = live?.length ?? catalog.ids.length;
      for (let i = 0; i < count; i++) this.#positions.set(catalog.ids[live?.[i] ?? i]!, first + i);
      this.#firsts.push(first + count);
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
    const segments = await loadSegments(folder, bank, manifest.segments);
    return new Bank(folder, bank, manifest, segments, options.cache ?? new RowCache(CACHE_BYTES));
  }

  /** Memories in this version. */
  get size(): number {
    return this.#firsts.at(-1)!;
  }

  /** The segments of this version, with their deleted rows. */
  get segments(): readonly SegmentEntry[] {
    return this.#segments.map(({ reader }) => reader.entry);
  }

  /** Ids of all memories, by position. */
  ids(): string[] {
    return this.#segments.flatMap(({ catalog, live }) =>
      live === undefined ? catalog.ids : Array.from(live, (row) => catalog.ids[row]!),
    );
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
    for (let position = 0; position < this.size; position++) {
      const { segment, row } = this.#placeAt(position);
      yield (await this.#records(segment)).record(row);
    }
  }

  /** Numbers of the memories `ids`, in their order: [n, Lmem, 2, K, S, D]. @throws UserError as `readStored` */
  async readRows(ids: readonly string[]): Promise<Float32Array> {
    return await rowValues(this.format, await this.readStored(ids));
  }

  /**
   * The memories `ids` as they are stored, in their order: [n, rowBytes]. Rows that are not in the cache are read in the
   * order in which they lie on disk.
   * @param out where they are put, n · rowBytes at least; a buffer that is used again spares the system new pages
   * @throws UserError memory_unknown, file_corrupt, file_truncated
   */
  async readStored(
    ids: readonly string[],
    out: Uint8Array = new Uint8Array(ids.length * this.format.rowBytes),
  ): Promise<Uint8Array> {
    const width = this.format.rowBytes;
    /** Position · SLOTS + slot: in the order of the disk when sorted. */
    const missing = new Float64Array(ids.length);
    let count = 0;
    for (let slot = 0; slot < ids.length; slot++) {
      const position = this.#position(ids[slot]!);
      const cached = this.#cache.get(this.#cacheKey(position));
      if (cached === undefined) missing[count++] = position * SLOTS + slot;
      else out.set(cached, slot * width);
    }
    const wanted = missing.subarray(0, count).sort();
    await this.#readMissing(wanted, out);
    if (this.#cache.maxBytes < width) return out;
    for (const { position, slot } of placesIn(wanted)) {
      this.#cache.set(this.#cacheKey(position), out.slice(slot * width, (slot + 1) * width));
    }
    return out;
  }

  /** Reads rows into their slots of `out`; what was checked before in one call on a thread when it is much. */
  async #readMissing(wanted: Float64Array, out: Uint8Array): Promise<void> {
    const width = this.format.rowBytes;
    const native = wanted.length < READ_ON_THREAD ? undefined : nativeBank();
    const [files, slots] = [new Int32Array(wanted.length), new Int32Array(wanted.length)];
    const offsets = new Float64Array(wanted.length);
    let count = 0;
    for (const { position, slot } of placesIn(wanted)) {
      const { segment, row } = this.#placeAt(position);
      const descriptor = native && this.#segment(segment).reader.checkedDescriptor(row, width);
      if (descriptor === undefined) {
        await this.#readOne(position, slot, out);
        continue;
      }
      files[count] = descriptor;
      offsets[count] = row * width;
      slots[count++] = slot;
    }
    if (native === undefined || count === 0) return;
    const read = native.readRows(
      files.subarray(0, count),
      offsets.subarray(0, count),
      slots.subarray(0, count),
      width,
      out,
    );
    this.#reads.add(read);
    try {
      await read;
    } catch {
      // One by one, so that the error names its file.
      for (const { position, slot } of placesIn(wanted)) await this.#readOne(position, slot, out);
    } finally {
      this.#reads.delete(read);
    }
  }

  async #readOne(position: number, slot: number, out: Uint8Array): Promise<void> {
    const width = this.format.rowBytes;
    const { segment, row } = this.#placeAt(position);
    const { reader } = this.#segment(segment);
    const target = out.subarray(slot * width, (slot + 1) * width);
    if (!reader.readChecked(row, target)) target.set(await reader.rows(row, row + 1));
  }

  /** The memory in row `row` of a segment; undefined when the version does not hold it. */
  idAt(segment: string, row: number): string | undefined {
    const number = this.#numbers.get(segment);
    const id = number === undefined ? undefined : this.#segment(number).catalog.ids[row];
    const position = id === undefined ? undefined : this.#positions.get(id);
    if (position === undefined) return undefined;
    const place = this.#placeAt(position);
    return place.segment === number && place.row === row ? id : undefined;
  }

  /**
   * Retrieval vectors of all memories by position, in pieces: where they lie, ids and vectors [n, dimensions].
   * @param without ids of segments to pass over
   */
  async *vectors(
    without: ReadonlySet<string> = new Set(),
  ): AsyncGenerator<{ segment: string; rows: number[]; ids: string[]; vectors: Float32Array }> {
    const { dimensions } = this.identity.encoder;
    for (const { reader, catalog, live } of this.#segments) {
      if (without.has(reader.entry.id)) continue;
      const deleted = new Set(reader.entry.deleted);
      for (let from = 0; from < reader.entry.memories; from += VECTORS_AT_ONCE) {
        const until = Math.min(reader.entry.memories, from + VECTORS_AT_ONCE);
        const all = await reader.vectors(from, until);
        const rows = Array.from({ length: until - from }, (_, i) => from + i).filter((row) => !deleted.has(row));
        const ids = rows.map((row) => catalog.ids[row]!);
        const vectors = live === undefined ? all : picked(all, rows, from, dimensions);
        yield { segment: reader.entry.id, rows, ids, vectors };
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
    await Promise.allSettled(this.#reads);
    await Promise.all(this.#segments.map(({ reader }) => reader.close()));
  }

  #place(id: string): Place {
    return this.#placeAt(this.#position(id));
  }

  #position(id: string): number {
    const position = this.#positions.get(id);
    if (position !== undefined) return position;
    throw new UserError('memory_unknown', {
      where: this.folder,
      what: `version ${this.version} holds no memory ${id}`,
      action: 'list the ids with `memory3 bank ls`',
    });
  }

  #cacheKey(position: number): number {
    const { segment, row } = this.#placeAt(position);
    return this.#cacheKeys[segment]! + row;
  }

  #placeAt(position: number): Place {
    let [segment, end] = [0, this.#segments.length - 1];
    while (segment < end) {
      const middle = (segment + end + 1) >> 1;
      if (this.#firsts[middle]! <= position) segment = middle;
      else end = middle - 1;
    }
    const inSegment = position - this.#firsts[segment]!;
    return { segment, row: this.#segment(segment).live?.[inSegment] ?? inSegment };
  }

  #segment(number: number): LoadedSegment {
    return this.#segments[number]!;
  }

  /** A cache that was filled from another version must not keep what this one has deleted. */
  #forgetDeleted(): void {
    const deleted = new Map(this.#segments.map(({ reader: { entry } }) => [entry.id, new Set(entry.deleted)]));
    this.#cache.retain((segment, row) => deleted.get(segment)?.has(row) === false);
  }

  async #records(segment: number): Promise<RecordTable> {
    if (this.#lastRecords?.segment !== segment) {
      this.#lastRecords = { segment, table: await this.#segment(segment).reader.records() };
    }
    return this.#lastRecords.table;
  }
}

/** The positions and slots that keys of `readStored` stand for. */
function* placesIn(wanted: Float64Array): Generator<{ position: number; slot: number }> {
  for (const key of wanted) yield { position: Math.floor(key / SLOTS), slot: key % SLOTS };
}

/** Opens segments, some at the same time: their files are read while another one is decoded. */
async function loadSegments(
  folder: string,
  identity: BankIdentity,
  entries: readonly SegmentEntry[],
): Promise<LoadedSegment[]> {
  const segments: LoadedSegment[] = [];
  let next = 0;
  const loadNext = async (): Promise<void> => {
    while (next < entries.length) {
      const number = next++;
      segments[number] = await loadSegment(folder, identity, entries[number]!);
    }
  };
  const loaded = await Promise.allSettled(Array.from({ length: OPENED_TOGETHER }, loadNext));
  const failed = loaded.find((result) => result.status === 'rejected');
  if (failed === undefined) return segments;
  await Promise.all(segments.map(({ reader }) => reader.close()));
  throw failed.reason;
}

async function loadSegment(folder: string, identity: BankIdentity, entry: SegmentEntry): Promise<LoadedSegment> {
  const reader = await SegmentReader.open(folder, entry, identity);
  try {
    const catalog = (await reader.records()).catalog();
    return { reader, catalog, live: entry.deleted.length === 0 ? undefined : liveRows(entry) };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/** Vectors of `rows` out of those from row `from` on. */
function picked(vectors: Float32Array, rows: readonly number[], from: number, dimensions: number): Float32Array {
  const out = new Float32Array(rows.length * dimensions);
  rows.forEach((row, i) => {
    out.set(vectors.subarray((row - from) * dimensions, (row - from + 1) * dimensions), i * dimensions);
  });
  return out;
}

function liveRows({ memories, deleted }: SegmentEntry): Int32Array {
  const gone = new Set(deleted);
  return Int32Array.from({ length: memories }, (_, row) => row).filter((row) => !gone.has(row));
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
