/** Rows of a JSON Lines file, found by where their bytes lie. */

import { isMedia, MEDIA_TYPES, type MetricsRow, type MetricValue, rowOf } from '../tracking/values.ts';
import { damaged } from './refused.ts';
import type { RunFile } from './run_file.ts';

/** A line that is longer is taken for damage. */
export const LONGEST_LINE = 16 * 2 ** 20;
const NEWLINE = 0x0a;
const FIRST_READ = 4096;

/** A row and the place of its line. */
export interface PlacedRow {
  row: MetricsRow;
  /** Bytes [start, end), without the line break. */
  start: number;
  end: number;
}

/** Places [start, end) of the complete lines in `bytes`. */
export function* linesIn(bytes: Buffer): Generator<{ start: number; end: number }> {
  let start = 0;
  for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
    yield { start, end };
    start = end + 1;
  }
}

/** All complete rows in bytes [from, to), which begin with a line. @throws Refused for a line that is no row */
export function rowsBetween(file: RunFile, from: number, to: number): PlacedRow[] {
  const bytes = file.read(from, to - from);
  const rows: PlacedRow[] = [];
  for (const { start, end } of linesIn(bytes)) {
    const row = rowOf(bytes.toString('utf8', start, end));
    if (row === undefined) throw damaged(`a line at byte ${from + start} is not a row of metrics`);
    rows.push({ row, start: from + start, end: from + end });
  }
  return rows;
}

/** The first complete row that begins at or behind byte `from`; undefined when there is none. */
export function rowBehind(file: RunFile, from: number): PlacedRow | undefined {
  // A line begins behind a line break, so the byte before is looked at, too.
  const begin = Math.max(0, from - 1);
  for (let length = FIRST_READ; ; length *= 4) {
    const bytes = file.read(begin, length);
    const start = from === 0 ? 0 : bytes.indexOf(NEWLINE) + 1;
    const end = start === 0 && from > 0 ? -1 : bytes.indexOf(NEWLINE, start);
    if (end >= 0) {
      const row = rowOf(bytes.toString('utf8', start, end));
      return row && { row, start: begin + start, end: begin + end };
    }
    if (begin + bytes.length >= file.size || length >= LONGEST_LINE) return undefined;
  }
}

/** The last complete lines in the last `bytes` of a file; more bytes are read when they hold no whole line. */
export function lastLines(file: RunFile, bytes: number): string[] {
  for (let length = Math.min(bytes, file.size); ; length = Math.min(file.size, length * 4)) {
    const from = file.size - length;
    const read = file.read(from, length);
    const start = from === 0 ? 0 : read.indexOf(NEWLINE) + 1;
    const end = read.lastIndexOf(NEWLINE);
    if (end > start || (end >= 0 && from === 0)) return read.toString('utf8', start, end).split('\n');
    if (from === 0 || length > LONGEST_LINE) return [];
  }
}

/** The last complete line that holds `text`, looked for in the last `most` bytes or a little more. */
export function lastLineWith(file: RunFile, text: string, most: number): string | undefined {
  for (let length = 2 ** 17; ; length *= 4) {
    const from = Math.max(0, file.size - length);
    const bytes = file.read(from, length);
    const at = bytes.lastIndexOf(text, bytes.lastIndexOf(NEWLINE));
    const start = at < 0 ? -1 : bytes.lastIndexOf(NEWLINE, at) + 1;
    if (start > 0 || (start === 0 && from === 0)) return bytes.toString('utf8', start, bytes.indexOf(NEWLINE, at));
    if (from === 0 || length >= most) return undefined;
  }
}

/** Up to `count` rows at places spread evenly over bytes [from, to), in their order; each once. */
export function spreadRows(file: RunFile, count: number, from = 0, to = file.size): PlacedRow[] {
  const rows: PlacedRow[] = [];
  for (let i = 0; i < count; i++) {
    const at = Math.floor(from + ((to - from) * i) / count);
    if (at < (rows.at(-1)?.end ?? -1)) continue;
    const found = rowBehind(file, at);
    if (found !== undefined && found.start < to && found.start > (rows.at(-1)?.start ?? -1)) rows.push(found);
  }
  return rows;
}

/** The value when it is a finite number. */
export function numberIn(row: MetricsRow | undefined, key: string): number | undefined {
  const value = row?.[key];
  return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
}

/** Whether a value of a row is media that we know how to show. */
export function isKnownMedia(value: MetricValue | undefined): boolean {
  return isMedia(value) && MEDIA_TYPES.includes(value.type);
}
