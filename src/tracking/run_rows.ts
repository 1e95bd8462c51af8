/** The rows of both stages of a run as one sequence, read from its files as far as they are written. */

import { type FileHandle, open } from 'node:fs/promises';
import { isSystemError, UserError } from '../errors.ts';
import { type RunFolder, STAGES, type StageName } from '../io/run_folder.ts';
import { parseRow } from './metrics_file.ts';
import type { TrackedRow } from './sink.ts';
import type { MetricsRow } from './values.ts';

const READ_BYTES = 1 << 18;
const NEWLINE = 0x0a;

/** A place between two lines of a file: bytes and lines before it. */
export interface Place {
  offset: number;
  count: number;
}

/**
 * Reads complete lines of a file that may still grow; keeps its place between calls. A file that is not there yet has no
 * lines.
 */
export class LineTail {
  readonly path: string;
  /** Lines handed out. */
  count = 0;
  #offset: number;

  /** @param offset where to begin, the begin of a line */
  constructor(path: string, offset = 0) {
    this.path = path;
    this.#offset = offset;
  }

  /** Reads the lines that come from now on; half a line at the end counts to them. */
  static async atEnd(path: string): Promise<LineTail> {
    const handle = await openIfThere(path);
    if (handle === undefined) return new LineTail(path);
    try {
      const buffer = Buffer.allocUnsafe(READ_BYTES);
      for (let { size: end } = await handle.stat(); end > 0; end -= Math.min(end, READ_BYTES)) {
        const start = Math.max(0, end - READ_BYTES);
        const { bytesRead } = await handle.read(buffer, 0, end - start, start);
        const newline = buffer.subarray(0, bytesRead).lastIndexOf(NEWLINE);
        if (newline >= 0) return new LineTail(path, start + newline + 1);
      }
      return new LineTail(path);
    } finally {
      await handle.close();
    }
  }

  /** The place, for `back`. */
  mark(): Place {
    return { offset: this.#offset, count: this.count };
  }

  /** Goes back to a place, so that the lines behind it come again. */
  back({ offset, count }: Place): void {
    this.#offset = offset;
    this.count = count;
  }

  /** The lines that have come since, a part at a time: about 256 KiB, or one line that is longer. Empty: no more for now. */
  async next(): Promise<string[]> {
    const handle = await openIfThere(this.path);
    if (handle === undefined) return [];
    try {
      for (let size = READ_BYTES; ; size *= 2) {
        const buffer = Buffer.allocUnsafe(size);
        const { bytesRead } = await handle.read(buffer, 0, size, this.#offset);
        const end = buffer.subarray(0, bytesRead).lastIndexOf(NEWLINE);
        if (end < 0 && bytesRead === size) continue;
        if (end < 0) return [];
        const lines = buffer.toString('utf8', 0, end).split('\n');
        this.#offset += end + 1;
        this.count += lines.length;
        return lines;
      }
    } finally {
      await handle.close();
    }
  }
}

/** The sequence; keeps its place between calls, so that a run is followed while it is written. */
export class RunRows {
  readonly #folder: RunFolder;
  readonly #after: number;
  #stages: readonly StageName[];
  #stage = 0;
  #tail: LineTail;
  /** Steps of the stages before the one that is read. */
  #before = 0;
  #last = -1;

  /**
   * @param stages those whose files are complete up to the last, which may grow
   * @param after rows up to this step of the run are passed over
   */
  constructor(folder: RunFolder, stages: readonly StageName[] = STAGES, after = -1) {
    this.#folder = folder;
    this.#stages = stages;
    this.#after = after;
    this.#tail = new LineTail(folder.metricsFile(stages[0] ?? 'warmup'));
  }

  /** Says that the stages have become more: what is read now is complete. */
  extend(stages: readonly StageName[]): void {
    this.#stages = stages;
  }

  /**
   * The next rows, a part at a time; empty: no more for now.
   * @throws UserError file_corrupt, naming the line
   */
  async next(): Promise<TrackedRow[]> {
    for (;;) {
      const stage = this.#stages[this.#stage];
      if (stage === undefined) return [];
      const place = this.#tail.mark();
      // Decided before reading: rows may come, and then the next stage, while it reads.
      const isComplete = this.#stage < this.#stages.length - 1;
      const lines = await this.#tail.next();
      if (lines.length > 0) {
        const rows = this.#parse(stage, lines, place);
        if (rows.length > 0) return rows;
      } else if (isComplete) {
        this.#stage += 1;
        this.#before = Math.max(0, this.#last);
        this.#tail = new LineTail(this.#folder.metricsFile(this.#stages[this.#stage]!));
      } else {
        return [];
      }
    }
  }

  /** The rows of some lines; when one of them is damaged they are all read again the next time. */
  #parse(stage: StageName, lines: readonly string[], place: Place): TrackedRow[] {
    const last = this.#last;
    try {
      return lines.flatMap((line, i) => this.#row(stage, line, place.count + 1 + i) ?? []);
    } catch (error) {
      this.#tail.back(place);
      this.#last = last;
      throw error;
    }
  }

  #row(stage: StageName, line: string, number: number): TrackedRow | undefined {
    const known = stepOf(line);
    if (known !== undefined && this.#before + known <= this.#after) {
      this.#last = this.#before + known;
      return undefined;
    }
    const { step, 'time/unix_s': time, ...values } = parseRow(line, this.#tail.path, number);
    if (typeof step !== 'number' || !Number.isSafeInteger(step)) throw stepless(this.#tail.path, number);
    this.#last = this.#before + step;
    if (this.#last <= this.#after) return undefined;
    return {
      step: this.#last,
      stage,
      time: Number(time ?? 0),
      values: { 'train/stage': stage, 'train/step': step, ...values },
    };
  }
}

function stepless(path: string, number: number): UserError {
  return new UserError('file_corrupt', {
    where: `${path}:${number}`,
    what: 'the row has no step',
    action: 'remove the line, or restore the file',
  });
}

/** The step that a row begins with, without reading the rest of it. */
function stepOf(line: string): number | undefined {
  const found = /^\{"step":(\d+)[,}]/.exec(line);
  return found ? Number(found[1]) : undefined;
}

/** The last complete row of a metrics file, read from its end; undefined when there is none. */
export async function lastRow(path: string): Promise<MetricsRow | undefined> {
  const handle = await openIfThere(path);
  if (handle === undefined) return undefined;
  try {
    const { size } = await handle.stat();
    for (let length = Math.min(size, 1 << 16); length > 0; length = Math.min(size, length * 4)) {
      const buffer = Buffer.alloc(length);
      const { bytesRead } = await handle.read(buffer, 0, length, size - length);
      const end = buffer.subarray(0, bytesRead).lastIndexOf(NEWLINE);
      const start = end < 1 ? -1 : buffer.lastIndexOf(NEWLINE, end - 1);
      if (end > 0 && (start >= 0 || length === size)) {
        return parseRow(buffer.toString('utf8', start + 1, end), path, 0);
      }
      if (length === size) return undefined;
    }
    return undefined;
  } finally {
    await handle.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The last step of a run, −1 when its files hold no rows. */
export async function lastStep(folder: RunFolder, stages: readonly StageName[] = STAGES): Promise<number> {
  let last = -1;
  for (const stage of stages) {
    const row = await lastRow(folder.metricsFile(stage));
    if (row !== undefined) last = Math.max(0, last) + Number(row.step);
  }
  return last;
}
