/**
 * The rows of one stage as columns: those behind the index read from the run, the others from the index, or from the run again
 * where single rows are wanted.
 */

import { STAGES, type StageName } from '../io/run_folder.ts';
import type { MetricsRow } from '../tracking/values.ts';
import { type Indexes, MOST_TAIL_BYTES, type UsableIndex } from './indexes.ts';
import { damaged } from './refused.ts';
import {
  BLOCK,
  columnFile,
  LEVELS,
  MARK_ROWS,
  marksFile,
  mediaFile,
  RECORD,
  readNumbers,
  rowsOfRecord,
} from './row_index.ts';
import { isKnownMedia, lastLines, numberIn, type PlacedRow, rowBehind, rowsBetween, spreadRows } from './rows.ts';
import { RunFile } from './run_file.ts';
import type { Run } from './runs.ts';

/** Column names of the axes in the rows of a stage. */
export const AXIS_KEYS = { step: 'step', tokens: 'train/tokens', time: 'time/unix_s' } as const;

/** Rows whose names of values are looked at where there is no whole index. */
const KEY_SAMPLES = 24;

/** Takes what a point's rows hold of a column. `row` is the first row that it stands for. */
export type Take = (row: number, least: number, greatest: number, sum: number, count: number) => void;

export class StageRows {
  readonly stage: StageName;
  readonly file: RunFile;
  readonly #index: UsableIndex | undefined;
  #tail: PlacedRow[] | undefined;

  private constructor(stage: StageName, file: RunFile, index: UsableIndex | undefined) {
    this.stage = stage;
    this.file = file;
    this.#index = index;
  }

  /** The stages of a run that have rows, opened; `work` gets them. @throws Refused for damage */
  static with<T>(run: Run, indexes: Indexes, work: (stages: StageRows[]) => T): T {
    const opened: StageRows[] = [];
    try {
      for (const stage of STAGES) {
        const file = RunFile.open(run.folder.metricsFile(stage), run.within);
        if (file === undefined) continue;
        const rows = new StageRows(stage, file, indexes.usable(run, stage, file));
        opened.push(rows);
      }
      const problem = indexes.problem(run);
      if (problem !== undefined) throw damaged(problem);
      // A file whose first line is being written has no rows yet.
      return work(opened.filter(({ file }) => lastLines(file, 4096).length > 0));
    } finally {
      for (const { file } of opened) file.close();
    }
  }

  /** Whether every row can be found; if not, only samples of them. */
  get isWhole(): boolean {
    return this.file.size - this.indexedBytes <= MOST_TAIL_BYTES;
  }

  get indexedBytes(): number {
    return this.#index?.state.offset ?? 0;
  }

  /** Rows in the index, a multiple of BLOCK. */
  get indexed(): number {
    return this.#index?.state.rows ?? 0;
  }

  /** Rows behind the index. */
  get tail(): PlacedRow[] {
    this.#tail ??= rowsBetween(this.file, this.indexedBytes, this.file.size);
    return this.#tail;
  }

  /** Complete rows of the file, of one that is whole. */
  get rows(): number {
    return this.indexed + this.tail.length;
  }

  get first(): MetricsRow | undefined {
    return rowBehind(this.file, 0)?.row;
  }

