/**
 * Changes to a bank. Every change is one new version: segments first, then the manifest, then CURRENT, so that a
 * process that is killed anywhere leaves the old version or the new one, whole.
 */

import { UserError } from '../errors.ts';
import { describeCodecs, writeCodecs } from './codec_files.ts';
import { readDraft, removeDraft, writeDraft } from './draft.ts';
import { type BankIdentity, keptCount, type MemoryBatch, rowLength, type StoredCodecs } from './layout.ts';
import type { Manifest, Versions } from './manifest.ts';
import { type RowFormat, rowFormat } from './row_format.ts';
import { type SegmentEntry, SegmentReader, SegmentWriter, type StoredBatch } from './segment.ts';

/** Batches of memories, made while they are being stored. */
export type MemoryBatches = AsyncIterable<MemoryBatch> | Iterable<MemoryBatch>;

/** Where a memory lies: row `row` of segment `segment`. */
interface Place {
  segment: string;
  row: number;
}

/** Segments that no version names yet. */
interface WrittenSegments {
  entries: SegmentEntry[];
  places: [string, Place][];
}

export interface BankWriterOptions {
  /** Memories of one segment at most. Part of what a resumed run must repeat to get the same bytes. */
  segmentMemories?: number;
}

const SEGMENT_MEMORIES = 4096;
const nobody = (): boolean => false;

/** The one writer of a bank. It must be the only one: the run folder's lock sees to that. */
export class BankWriter {
  readonly folder: string;
  #identity: BankIdentity;
  #versions: Versions;
  #manifest: Manifest;
  #places: Map<string, Place>;
  #segmentMemories: number;
  #format: RowFormat;

  private constructor(
    versions: Versions,
    identity: BankIdentity,
    manifest: Manifest,
    places: Map<string, Place>,
    options: BankWriterOptions,
  ) {
    this.#identity = identity;
    this.folder = versions.folder;
    this.#versions = versions;
    this.#manifest = manifest;
    this.#places = places;
    this.#segmentMemories = options.segmentMemories ?? SEGMENT_MEMORIES;
    this.#format = rowFormat(identity);
  }

  /** Use `Bank.create` or `Bank.openForWriting`. */
  static async open(versions: Versions, manifest: Manifest, options: BankWriterOptions = {}): Promise<BankWriter> {
    const identity = await versions.identityOf(manifest);
    const places = await placesOf(versions.folder, identity, manifest.segments);
    return new BankWriter(versions, identity, manifest, places, options);
  }

  /** What the current version was made for. */
  get identity(): BankIdentity {
    return this.#identity;
  }

  get version(): number {
    return this.#manifest.version;
  }

  get contentHash(): string {
    return this.#manifest.contentHash;
  }

  /** Memories in the current version. */
  get size(): number {
    return this.#places.size;
  }

  has(id: string): boolean {
    return this.#places.has(id);
  }

  /**
   * Adds memories.
   * @param writer hash of the weights that encoded them
   * @returns the new version; the old one when there was nothing to add
   * @throws UserError input_invalid when an id is in the bank already, training_diverged when a number is not finite,
   * disk_full; the bank keeps its version then
   */
  async append(memories: MemoryBatches, writer: string): Promise<number> {
    return this.edit([], memories, writer);
  }

  /** Removes memories. @throws UserError memory_unknown, naming the id; nothing is removed then */
  async delete(ids: readonly string[]): Promise<number> {
    return this.edit(ids, [], '');
  }

