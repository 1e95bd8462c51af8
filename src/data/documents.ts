/** Text corpora as a stream of documents. What cannot be used is counted by reason and named, never dropped silently. */

import { setImmediate } from 'node:timers/promises';
import type { SourceConfig } from '../config/schema.ts';
import { isSystemError } from '../errors.ts';
import { EXAMPLES_PER_REASON, type Example } from './report.ts';
import { readArrow } from './sources/arrow.ts';
import { type Format, findFiles, type SourceFile, systemProblem } from './sources/files.ts';
import { readJsonl } from './sources/jsonl.ts';
import { readParquet } from './sources/parquet.ts';
import { BrokenFile, excerptOf, type Problem, type Report, type SkipReason, strictError } from './sources/problem.ts';
import type { Document, Reader } from './sources/reader.ts';
import { readText } from './sources/text.ts';

export type { SourceFile } from './sources/files.ts';
export { placeOf, type SkipReason } from './sources/problem.ts';
export type { Document } from './sources/reader.ts';

export interface DataCounters {
  /** Documents handed on. */
  documents: number;
  /** UTF-8 bytes of their texts. */
  bytes: number;
  skipped: Partial<Record<SkipReason, number>>;
  /** The first few skipped records of each reason. */
  examples: (Example & { reason: SkipReason })[];
}

export interface ListOptions {
  /** Ends at the first bad input with a UserError instead of counting it. */
  strict?: boolean;
}

export interface ReadOptions extends ListOptions {
  /** Documents with fewer characters (code units, white space at the ends not counted) are skipped. */
  minCharacters?: number;
  /** Skip documents whose id was met before; costs memory for every id. */
  uniqueIds?: boolean;
  /** Told how far into a file, in bytes as it lies on the disk, reading has come; the documents of those bytes follow. */
  onBytes?: (path: string, bytesOnDisk: number) => void;
}

const READERS: Record<Format, Reader> = { jsonl: readJsonl, text: readText, parquet: readParquet, arrow: readArrow };
/** After so many characters other work has its turn. */
const TURN = 2 ** 20;

export function newCounters(): DataCounters {
  return { documents: 0, bytes: 0, skipped: {}, examples: [] };
}

/** Counts a record that is not used; `detail` says more than the reason, `excerpt` is the beginning of its text. */
export function countSkipped(
  counters: DataCounters,
  reason: SkipReason,
  at: Document['source'],
  detail: string = reason,
  excerpt?: string,
): void {
  const before = counters.skipped[reason] ?? 0;
  counters.skipped[reason] = before + 1;
  if (before >= EXAMPLES_PER_REASON) return;
  const example = { reason, path: at.path, offset: at.offset, detail };
  counters.examples.push(excerpt === undefined ? example : { ...example, excerpt });
}

/**
 * The files of `sources`, in the order of the configuration and inside a folder by name (code units). Folders are
 * walked; entries whose name starts with a dot and files of other extensions are left out. What is not there or cannot
 * be opened is counted.
 * @throws UserError input_invalid (a file whose format cannot be told), input_empty (a folder without files); with
 * `strict` also input_missing, input_invalid for what would be counted
 */
export async function listSourceFiles(
  sources: readonly SourceConfig[],
  counters: DataCounters = newCounters(),
  { strict = false }: ListOptions = {},
): Promise<SourceFile[]> {
  return await findFiles(sources, reporter(counters, strict));
}

/**
 * Streams the documents of `sources` in a fixed order (sources, files by name, records), one record in memory at a time,
 * of tables a page or a batch, and counts them in `counters`. A record, a file or a path that cannot be read is counted,
 * and reading goes on behind it.
 * @throws UserError as {@link listSourceFiles}; with `strict` at the first bad input. Empty and short texts and duplicate
 * ids are no bad input.
 */
export async function* readDocuments(
  sources: readonly SourceConfig[],
  counters: DataCounters,
  { minCharacters = 1, uniqueIds = false, strict = false, onBytes }: ReadOptions = {},
): AsyncGenerator<Document> {
  const report = reporter(counters, strict);
  const ids = new Set<string>();
  let turn = 0;
  for (const file of await findFiles(sources, report)) {
    for await (const document of readFile(file, report, onBytes)) {
      turn += document.text.length;
      if (turn > TURN) {
        turn = 0;
        await setImmediate();
      }
      const problem = problemOf(document, minCharacters, ids);
      if (problem) {
        report({ ...problem, ...document.source, excerpt: excerptOf(document.text) });
        continue;
      }
      if (uniqueIds) ids.add(document.id);
      counters.documents += 1;
      counters.bytes += Buffer.byteLength(document.text);
      yield document;
    }
  }
}

function reporter(counters: DataCounters, strict: boolean): Report {
  return (problem) => {
    const error = strict ? strictError(problem) : undefined;
    if (error) throw error;
    const { reason, path, offset, detail, excerpt } = problem;
    countSkipped(counters, reason, { path, offset }, detail, excerpt);
  };
}

/** The documents of a file, up to where it cannot be read on. */
async function* readFile(file: SourceFile, report: Report, onBytes: ReadOptions['onBytes']): AsyncGenerator<Document> {
  const { path, format } = file;
  try {
    yield* READERS[format](file, report, onBytes && ((bytes) => onBytes(path, bytes)));
  } catch (error) {
    if (error instanceof BrokenFile)
      report({ reason: error.reason, path, offset: error.offset, detail: error.message });
    else if (isSystemError(error) && error.syscall !== undefined) report(systemProblem(path, error));
    else throw error;
  }
}

function problemOf(
  { id, text }: Document,
  minCharacters: number,
  ids: ReadonlySet<string>,
): Pick<Problem, 'reason' | 'detail'> | undefined {
  const length = text.trim().length;
  if (length === 0) return { reason: 'empty text' };
  if (length < minCharacters) return { reason: 'too short', detail: `${length} characters` };
  if (/\p{Surrogate}/u.test(text)) return { reason: 'invalid Unicode', detail: 'half of a surrogate pair' };
  if (ids.has(id)) return { reason: 'duplicate id', detail: id };
  return undefined;
}