  /** Names of numbers and media that rows hold, from the index and a few rows. */
  names(): { keys: Set<string>; media: Map<string, string> } {
    const keys = new Set(this.#index?.state.keys);
    const media = new Map<string, string>(this.#index?.state.media.map(({ key, type }) => [key, type]));
    const rest = this.isWhole ? this.tail : spreadRows(this.file, KEY_SAMPLES, this.indexedBytes);
    for (const { row } of rest) {
      for (const key in row) {
        if (typeof row[key] === 'number') keys.add(key);
        else if (isKnownMedia(row[key])) media.set(key, (row[key] as { type: string }).type);
      }
    }
    return { keys, media };
  }

  /** The first row whose axis is at least `value`, to a block: the rows of the block before are below it. */
  rowAt(axis: keyof typeof AXIS_KEYS, value: number): number {
    const key = AXIS_KEYS[axis];
    const column = this.#column(key);
    let [low, high] = [0, this.indexed / BLOCK];
    while (column !== undefined && low < high) {
      const middle = (low + high) >> 1;
      const [, greatest] = this.#records(column, 0, middle, middle + 1);
      if (greatest! < value) low = middle + 1;
      else high = middle;
    }
    if (low * BLOCK < this.indexed) return low * BLOCK;
    const inTail = this.tail.findIndex(({ row }) => (numberIn(row, key) ?? Number.NEGATIVE_INFINITY) >= value);
    return this.indexed + (inTail < 0 ? this.tail.length : inTail);
  }

  /** Bytes of rows [from, to), about. */
  bytesBetween(from: number, to: number): number {
    return this.#endByte(to) - this.#startByte(from);
  }

  /** Rows [from, to) as they are in the file. */
  read(from: number, to: number): MetricsRow[] {
    const rows: MetricsRow[] = [];
    if (from < this.indexed) {
      const first = Math.floor(from / MARK_ROWS) * MARK_ROWS;
      const placed = rowsBetween(this.file, this.#startByte(from), Math.min(this.indexedBytes, this.#endByte(to)));
      for (const { row } of placed.slice(from - first, to - first)) rows.push(row);
    }
    for (const { row } of this.tail.slice(Math.max(0, from - this.indexed), Math.max(0, to - this.indexed)))
      rows.push(row);
    return rows;
  }

  /**
   * What rows [from, to) hold of a column, in portions that lie within multiples of `step` rows.
   * @param from a multiple of `step`
   * @param step a multiple of BLOCK
   */
  scan(key: string, from: number, to: number, step: number, take: Take): void {
    const column = this.#column(key);
    let row = from;
    const end = Math.min(to, this.indexed);
    for (let level = LEVELS - 1; level >= 0; level--) {
      const width = rowsOfRecord(level);
      const [first, last] = [row / width, Math.floor(end / width)];
      if (step % width !== 0 || last <= first) continue;
      if (column !== undefined) {
        const records = this.#records(column, level, first, last);
        for (let i = 0; i < last - first; i++) {
          const at = i * RECORD;
          if (records[at + 3]! > 0)
            take((first + i) * width, records[at]!, records[at + 1]!, records[at + 2]!, records[at + 3]!);
        }
      }
      row = last * width;
    }
    for (; row < to; row++) {
      const value = numberIn(this.tail[row - this.indexed]?.row, key);
      if (value !== undefined) take(row, value, value, value, 1);
    }
  }

  /** Where the lines lie that hold this media, ascending: [start, end) bytes. Of what is indexed, and of the rows behind. */
  mediaPlaces(key: string, from: number, to: number): { start: number; end: number }[] {
    const number = this.#index?.state.media.findIndex((one) => one.key === key) ?? -1;
    const places: { start: number; end: number }[] = [];
    if (this.#index !== undefined && number >= 0) {
      const stored = readNumbers(mediaFile(this.#index.folder, number), 0, this.#index.state.media[number]!.count * 3);
      for (let i = 0; i < stored.length; i += 3) {
        if (stored[i]! >= from && stored[i]! < to) places.push({ start: stored[i + 1]!, end: stored[i + 2]! });
      }
    }
    this.tail.forEach(({ row, start, end }, i) => {
      const isIn = this.indexed + i >= from && this.indexed + i < to;
      if (isIn && isKnownMedia(row[key])) places.push({ start, end });
    });
    return places;
  }

  #column(key: string): number | undefined {
    const column = this.#index?.state.keys.indexOf(key) ?? -1;
    return column < 0 ? undefined : column;
  }

  #records(column: number, level: number, from: number, to: number): Float64Array {
    return readNumbers(columnFile(this.#index!.folder, column, level), from * RECORD, to * RECORD);
  }

  /** Byte at which the rows begin that have the mark before `row`. */
  #startByte(row: number): number {
    if (row >= this.indexed) return this.tail[row - this.indexed]?.start ?? this.file.size;
    const mark = Math.floor(row / MARK_ROWS);
    return readNumbers(marksFile(this.#index!.folder), mark * 2, mark * 2 + 1)[0]!;
  }

  /** Byte behind the rows before the mark behind `row`. */
  #endByte(row: number): number {
    if (row > this.indexed) return this.tail[row - this.indexed - 1]?.end ?? this.file.size;
    const mark = Math.ceil(row / MARK_ROWS);
    if (mark * MARK_ROWS >= this.indexed) return this.indexedBytes;
    return readNumbers(marksFile(this.#index!.folder), mark * 2, mark * 2 + 1)[0]!;
  }
}
