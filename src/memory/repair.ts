/**
 * Finding what is damaged in a bank, and making again what can be made again. Everything in a bank is named by hash, so a
 * file that was made again is known to be the same; what cannot be made is dropped only when that is asked for.
 */

import { readdir } from 'node:fs/promises';
import { ignoreUserError, UserError } from '../errors.ts';
import { type CodecDescriptions, writeCodecs } from './codec_files.ts';
import type { RetrievalEncoder, WrittenReferences } from './encoders/encoder.ts';
import { indexesOnDisk, removeIndex, verifiedIndex } from './index_files.ts';
import type { BankIdentity, StoredCodecs } from './layout.ts';
import { type Manifest, Versions } from './manifest.ts';
import type { RecordTable } from './records.ts';
import { type RootSources, repairRoot } from './repair_root.ts';
import { rowFormat, rowValues } from './row_format.ts';
import {
  type SegmentEntry,
  SegmentReader,
  SegmentWriter,
  type StoredBatch,
  segmentFolder,
  segmentProblems,
} from './segment.ts';
import { readWithdrawn } from './withdrawn.ts';

/** What writes references again, as `writeTexts` does. */
export type Rewrite = (
  tokens: readonly Int32Array[],
) => Promise<Omit<WrittenReferences, 'tokens' | 'texts'> & { kept: Int32Array }>;

/** What lost parts can be made from. */
export interface RepairSources extends RootSources {
  /** The codecs of a version, trained again; undefined when they cannot be. */
  codecs(described: CodecDescriptions): Promise<StoredCodecs | undefined>;
  /** The encoder of the bank, for retrieval vectors. */
  encoder(identity: BankIdentity): Promise<RetrievalEncoder>;
  /** Writes references with the weights of this hash; undefined when they are not at hand. */
  rewriter(writer: string): Promise<Rewrite | undefined>;
}

/** A memory that is in the bank no more; `id` and `text` as far as they could be read. */
export interface DroppedMemory {
  id: string;
  text: string;
}

export interface BankRepair {
  /** The version that is current now. */
  version: number | undefined;
  /** What was done, a line each. */
  done: string[];
  dropped: DroppedMemory[];
  /** What could not be repaired, with what to do. */
  left: UserError[];
}

const MEMORIES_AT_ONCE = 64;
const DROP = 'restore the bank from a copy, or drop what is lost with `memory3 bank verify --repair --drop-damaged`';

/**
 * Everything wrong with a bank: every file of every version is read and compared with its checksums.
 * @throws UserError artefact_missing when there is no bank
 */
export async function bankProblems(folder: string): Promise<UserError[]> {
  await requireBank(folder);
  const problems: UserError[] = [];
  const attempt = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      if (!problems.some(({ message }) => message === error.message)) problems.push(error);
      return undefined;
    }
  };
  const versions = await attempt(() => Versions.openWithoutCurrent(folder));
  if (versions === undefined) return problems;
  const current = await attempt(() => versions.current());
  const segments = new Map<string, { entry: SegmentEntry; identity: BankIdentity }>();
  for (const number of await versions.numbers()) {
    if (current !== undefined && number > current.version) continue;
    const manifest = await attempt(() => versions.read(number));
    const identity = manifest && (await attempt(() => versions.identityOf(manifest)));
    if (identity === undefined) continue;
    for (const entry of manifest?.segments ?? []) segments.set(entry.id, { entry, identity });
  }
  for (const { entry, identity } of segments.values()) {
    problems.push(...(await segmentProblems(folder, entry, identity)));
  }
  for (const name of await indexesOnDisk(folder)) await attempt(() => verifiedIndex(folder, name));
  await attempt(() => readWithdrawn(folder));
  return problems;
}

/**
 * Repairs a bank. Only for the one process that may write to it.
 * @param options.dropDamaged give up memories, or the newest versions, that cannot be made again
 * @throws UserError artefact_missing when there is no bank, disk_full; what was repaired before stays repaired
 */
export async function repairBank(
  folder: string,
  sources: RepairSources,
  options: { dropDamaged?: boolean } = {},
): Promise<BankRepair> {
  await requireBank(folder);
  const report: BankRepair = { version: undefined, done: [], dropped: [], left: [] };
  const versions = await repairRoot(folder, sources, report);
  if (versions === undefined) return report;
  const manifest = await repairCurrent(versions, options, report);
  if (manifest === undefined) return report;
  const identity = await repairedIdentity(versions, manifest, sources, report);
  if (identity instanceof UserError) {
    report.left.push(identity);
    return report;
  }
  await new SegmentRepair(versions, sources, options, report).repair(manifest, identity);
  await removeDamagedIndexes(folder, report);
  await readWithdrawn(folder).catch((error: unknown) => {
    if (!(error instanceof UserError)) throw error;
    // What was deleted is known from nowhere else.
    report.left.push(error);
  });
  return report;
}

