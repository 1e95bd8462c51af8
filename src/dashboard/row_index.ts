/**
 * The index of one stage's rows, in a folder of our cache:
 *
 *   meta.json        how far the file is indexed, the names of its columns and media; replaced last, so it never promises more
 *                    than there is
 *   <column>.<level> float64 records [least, greatest, sum, count], one for every BLOCK · FANOUT^level rows; no values: count 0,
 *                    also where the file has a hole or ends
 *   marks            float64 pairs [offset, checksum] for row 0, MARK_ROWS, 2 · MARK_ROWS, …
 *   media-<number>   float64 triples [row, start, end]: where the lines lie that hold this media
 *
 * The rows themselves stay in the run: single rows are read from there.
 */

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { isSystemError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { MEDIA_TYPES } from '../tracking/values.ts';
import type { RunFile } from './run_file.ts';

/** Rows of a record of level 0, and records that one of the next level stands for. */
export const BLOCK = 8;
export const FANOUT = 8;
export const LEVELS = 6;
/** Numbers of a record. */
export const RECORD = 4;
export const RECORD_BYTES = RECORD * 8;
/** Rows between two places that are remembered. A multiple of BLOCK. */
export const MARK_ROWS = 1024;
export const MARK_BYTES = 16;
export const MEDIA_BYTES = 24;
/** Bytes before a place that its checksum covers: they hold a time in milliseconds, so a row written again differs. */
const CHECKED_BYTES = 256;

const FORMAT_VERSION = 1;

const stateSchema = z.strictObject({
  version: z.literal(FORMAT_VERSION),
  /** The indexed file. */
  source: z.string(),
  /** Rows that are indexed, a multiple of BLOCK, and the byte behind them. */
  rows: z.int().min(0),
  offset: z.int().min(0),
  /** Checksum of the bytes before `offset`. */
  checksum: z.int(),
  /** Names of the columns, by number. */
  keys: z.array(z.string()),
  media: z.array(
    z.strictObject({
      key: z.string(),
      type: z.enum(MEDIA_TYPES),
      count: z.int().min(0),
    }),
  ),
  /** A line behind the indexed ones that is no row. */
  problem: z.string().optional(),
});

/** How far a file is indexed. */
export type IndexState = z.infer<typeof stateSchema>;

export function emptyState(source: string): IndexState {
  return { version: FORMAT_VERSION, source, rows: 0, offset: 0, checksum: 0, keys: [], media: [] };
}

/** Rows that a record of a level stands for. */
export function rowsOfRecord(level: number): number {
  return BLOCK * FANOUT ** level;
}

export function columnFile(folder: string, column: number, level: number): string {
  return join(folder, `${column}.${level}`);
}

export function marksFile(folder: string): string {
  return join(folder, 'marks');
}

export function mediaFile(folder: string, media: number): string {
  return join(folder, `media-${media}`);
}

export function metaFile(folder: string): string {
  return join(folder, 'meta.json');
}

/** `meta.json` as it is written: the state behind its hash. */
export function encodeState(state: IndexState): string {
  const text = JSON.stringify(state);
  return `${sha256(text)} ${text}\n`;
}

/** The state of a cached index; undefined when there is none, or it is damaged or that of another file. */
export function readState(folder: string, source: string): IndexState | undefined {
  try {
    const text = readFileSync(metaFile(folder), 'utf8');
    const body = text.slice(text.indexOf(' ') + 1, -1);
    if (text !== `${sha256(body)} ${body}\n`) return undefined;
    const parsed = stateSchema.safeParse(JSON.parse(body));
    return parsed.success && parsed.data.source === source ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** Checksum of the bytes before a place; 0 at the begin. */
export function checksumBefore(file: RunFile, offset: number): number {
  const length = Math.min(CHECKED_BYTES, offset);
  return length === 0 ? 0 : crc32(file.read(offset - length, length));
}

/** Whether the file still begins with the rows that are indexed. */
export function isPrefix(state: Pick<IndexState, 'offset' | 'checksum'>, file: RunFile): boolean {
  return file.size >= state.offset && checksumBefore(file, state.offset) === state.checksum;
}

/** Numbers [from, to) of a file of float64, zero behind its end. A file that is not there is all zeros. */
export function readNumbers(path: string, from: number, to: number): Float64Array {
  const numbers = new Float64Array(Math.max(0, to - from));
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return numbers;
    throw error;
  }
  try {
    const bytes = new Uint8Array(numbers.buffer);
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(fd, bytes, done, bytes.length - done, from * 8 + done);
      if (read === 0) break;
      done += read;
    }
    return numbers;
  } finally {
    closeSync(fd);
  }
}
