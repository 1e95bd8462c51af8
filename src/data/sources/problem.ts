/** What cannot be read or used, how it is named, and where. */

import { extname } from 'node:path';
import { UserError } from '../../errors.ts';

export type SkipReason =
  | 'no such file'
  | 'cannot be opened'
  | 'loop of links'
  | 'empty file'
  | 'ends too early'
  | 'damaged'
  | 'not supported'
  | 'unknown encoding'
  | 'invalid UTF-8'
  | 'invalid Unicode'
  | 'invalid JSON'
  | 'no text field'
  | 'too long'
  | 'empty text'
  | 'too short'
  | 'duplicate id';

/** Something that is left out. */
export interface Problem {
  reason: SkipReason;
  path: string;
  /** As in the source of a document: byte of the uncompressed text, in tables the row. */
  offset: number;
  /** Says more than the reason. */
  detail?: string;
  /** The beginning of the text or line, where there is one. */
  excerpt?: string;
}

/** Takes note of a problem, or throws. */
export type Report = (problem: Problem) => void;

/** Longer records are left out: a record is held whole, several times over while it is made a document. */
export const MAX_RECORD_BYTES = 64 * 2 ** 20;

/** Readable records that are not used on purpose. */
const NOT_WANTED: ReadonlySet<SkipReason> = new Set<SkipReason>(['empty text', 'too short', 'duplicate id']);
/** Problems of a whole file or folder: it has no place in it. */
const OF_FILES: ReadonlySet<SkipReason> = new Set<SkipReason>([
  'no such file',
  'cannot be opened',
  'loop of links',
  'empty file',
]);
const TABLES: ReadonlySet<string> = new Set(['.parquet', '.arrow', '.arrows', '.feather', '.ipc']);
const EXCERPT_CHARACTERS = 200;

/** Thrown by a reader where it cannot go on in its file. */
export class BrokenFile extends Error {
  readonly reason: SkipReason;
  readonly offset: number;

  constructor(reason: SkipReason, offset: number, detail: string = reason) {
    super(detail);
    this.name = 'BrokenFile';
    this.reason = reason;
    this.offset = offset;
  }
}

/** `corpus.parquet at row 12`, `corpus.jsonl at byte 120`: by the extension of the file. */
export function placeOf(path: string, offset: number): string {
  return `${path} at ${TABLES.has(extname(path).toLowerCase()) ? 'row' : 'byte'} ${offset}`;
}

/** The beginning of a text, with nothing in it that is no Unicode. */
export function excerptOf(text: string | Buffer, characters = EXCERPT_CHARACTERS): string {
  const start = typeof text === 'string' ? text : text.subarray(0, 4 * characters).toString('utf8');
  return start.slice(0, characters).replace(/\p{Surrogate}/gu, '\ufffd');
}

/** True when what is left out for this reason is a fault of the input. */
export function isBadInput(reason: string): boolean {
  return !NOT_WANTED.has(reason as SkipReason);
}

/** The error of a strict build at bad input; undefined for what is left out on purpose. */
export function strictError({ reason, path, offset, detail }: Problem): UserError | undefined {
  if (!isBadInput(reason)) return undefined;
  return new UserError(reason === 'no such file' ? 'input_missing' : 'input_invalid', {
    where: OF_FILES.has(reason) ? path : placeOf(path, offset),
    what: detail === undefined || detail === reason ? reason : `${reason}: ${detail}`,
    action: 'mend it or take it out; without `data.strict` it is left out, counted and named',
  });
}