/** What a version was made for; its codecs are trained again when they are damaged. @returns the damage when that fails */
async function repairedIdentity(
  versions: Versions,
  manifest: Manifest,
  sources: RepairSources,
  report: BankRepair,
): Promise<BankIdentity | UserError> {
  try {
    return await versions.identityOf(manifest);
  } catch (error) {
    if (!(error instanceof UserError) || manifest.codecs === undefined) throw error;
    const { keys, values } = manifest.codecs;
    const made = await sources.codecs(manifest.codecs);
    if (made?.keys.stateHash === keys.stateHash && made.values.stateHash === values.stateHash) {
      await writeCodecs(versions.folder, made);
      report.done.push('trained the codecs again');
      return await versions.identityOf(manifest);
    }
    const what = 'it is damaged or gone, and no checkpoint of the run trains the same codecs again';
    const action = `restore the file from a copy, or delete ${versions.folder} and run \`memory3 compile\``;
    return new UserError(error.code, { where: error.where, what, action });
  }
}

/** An index holds nothing of its own: searches do without it until another is made. */
async function removeDamagedIndexes(folder: string, report: BankRepair): Promise<void> {
  for (const name of await indexesOnDisk(folder)) {
    try {
      await verifiedIndex(folder, name);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      await removeIndex(folder, name);
      report.done.push(`removed ${name}, which was damaged; \`memory3 bank tune\` makes another`);
    }
  }
}

async function requireBank(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  if (names.some((name) => name.startsWith('manifest-') || name.startsWith('segment-'))) return;
  const action = 'run `memory3 compile` to write one';
  throw new UserError('artefact_missing', { where: folder, what: 'there is no memory bank', action });
}

/** The current version; when CURRENT or its manifest is damaged, the newest whole one is made current. */
async function repairCurrent(
  versions: Versions,
  { dropDamaged }: { dropDamaged?: boolean },
  report: BankRepair,
): Promise<Manifest | undefined> {
  let damage: UserError | undefined;
  try {
    return await versions.current();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    damage = error;
  }
  const numbers = (await versions.numbers()).reverse();
  for (const number of numbers) {
    try {
      const manifest = await versions.read(number);
      const isNewest = number === numbers[0];
      if (!isNewest && !dropDamaged) {
        const what = `${damage.message.split('\n')[0]}. Version ${number} is whole; later changes, deletions too, would be lost`;
        report.left.push(new UserError('file_corrupt', { where: versions.folder, what, action: DROP }));
        return undefined;
      }
      await versions.makeCurrent(manifest);
      report.done.push(isNewest ? `CURRENT names version ${number} again` : `went back to version ${number}`);
      return manifest;
    } catch (error) {
      if (!(error instanceof UserError) || error.code === 'disk_full') throw error;
      damage = error;
    }
  }
  report.left.push(damage);
  return undefined;
}

/** What became of a damaged segment: the entry that takes its place, or none when nothing remains. */
type Outcome = { entry: SegmentEntry | undefined } | 'left';

class SegmentRepair {
  readonly #versions: Versions;
  readonly #sources: RepairSources;
  readonly #dropDamaged: boolean;
  readonly #report: BankRepair;
  /** Segments known to be whole: many versions name the same ones. */
  readonly #whole = new Set<string>();

  constructor(versions: Versions, sources: RepairSources, options: { dropDamaged?: boolean }, report: BankRepair) {
    this.#versions = versions;
    this.#sources = sources;
    this.#dropDamaged = options.dropDamaged ?? false;
    this.#report = report;
  }

  /** Repairs the segments of a version, commits what changed, and removes versions and files of no use. */
  async repair(current: Manifest, identity: BankIdentity): Promise<void> {
    const segments: SegmentEntry[] = [];
    let [changed, whole] = [false, true];
    for (const entry of current.segments) {
      const outcome = await this.#repairSegment(entry, identity, true);
      if (outcome === 'left') whole = false;
      const next = outcome === 'left' ? entry : outcome.entry;
      changed ||= next?.id !== entry.id;
      if (next !== undefined) segments.push(next);
    }
    const write = () => this.#versions.write(current.version + 1, segments, identity.codecs);
    const version = changed ? (await write()).version : current.version;
    this.#report.version = version;
    if (whole) await this.#removeUseless(version, changed ? current.version : undefined);
  }

