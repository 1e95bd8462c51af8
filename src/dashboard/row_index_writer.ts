/** Brings the index of one file forward, a part at a time. All state lies in the index's files. */

import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { temporaryName } from '../io/files.ts';
import { type Media, type MetricsRow, rowOf } from '../tracking/values.ts';
import {
  BLOCK,
  checksumBefore,
  columnFile,
  emptyState,
  encodeState,
  FANOUT,
  type IndexState,
  isPrefix,
  LEVELS,
  MARK_BYTES,
  MARK_ROWS,
  MEDIA_BYTES,
  marksFile,
  mediaFile,
  metaFile,
  RECORD,
  RECORD_BYTES,
  readNumbers,
  readState,
  rowsOfRecord,
} from './row_index.ts';
import { isKnownMedia, LONGEST_LINE, linesIn } from './rows.ts';
import { RunFile } from './run_file.ts';

/** Columns beyond are left out, so that a file of random names does not fill the disk. */
const MOST_COLUMNS = 2000;
const MOST_MEDIA = 500;
const READ_BYTES = 2 ** 20;
/** Columns that every row has a value in, its own or that of the row before: they serve as axes. */
export const AXES = ['step', 'time/unix_s', 'train/tokens'] as const;

export interface IndexJob {
  /** The file and the resolved folder that it must lie in. */
  path: string;
  within: string;
  /** Folder of the index. */
  folder: string;
  /** Bytes of rows that are taken in at most. */
  bytes: number;
}

/**
 * Takes in up to `bytes` more bytes of rows, after cutting back what a resumed run wrote anew.
 * @returns how far the file is indexed now
 * @throws Refused when the file cannot be opened
 */
export function advance({ path, within, folder, bytes }: IndexJob): IndexState {
  const file = RunFile.open(path, within);
  if (file === undefined) return emptyState(path);
  try {
    mkdirSync(folder, { recursive: true });
    const state = cutBack(folder, startState(folder, path), file);
    const part = new Part(folder, state, file);
    part.take(bytes);
    return part.finish();
  } finally {
    file.close();
  }
}

/** The state to go on from; whatever else lies in the folder goes. */
function startState(folder: string, path: string): IndexState {
  const state = readState(folder, path);
  if (state !== undefined && isWhole(folder, state)) return state;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return emptyState(path);
}

/** Whether the files hold what the state promises. The axes have a value in every row, so their length is known. */
export function isWhole(folder: string, state: IndexState): boolean {
  const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (sizeOf(marksFile(folder)) < Math.ceil(state.rows / MARK_ROWS) * MARK_BYTES) return false;
  const isMediaThere = state.media.every(({ count }, i) => sizeOf(mediaFile(folder, i)) >= count * MEDIA_BYTES);
  const levels = Array.from({ length: LEVELS }, (_, level) => level);
  return (
    isMediaThere &&
    state.keys.every((_, column) =>
      levels.every((level) => {
        const records = Math.floor(state.rows / rowsOfRecord(level));
        return sizeOf(columnFile(folder, column, level)) >= records * RECORD_BYTES;
      }),
    )
  );
}

/** Drops what is behind the last place up to which the file is still as it was. */
function cutBack(folder: string, state: IndexState, file: RunFile): IndexState {
  const { problem, ...kept } = state;
  if (isPrefix(state, file)) return kept;
  const marks = readNumbers(marksFile(folder), 0, Math.ceil(state.rows / MARK_ROWS) * 2);
  const isSame = (mark: number) => isPrefix({ offset: marks[2 * mark]!, checksum: marks[2 * mark + 1]! }, file);
  // Mark 0 is the begin of the file and always holds; behind the first that does not none does.
  let [good, bad] = [0, marks.length / 2];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (isSame(middle)) good = middle;
    else bad = middle;
  }
  const rows = marks.length === 0 ? 0 : good * MARK_ROWS;
  const media = state.media.map((one, i) => ({ ...one, count: mediaBefore(mediaFile(folder, i), one.count, rows) }));
  const offset = marks[2 * good] ?? 0;
  const cut = { ...kept, rows, offset, checksum: checksumBefore(file, offset), media };
  writeState(folder, cut);
  for (let column = 0; column < state.keys.length; column++) {
    for (let level = 0; level < LEVELS; level++) {
      truncateSync(columnFile(folder, column, level), Math.floor(rows / rowsOfRecord(level)) * RECORD_BYTES);
    }
  }
  return cut;
}

function mediaBefore(path: string, count: number, row: number): number {
  const places = readNumbers(path, 0, count * 3);
  let before = 0;
  while (before < count && places[before * 3]! < row) before += 1;
  return before;
}

