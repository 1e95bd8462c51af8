/**
 * Looking into a memory bank: what it holds, memories by words and by id. Each question opens the bank's current version and
 * reads one segment after the other, so a bank of any size takes a segment's memory and a change of version is followed.
 */

import { lstatSync, readdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { ReferenceDataset } from '../data/references.ts';
import { ignoreUserError, isSystemError, UserError } from '../errors.ts';
import type { BankIdentity, MemoryRecord } from '../memory/layout.ts';
import { type Manifest, Versions } from '../memory/manifest.ts';
import type { RecordTable } from '../memory/records.ts';
import { type SegmentEntry, SegmentReader } from '../memory/segment.ts';
import type { BankAnswer, FoundMemory } from './api.ts';
import { isInside } from './run_file.ts';
import { Search } from './word_search.ts';

/** A file of a bank that is read whole is not larger. */
const LARGEST_JSON = 64 * 2 ** 20;
const LARGEST_WHOLE = 2 ** 30;
/** A search gives what it has found after so many milliseconds. */
const SEARCH_MS = 8000;
/** The address of a memory is looked for among so many references at most: all are read for it. */
const MOST_REFERENCES = 100_000;

/** A bank folder, and the resolved folder that its files must lie in. */
export interface BankPlace {
  folder: string;
  within: string;
}

/** What a memory's page needs of the bank. */
export interface StoredMemory extends Omit<MemoryRecord, 'tokens' | 'kept'> {
  writer: string;
  tokens: number[];
  /** [memoryLayers][kvHeads][≤ keptTokens] */
  kept: number[][][];
}

export async function describeBank(place: BankPlace): Promise<BankAnswer> {
  const bytes = checkFiles(place);
  return await withCurrent(place, async ({ version, segments }, { layout, encoder }) => ({
    memories: segments.reduce((sum, { memories, deleted }) => sum + memories - deleted.length, 0),
    version,
    segments: segments.map(({ id, memories, deleted, writer }) => ({
      name: id,
      memories: memories - deleted.length,
      writer,
    })),
    layout,
    encoder: encoder.description,
    bytes,
  }));
}

/** The memories that fit the words best; without words the first ones. @throws UserError when the bank is damaged */
export async function findMemories(place: BankPlace, text: string, limit: number): Promise<FoundMemory[]> {
  checkFiles(place);
  return await withCurrent(place, async ({ segments }, identity) => {
    const search = new Search(text, limit);
    const deadline = performance.now() + SEARCH_MS;
    for (const entry of segments) {
      if (search.isFull || performance.now() > deadline) break;
      await withRecords(place, entry, identity, (table) => searchSegment(search, table, entry));
    }
    return search.found();
  });
}

function searchSegment(search: Search, table: RecordTable, { deleted }: SegmentEntry): void {
  const gone = new Set(deleted);
  const texts = table.texts('text');
  const titles = table.texts('title');
  for (let row = 0; row < table.length && !search.isFull; row++) {
    if (gone.has(row)) continue;
    search.offer(titles[row]!, texts[row]!, () => {
      const { id, document, title, text } = table.record(row);
      return { id, document, title, text };
    });
  }
}

/** @throws UserError memory_unknown, file_corrupt */
export async function getMemory(place: BankPlace, id: string): Promise<StoredMemory> {
  checkFiles(place);
  return await withCurrent(place, async ({ segments, version }, identity) => {
    for (const entry of segments) {
      const record = await withRecords(place, entry, identity, (table) => {
        const row = table.texts('id').indexOf(id);
        return row < 0 || entry.deleted.includes(row) ? undefined : table.record(row);
      });
      if (record === undefined) continue;
      const { tokens, kept, ...rest } = record;
      return {
        ...rest,
        writer: entry.writer,
        tokens: [...tokens],
        kept: keptPositions(kept, record.keptLength, identity),
      };
    }
    throw new UserError('memory_unknown', { what: `version ${version} of the bank holds no memory of this id` });
  });
}

/**
 * Address of the document that a memory was cut from. The bank does not hold it; the references of the run do, while they are
 * there, where the corpus had one.
 * @param references the folder of the references
 */
export async function addressOf(references: BankPlace, id: string): Promise<string | undefined> {
  try {
    checkFiles(references);
    const dataset = await ReferenceDataset.open(references.folder);
    return dataset.size > MOST_REFERENCES ? undefined : await dataset.addressOf(id);
  } catch (error) {
    return ignoreUserError(error);
  }
}

function keptPositions(kept: Int32Array, length: number, { layout }: Pick<BankIdentity, 'layout'>): number[][][] {
  const { memoryLayers, kvHeads, keptTokens } = layout;
  return Array.from({ length: memoryLayers }, (_, layer) =>
    Array.from({ length: kvHeads }, (_, head) => {
      const at = (layer * kvHeads + head) * keptTokens;
      return [...kept.subarray(at, at + length)].sort((a, b) => a - b);
    }),
  );
}

/**
 * Does `work` with the current version. A writer may remove segments of an old version while they are read: then the next
 * version is taken.
 */
async function withCurrent<T>(
  { folder }: BankPlace,
  work: (manifest: Manifest, identity: BankIdentity) => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    const versions = await Versions.open(folder);
    const manifest = await versions.current();
    try {
      return await work(manifest, await versions.identityOf(manifest));
    } catch (error) {
      const isGone = error instanceof UserError && error.code === 'artefact_missing';
      if (!isGone || attempt === 2 || (await versions.current()).version === manifest.version) throw error;
    }
  }
}

async function withRecords<T>(
  { folder }: BankPlace,
  entry: SegmentEntry,
  identity: BankIdentity,
  work: (table: RecordTable) => T,
): Promise<T> {
  const reader = await SegmentReader.open(folder, entry, identity);
  try {
    return work(await reader.records());
  } finally {
    await reader.close();
  }
}

/**
 * Refuses a bank with anything in it but files and folders that lie in the runs folder.
 * @returns the bytes of its files
 * @throws UserError file_corrupt, artefact_missing
 */
export function checkFiles({ folder, within }: BankPlace): number {
  const refuse = (path: string, what: string): never => {
    throw new UserError('file_corrupt', { where: path, what });
  };
  const visit = (path: string): number => {
    const stats = lstatSync(path);
    if (stats.isSymbolicLink()) {
      if (!isInside(realpathSync(path), within)) refuse(path, 'it leads out of the runs folder');
      return visit(realpathSync(path));
    }
    if (stats.isDirectory()) return readdirSync(path).reduce((sum, name) => sum + visit(join(path, name)), 0);
    if (!stats.isFile()) refuse(path, 'it is no regular file');
    const largest = /\.json$|CURRENT$/.test(path)
      ? LARGEST_JSON
      : /arrow$|encoder\.bin$/.test(path)
        ? LARGEST_WHOLE
        : Number.POSITIVE_INFINITY;
    if (stats.size > largest) refuse(path, `it is larger than ${largest} bytes`);
    return stats.size;
  };
  try {
    return visit(folder);
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new UserError('artefact_missing', {
      where: folder,
      what: 'there is no memory bank, or it changes just now',
      cause: error,
    });
  }
}