  /** Older versions that cannot be read, and files that no version names. */
  async #removeUseless(version: number, replaced: number | undefined): Promise<void> {
    const keep = [version];
    for (const number of await this.#versions.numbers()) {
      if (number >= version || number === replaced) continue;
      if (await this.#isWhole(number)) keep.push(number);
      else this.#report.done.push(`removed version ${number}, which cannot be read any more`);
    }
    const before = await readdir(this.#versions.folder);
    await this.#versions.removeAllBut(keep);
    const after = new Set(await readdir(this.#versions.folder));
    const gone = before.filter((name) => !after.has(name) && !name.startsWith('manifest-'));
    if (gone.length > 0) this.#report.done.push(`removed ${gone.join(', ')}`);
  }

  async #isWhole(number: number): Promise<boolean> {
    try {
      const manifest = await this.#versions.read(number);
      const identity = await repairedIdentity(this.#versions, manifest, this.#sources, this.#report);
      if (identity instanceof UserError) return false;
      for (const entry of manifest.segments) {
        if ((await this.#repairSegment(entry, identity, false)) === 'left') return false;
      }
      return true;
    } catch (error) {
      if (error instanceof UserError && error.code !== 'disk_full') return false;
      throw error;
    }
  }

  /** @param isCurrent otherwise the segment is put back exactly or not at all */
  async #repairSegment(entry: SegmentEntry, identity: BankIdentity, isCurrent: boolean): Promise<Outcome> {
    const { folder } = this.#versions;
    const problems = this.#whole.has(entry.id) ? [] : await segmentProblems(folder, entry, identity);
    if (problems.length === 0) {
      this.#whole.add(entry.id);
      return { entry };
    }
    let reader: SegmentReader | undefined;
    try {
      reader = await SegmentReader.salvage(folder, entry, identity).catch(ignoreUserError);
      const remains = reader && (await this.#remains(reader, identity));
      if (remains === undefined) return await this.#giveUp(entry, reader, problems, isCurrent);
      return await this.#rebuild(entry, remains, problems, isCurrent);
    } finally {
      await reader?.close();
    }
  }

  async #remains(reader: SegmentReader, identity: BankIdentity): Promise<Remains | undefined> {
    const table = await reader.records().catch(ignoreUserError);
    if (table === undefined) return undefined;
    const { memories, writer } = reader.entry;
    const [rows, vectors] = [new Uint8Array(memories), new Uint8Array(memories)];
    for (let row = 0; row < memories; row++) {
      if ((await reader.rows(row, row + 1).catch(ignoreUserError)) !== undefined) rows[row] = 1;
      if ((await reader.vectors(row, row + 1).catch(ignoreUserError)) !== undefined) vectors[row] = 1;
    }
    // Retrieval vectors are made from memories as they were written, which codes do not give back.
    const isWritten = rows.includes(0) || (vectors.includes(0) && identity.codecs !== undefined);
    const rewrite = isWritten ? await this.#sources.rewriter(writer) : undefined;
    const encoder = vectors.includes(0) ? await this.#sources.encoder(identity) : undefined;
    return { identity, reader, table, rows, vectors, rewrite, encoder };
  }

  /** Writes the segment again: all its memories, or those that are wanted and can be had. */
  async #rebuild(entry: SegmentEntry, remains: Remains, problems: UserError[], isCurrent: boolean): Promise<Outcome> {
    const all = Array.from({ length: entry.memories }, (_, row) => row);
    const deleted = new Set(entry.deleted);
    const lost = all.filter((row) => remains.rows[row] === 0 && remains.rewrite === undefined);
    const lostLive = lost.filter((row) => !deleted.has(row));
    const where = segmentFolder(this.#versions.folder, entry.id);
    if (lost.length === 0) {
      const next = { ...(await this.#write(entry, remains, all)), deleted: entry.deleted };
      if (next.id !== entry.id && !isCurrent) return 'left';
      this.#report.done.push(`${where}: made ${namesOf(problems)} again`);
      return { entry: next };
    }
    if (!isCurrent) return 'left';
    if (lostLive.length > 0 && !this.#dropDamaged) {
      const names = lostLive.slice(0, 5).map((row) => remains.table.record(row).id);
      const more = lostLive.length > names.length ? ` and ${lostLive.length - names.length} more` : '';
      const what = `the key-values of ${names.join(', ')}${more} are lost, and the checkpoint ${entry.writer.slice(0, 12)} that wrote them is not at hand`;
      this.#report.left.push(new UserError('file_corrupt', { where, what, action: DROP }));
      return 'left';
    }
    this.#report.dropped.push(
      ...lostLive.map((row) => remains.table.record(row)).map(({ id, text }) => ({ id, text })),
    );
    const gone = new Set([...lost, ...deleted]);
    const kept = all.filter((row) => !gone.has(row));
    this.#report.done.push(`${where}: kept ${kept.length} of ${all.length - deleted.size} memories`);
    return { entry: kept.length === 0 ? undefined : await this.#write(entry, remains, kept) };
  }

  async #write(entry: SegmentEntry, remains: Remains, rows: readonly number[]): Promise<SegmentEntry> {
    const segment = await SegmentWriter.create(this.#versions.folder, remains.identity, entry.writer);
    try {
      for (let from = 0; from < rows.length; from += MEMORIES_AT_ONCE) {
        const batch = await recovered(remains, rows.slice(from, from + MEMORIES_AT_ONCE));
        await segment.add(batch, 0, batch.records.length);
      }
      return await segment.finish();
    } catch (error) {
      await segment.abandon();
      throw error;
    }
  }

  /** Nothing tells any more what the memories of a segment are. */
  async #giveUp(
    entry: SegmentEntry,
    reader: SegmentReader | undefined,
    problems: UserError[],
    isCurrent: boolean,
  ): Promise<Outcome> {
    if (!isCurrent) return 'left';
    const where = segmentFolder(this.#versions.folder, entry.id);
    const count = entry.memories - entry.deleted.length;
    if (!this.#dropDamaged) {
      const what = `the records of ${count} memories are lost (${namesOf(problems)})`;
      this.#report.left.push(new UserError('file_corrupt', { where, what, action: DROP }));
      return 'left';
    }
    const deleted = new Set(entry.deleted);
    const table = await reader?.uncheckedRecords().catch(() => undefined);
    for (let row = 0; row < entry.memories; row++) {
      if (!deleted.has(row)) this.#report.dropped.push(asFarAsReadable(table, row));
    }
    this.#report.done.push(`${where}: dropped ${count} memories`);
    return { entry: undefined };
  }
}

/** What can be read of a damaged segment, and what the rest is made with. */
interface Remains {
  identity: BankIdentity;
  reader: SegmentReader;
  table: RecordTable;
  /** 1 for each memory whose row, or vector, can be read. */
  rows: Uint8Array;
  vectors: Uint8Array;
  rewrite: Rewrite | undefined;
  encoder: RetrievalEncoder | undefined;
}

/** The memories `numbers` of a segment, with rows written and vectors encoded again where they are lost. */
async function recovered(remains: Remains, numbers: readonly number[]): Promise<StoredBatch> {
  const { identity, reader, table, rewrite, encoder } = remains;
  const format = rowFormat(identity);
  const { dimensions } = identity.encoder;
  const records = numbers.map((row) => table.record(row));
  const rows = new Uint8Array(numbers.length * format.rowBytes);
  const vectors = new Float32Array(numbers.length * dimensions);
  const [lostRows, lostVectors]: [number[], number[]] = [[], []];
  for (const [i, row] of numbers.entries()) {
    if (remains.rows[row] === 1) rows.set(await reader.rows(row, row + 1), i * format.rowBytes);
    else lostRows.push(i);
    if (remains.vectors[row] === 1) vectors.set(await reader.vectors(row, row + 1), i * dimensions);
    else lostVectors.push(i);
  }
  if (lostRows.length > 0 && rewrite !== undefined) {
    const written = await rewrite(lostRows.map((i) => records[i]!.tokens));
    put(rows, format.rowBytes, lostRows, await format.encode(written.rows));
    const kept = written.kept.length / lostRows.length;
    lostRows.forEach((i, n) => {
      const keptHere = written.kept.slice(n * kept, (n + 1) * kept);
      records[i] = { ...records[i]!, kept: keptHere, keptLength: written.keptLengths[n]! };
    });
  }
  if (lostVectors.length > 0 && encoder !== undefined) {
    const lost = new Uint8Array(lostVectors.length * format.rowBytes);
    for (const [n, i] of lostVectors.entries()) {
      lost.set(rows.subarray(i * format.rowBytes, (i + 1) * format.rowBytes), n * format.rowBytes);
    }
    const tokens = lostVectors.map((i) => records[i]!.tokens);
    const keptLengths = lostVectors.map((i) => records[i]!.keptLength);
    const texts = lostVectors.map((i) => records[i]!.text);
    const again = identity.codecs === undefined ? undefined : await rewrite?.(tokens);
    const values = again?.rows ?? (await rowValues(format, lost));
    const encoded = await encoder.encodeReferences({ texts, tokens, rows: values, keptLengths });
    put(vectors, dimensions, lostVectors, encoded);
  }
  return { records, rows, vectors };
}

/** Puts row n of `from` in the place of row `places[n]` of `to`. */
function put<T extends Uint8Array | Float32Array>(to: T, width: number, places: readonly number[], from: T): void {
  places.forEach((place, n) => {
    to.set(from.subarray(n * width, (n + 1) * width), place * width);
  });
}

function asFarAsReadable(table: RecordTable | undefined, row: number): DroppedMemory {
  try {
    const { id, text } = table!.record(row);
    return { id, text };
  } catch {
    return { id: 'unknown', text: '' };
  }
}

function namesOf(problems: readonly UserError[]): string {
  return problems.map(({ where = '' }) => where.split('/').at(-1)).join(', ');
}