function writeState(folder: string, state: IndexState): void {
  const temporary = temporaryName(metaFile(folder));
  writeFileSync(temporary, encodeState(state));
  renameSync(temporary, metaFile(folder));
}

/** A column's records of the rows that are being taken in. */
class Column {
  #records = new Float64Array(256 * RECORD);
  #block = -1;

  /** @param block counted from the first of this part */
  add(block: number, value: number): void {
    if ((block + 1) * RECORD > this.#records.length) {
      const grown = new Float64Array(this.#records.length * 2 + block * RECORD);
      grown.set(this.#records);
      this.#records = grown;
    }
    const records = this.#records;
    const at = block * RECORD;
    if (block !== this.#block) {
      records[at] = value;
      records[at + 1] = value;
      this.#block = block;
    } else {
      if (value < records[at]!) records[at] = value;
      if (value > records[at + 1]!) records[at + 1] = value;
    }
    records[at + 2]! += value;
    records[at + 3]! += 1;
  }

  /** The records of the first `blocks` blocks. */
  records(blocks: number): Float64Array {
    const wanted = new Float64Array(blocks * RECORD);
    wanted.set(this.#records.subarray(0, Math.min(wanted.length, this.#records.length)));
    return wanted;
  }
}

/** The rows that one call takes in. */
class Part {
  readonly #folder: string;
  readonly #state: IndexState;
  readonly #file: RunFile;
  readonly #columns: Column[];
  readonly #numbers: Map<string, number>;
  readonly #media: Map<string, number>;
  readonly #mediaTypes: IndexState['media'];
  /** Places of media in this part: [media, row, start, end]. */
  #places: [number, number, number, number][] = [];
  #marks: number[] = [];
  #rows = 0;
  /** Byte behind the last whole block. */
  #offset: number;
  #problem: string | undefined;
  #axes = new Map<string, number>();

  constructor(folder: string, state: IndexState, file: RunFile) {
    this.#folder = folder;
    this.#state = state;
    this.#file = file;
    this.#offset = state.offset;
    this.#numbers = new Map(state.keys.map((key, i) => [key, i]));
    this.#columns = state.keys.map(() => new Column());
    this.#mediaTypes = state.media.map((one) => ({ ...one }));
    this.#media = new Map(state.media.map(({ key }, i) => [key, i]));
    for (const axis of AXES) this.#axes.set(axis, this.#lastOf(axis));
  }

  /** The value of an axis in the last indexed row. */
  #lastOf(axis: string): number {
    const column = this.#numbers.get(axis);
    const block = this.#state.rows / BLOCK - 1;
    if (column === undefined || block < 0) return 0;
    return readNumbers(columnFile(this.#folder, column, 0), block * RECORD, (block + 1) * RECORD)[1]!;
  }

  take(bytes: number): void {
    const end = this.#file.size;
    const until = Math.min(end, this.#state.offset + bytes);
    let length = READ_BYTES;
    for (let at = this.#state.offset; at < end && this.#problem === undefined; ) {
      // Whole blocks are wanted, so the last one is read to its end.
      if (at >= until && this.#rows % BLOCK === 0) return;
      const buffer = this.#file.read(at, length);
      const taken = this.#takeLines(buffer, at, until);
      at += taken;
      if (taken > 0) length = READ_BYTES;
      else if (at + buffer.length >= end) return;
      else if (length > LONGEST_LINE) this.#problem = `row ${this.#row + 1} is longer than ${LONGEST_LINE} bytes`;
      else length *= 4;
    }
  }

  get #row(): number {
    return this.#state.rows + this.#rows;
  }

  /** @returns bytes of the lines that were taken */
  #takeLines(buffer: Buffer, at: number, until: number): number {
    let taken = 0;
    for (const { start, end } of linesIn(buffer)) {
      const row = rowOf(buffer.toString('utf8', start, end));
      if (row === undefined || !isNumber(row.step)) {
        this.#problem = `line ${this.#row + 1} is not a row of metrics`;
        return taken;
      }
      if (this.#row % MARK_ROWS === 0) this.#marks.push(at + start, checksumBefore(this.#file, at + start));
      this.#takeRow(row, at + start, at + end);
      this.#rows += 1;
      taken = end + 1;
      if (this.#rows % BLOCK !== 0) continue;
      this.#offset = at + taken;
      if (this.#offset >= until) break;
    }
    return taken;
  }

  #takeRow(row: MetricsRow, start: number, end: number): void {
    const block = Math.floor(this.#rows / BLOCK);
    for (const axis of AXES) {
      const value = row[axis];
      if (isNumber(value)) this.#axes.set(axis, value);
      this.#column(axis)?.add(block, this.#axes.get(axis)!);
    }
    for (const key in row) {
      const value = row[key];
      if (isNumber(value)) {
        if (!this.#axes.has(key)) this.#column(key)?.add(block, value);
      } else if (isKnownMedia(value)) {
        const media = this.#mediaOf(key, (value as Media).type);
        if (media !== undefined) this.#places.push([media, this.#row, start, end]);
      }
    }
  }

  #column(key: string): Column | undefined {
    let number = this.#numbers.get(key);
    if (number === undefined) {
      if (this.#columns.length >= MOST_COLUMNS) return undefined;
      number = this.#columns.push(new Column()) - 1;
      this.#numbers.set(key, number);
      // What a killed process left of such a column is not of this one.
      for (let level = 0; level < LEVELS; level++) rmSync(columnFile(this.#folder, number, level), { force: true });
    }
    return this.#columns[number];
  }

  #mediaOf(key: string, type: Media['type']): number | undefined {
    const known = this.#media.get(key);
    if (known !== undefined) return this.#mediaTypes[known]!.type === type ? known : undefined;
    if (this.#mediaTypes.length >= MOST_MEDIA) return undefined;
    const number = this.#mediaTypes.push({ key, type, count: 0 }) - 1;
    this.#media.set(key, number);
    return number;
  }

  /** Writes records, places and marks, then the state that counts them. */
  finish(): IndexState {
    const blocks = Math.floor(this.#rows / BLOCK);
    const before = this.#state.rows;
    const rows = before + blocks * BLOCK;
    this.#columns.forEach((column, number) => {
      writeNumbers(columnFile(this.#folder, number, 0), (before / BLOCK) * RECORD, column.records(blocks));
      for (let level = 1; level < LEVELS; level++) summarize(this.#folder, number, level, before, rows);
    });
    this.#writeMedia(rows);
    writeNumbers(marksFile(this.#folder), Math.ceil(before / MARK_ROWS) * 2, Float64Array.from(this.#marks));
    const state: IndexState = {
      version: this.#state.version,
      source: this.#state.source,
      rows,
      offset: this.#offset,
      checksum: checksumBefore(this.#file, this.#offset),
      keys: [...this.#numbers.keys()],
      media: this.#mediaTypes,
      ...(this.#problem !== undefined && { problem: this.#problem }),
    };
    writeState(this.#folder, state);
    return state;
  }

  /** Those of rows behind the last whole block come again with the next part. */
  #writeMedia(rows: number): void {
    const byMedia = new Map<number, number[]>();
    for (const [media, row, start, end] of this.#places) {
      if (row >= rows) continue;
      const places = byMedia.get(media) ?? [];
      byMedia.set(media, places);
      places.push(row, start, end);
    }
    for (const [media, places] of byMedia) {
      const one = this.#mediaTypes[media]!;
      writeNumbers(mediaFile(this.#folder, media), one.count * 3, Float64Array.from(places));
      one.count += places.length / 3;
    }
  }
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

/** Makes the records of a level that have become whole from those of the level below. */
function summarize(folder: string, column: number, level: number, before: number, after: number): void {
  const [from, to] = [Math.floor(before / rowsOfRecord(level)), Math.floor(after / rowsOfRecord(level))];
  const below = readNumbers(columnFile(folder, column, level - 1), from * FANOUT * RECORD, to * FANOUT * RECORD);
  const records = new Float64Array((to - from) * RECORD);
  for (let i = 0; i < to - from; i++) {
    const merged = records.subarray(i * RECORD, (i + 1) * RECORD);
    for (let child = i * FANOUT; child < (i + 1) * FANOUT; child++) {
      mergeRecord(merged, below, child * RECORD);
    }
  }
  writeNumbers(columnFile(folder, column, level), from * RECORD, records);
}

/** Adds the record of `from` at `at` to the record `into`. */
export function mergeRecord(into: Float64Array, from: Float64Array, at: number): void {
  const count = from[at + 3]!;
  if (count === 0) return;
  const isFirst = into[3] === 0;
  if (isFirst || from[at]! < into[0]!) into[0] = from[at]!;
  if (isFirst || from[at + 1]! > into[1]!) into[1] = from[at + 1]!;
  into[2]! += from[at + 2]!;
  into[3]! += count;
}

/** Writes numbers at place `at` of a file, which is made when it is not there. */
function writeNumbers(path: string, at: number, numbers: Float64Array): void {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(fd, bytes, done, bytes.length - done, at * 8 + done);
    }
  } finally {
    closeSync(fd);
  }
}