  /** Removes `ids` and adds `memories`, which may have the same ids, in one version. */
  async edit(ids: readonly string[], memories: MemoryBatches, writer: string): Promise<number> {
    const removed = new Set(ids);
    const remaining = this.#without(removed);
    const isTaken = (id: string): boolean => this.#places.has(id) && !removed.has(id);
    const added = await this.#writeSegments(this.#stored(memories, isTaken), writer);
    if (removed.size === 0 && added.entries.length === 0) return this.version;
    return this.#commit([...remaining, ...added.entries], () => {
      for (const id of removed) this.#places.delete(id);
      for (const [id, place] of added.places) this.#places.set(id, place);
    });
  }

  /** Replaces all memories, as a refresh with new weights does, in one version. */
  async replaceAll(memories: MemoryBatches, writer: string): Promise<number> {
    const { entries, places } = await this.#writeSegments(this.#stored(memories, nobody), writer);
    return this.#commit(entries, () => {
      this.#places = new Map(places);
    });
  }

  /**
   * Replaces all memories like `replaceAll`, in one version; what a call of the same `key` that was stopped or killed has
   * finished is used again, and the result has the same bytes.
   * @param key says what is written, by which weights and in which order
   * @param memoriesFrom the memories from number `first` on, which is a multiple of `unit`
   * @param options.codecs what the new version codes its memories with, if anything; by default what the current one does
   */
  async compile(
    key: string,
    memoriesFrom: (first: number) => MemoryBatches,
    writer: string,
    unit: number,
    { codecs }: { codecs?: StoredCodecs } = { codecs: this.#identity.codecs },
  ): Promise<number> {
    const before = this.#identity;
    this.#become({ ...before, codecs });
    try {
      const version = await this.#compile(key, memoriesFrom, writer, unit);
      await removeDraft(this.folder);
      return version;
    } catch (error) {
      this.#become(before);
      throw error;
    }
  }

  async #compile(
    key: string,
    memoriesFrom: (first: number) => MemoryBatches,
    writer: string,
    unit: number,
  ): Promise<number> {
    const { codecs: stored } = this.#identity;
    const codecs = stored && describeCodecs(stored);
    const segments = await this.#resumable(key, unit);
    if (stored !== undefined) {
      await writeCodecs(this.folder, stored);
      // Names the codecs from the start: training them may take long.
      await writeDraft(this.folder, { key, segments, codecs });
    }
    const places = await placesOf(this.folder, this.#identity, segments);
    const rest = this.#stored(memoriesFrom(places.size), (id) => places.has(id));
    const written = await this.#writeSegments(rest, writer, async (entry) => {
      segments.push(entry);
      await writeDraft(this.folder, { key, segments, codecs });
    });
    for (const [id, place] of written.places) places.set(id, place);
    return await this.#commit(segments, () => {
      this.#places = places;
    });
  }

  #become(identity: BankIdentity): void {
    this.#identity = identity;
    this.#format = rowFormat(identity);
  }

  /** Segments of a draft of this key that can be read, up to a multiple of `unit` memories. */
  async #resumable(key: string, unit: number): Promise<SegmentEntry[]> {
    const draft = await readDraft(this.folder);
    const usable: SegmentEntry[] = [];
    let [memories, whole] = [0, 0];
    for (const entry of draft?.key === key ? draft.segments : []) {
      if (!(await SegmentReader.isWhole(this.folder, entry, this.identity))) break;
      usable.push(entry);
      memories += entry.memories;
      if (memories % unit === 0) whole = usable.length;
    }
    return usable.slice(0, whole);
  }

  /**
   * Rewrites segments without their deleted memories, and neighbours that fit into one as one, in one version of the same
   * memories in the same order; `prune` then frees their space. A draft is given up: it may hold what was deleted since.
   */
  async compact(): Promise<number> {
    await removeDraft(this.folder);
    const groups = this.#joined();
    const isCompact = (group: readonly SegmentEntry[]): boolean => group.length === 1 && group[0]!.deleted.length === 0;
    if (groups.every(isCompact)) return this.version;
    const segments: SegmentEntry[] = [];
    const moved: [string, Place][] = [];
    for (const group of groups) {
      if (isCompact(group)) {
        segments.push(...group);
        continue;
      }
      const written = await this.#writeSegments(this.#live(group), group[0]!.writer);
      segments.push(...written.entries);
      for (const place of written.places) moved.push(place);
    }
    return this.#commit(segments, () => {
      for (const [id, place] of moved) this.#places.set(id, place);
    });
  }

  /** The segments in order; neighbours of the same weights that fit into one segment stand together. */
  #joined(): SegmentEntry[][] {
    const groups: SegmentEntry[][] = [];
    let together = 0;
    for (const entry of this.#manifest.segments) {
      const live = entry.memories - entry.deleted.length;
      const last = groups.at(-1);
      const fits = last?.[0]?.writer === entry.writer && together + live <= this.#segmentMemories;
      if (fits) last?.push(entry);
      else groups.push([entry]);
      together = fits ? together + live : live;
    }
    return groups;
  }

  /** The memories of segments that are not deleted, one segment open at a time. */
  async *#live(segments: readonly SegmentEntry[]): AsyncGenerator<StoredBatch> {
    for (const entry of segments) {
      const reader = await SegmentReader.open(this.folder, entry, this.identity);
      try {
        yield* reader.liveBatches();
      } finally {
        await reader.close();
      }
    }
  }

  /** Removes all versions but the current one and `keepVersions`, and the segments that only they named. */
  async prune(keepVersions: readonly number[]): Promise<void> {
    await this.#versions.removeAllBut([...keepVersions, this.version]);
  }

  /** @param apply brings `#places` to the new version */
  async #commit(segments: readonly SegmentEntry[], apply: () => void): Promise<number> {
    try {
      this.#manifest = await this.#versions.write(this.version + 1, segments, this.#identity.codecs);
    } catch (error) {
      const current = await this.#versions.current().catch(() => undefined);
      if (current?.version !== this.version + 1) {
        await this.#removeUnnamed();
        throw error;
      }
      // It failed after CURRENT was replaced: the new version is whole, only its place on the disk is not certain.
      this.#manifest = current;
      apply();
      throw error;
    }
    apply();
    return this.version;
  }

  /** The segments of the current version without `ids`. A segment of which nothing remains is left out. */
  #without(ids: ReadonlySet<string>): SegmentEntry[] {
    const rows = new Map<string, number[]>();
    for (const id of ids) {
      const place = this.#places.get(id);
      if (place === undefined) {
        const action = 'list the ids with `memory3 bank ls`';
        throw new UserError('memory_unknown', { where: this.folder, what: `there is no memory ${id}`, action });
      }
      const inSegment = rows.get(place.segment);
      if (inSegment === undefined) rows.set(place.segment, [place.row]);
      else inSegment.push(place.row);
    }
    return this.#manifest.segments
      .map((entry) => {
        const gone = rows.get(entry.id);
        return gone === undefined ? entry : { ...entry, deleted: [...entry.deleted, ...gone].sort((a, b) => a - b) };
      })
      .filter((entry) => entry.deleted.length < entry.memories);
  }

  /**
   * Memories as they are stored, once they are found to be fit.
   * @param isTaken whether an id belongs to a memory that stays
   */
  async *#stored(memories: MemoryBatches, isTaken: (id: string) => boolean): AsyncGenerator<StoredBatch> {
    const ids = new Set<string>();
    for await (const batch of memories) {
      this.#check(batch, (id) => !ids.has(id) && !isTaken(id) && ids.add(id) !== undefined);
      yield { ...batch, rows: await this.#format.encode(batch.rows) };
    }
  }

  /**
   * Writes memories as segments that no version names yet; after an error none of them is left but those of a draft.
   * @param onSegment is called with each segment that is in place
   */
  async #writeSegments(
    memories: AsyncIterable<StoredBatch>,
    writer: string,
    onSegment?: (entry: SegmentEntry) => Promise<void>,
  ): Promise<WrittenSegments> {
    const written: WrittenSegments = { entries: [], places: [] };
    let segment: SegmentWriter | undefined;
    const finish = async (full: SegmentWriter): Promise<void> => {
      const entry = await full.finish();
      written.entries.push(entry);
      full.ids.forEach((id, row) => {
        written.places.push([id, { segment: entry.id, row }]);
      });
      segment = undefined;
      await onSegment?.(entry);
    };
    try {
      for await (const batch of memories) {
        for (let from = 0; from < batch.records.length; ) {
          segment ??= await SegmentWriter.create(this.folder, this.identity, writer);
          const until = Math.min(batch.records.length, from + this.#segmentMemories - segment.memories);
          await segment.add(batch, from, until);
          if (segment.memories === this.#segmentMemories) await finish(segment);
          from = until;
        }
      }
      if (segment !== undefined) await finish(segment);
      return written;
    } catch (error) {
      await segment?.abandon();
      await this.#removeUnnamed();
      throw error;
    }
  }

  /** Frees the space of a change that failed. What cannot be removed on a disk that fails, the next writer removes. */
  async #removeUnnamed(): Promise<void> {
    try {
      const numbers = await this.#versions.numbers();
      await this.#versions.removeAllBut(numbers.filter((number) => number <= this.version));
    } catch {
      // The error that led here is the one to report.
    }
  }

  /**
   * Refuses batches that would make the bank unreadable or poison training.
   * @param claim takes an id; false when it is taken
   */
  #check(batch: MemoryBatch, claim: (id: string) => boolean): void {
    const { layout, encoder } = this.identity;
    const width = rowLength(layout);
    const count = batch.records.length;
    if (batch.rows.length !== count * width || batch.vectors.length !== count * encoder.dimensions) {
      throw new RangeError(
        `a batch of ${count} memories has ${batch.rows.length} numbers and ${batch.vectors.length} in vectors`,
      );
    }
    batch.records.forEach((record, i) => {
      if (record.kept.length !== keptCount(layout) || record.keptLength > layout.keptTokens) {
        throw new RangeError(`memory ${record.id} keeps ${record.kept.length} positions, length ${record.keptLength}`);
      }
      if (!claim(record.id)) {
        const what = `memory ${record.id} is there already`;
        throw new UserError('input_invalid', { where: this.folder, what, action: 'delete it first, or edit it' });
      }
      const row = batch.rows.subarray(i * width, (i + 1) * width);
      const vector = batch.vectors.subarray(i * encoder.dimensions, (i + 1) * encoder.dimensions);
      if (!row.every(Number.isFinite) || !vector.every(Number.isFinite)) {
        const what = `memory ${record.id} holds a value that is not finite`;
        throw new UserError('training_diverged', {
          where: this.folder,
          what,
          action: 'write it with an earlier checkpoint',
        });
      }
    });
  }
}

async function placesOf(
  folder: string,
  identity: BankIdentity,
  segments: readonly SegmentEntry[],
): Promise<Map<string, Place>> {
  const places = new Map<string, Place>();
  for (const entry of segments) {
    const reader = await SegmentReader.open(folder, entry, identity);
    try {
      const { ids } = (await reader.records()).catalog();
      const deleted = new Set(entry.deleted);
      ids.forEach((id, row) => {
        if (!deleted.has(row)) places.set(id, { segment: entry.id, row });
      });
    } finally {
      await reader.close();
    }
  }
  return places;
}
