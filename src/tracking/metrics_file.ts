/**
 * A metrics file: JSON Lines, one row a step, `{"step": 12, "train/loss": 3.1, …}`. A checkpoint stores how many rows belong to
 * it; on resume the file is cut back to them, byte by byte as they were, so that an interrupted run and one that was
 * never stopped leave the same file.
 */

import { ftruncateSync, writeSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';
import { diskError, makeFolder, syncFolder } from '../io/files.ts';
import { completeLines } from '../io/lines.ts';
import { type MetricsRow, rowOf } from './values.ts';

const NEWLINE = 0x0a;
const READ_BYTES = 1 << 16;

/** The appending end of a metrics file. One process at a time (the run folder's lock sees to that). */
export class MetricsFile {
  readonly path: string;
  private readonly handle: FileHandle;
  private rows: number;
  private size: number;

  private constructor(path: string, handle: FileHandle, rows: number, size: number) {
    this.path = path;
    this.handle = handle;
    this.rows = rows;
    this.size = size;
  }

  /**
   * Opens or creates the file and cuts it back to its first `rows` rows; without `rows`, to its last complete row (a
   * crash may leave half a line at the end).
   * @throws UserError file_truncated when the file holds fewer rows
   */
  static async open(path: string, options: { rows?: number } = {}): Promise<MetricsFile> {
    await makeFolder(dirname(path));
    const handle = await openOrCreate(path);
    try {
      const { rows, size } = await measure(handle, options.rows ?? Number.POSITIVE_INFINITY);
      if (options.rows !== undefined && rows < options.rows) {
        throw new UserError('file_truncated', {
          where: path,
          what: `it holds ${rows} rows, but the checkpoint was saved after ${options.rows}`,
          action: 'restore the file, or resume from an earlier checkpoint',
        });
      }
      await handle.truncate(size);
      await handle.sync();
      return new MetricsFile(path, handle, rows, size);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Rows in the file: what a checkpoint stores. */
  get rowCount(): number {
    return this.rows;
  }

  /**
   * Adds a row and hands it to the operating system at once, so that it outlives the process. A failed write leaves no
   * half row.
   * @throws UserError disk_full
   */
  append(row: MetricsRow): void {
    const line = Buffer.from(`${JSON.stringify(row)}\n`);
    try {
      let done = 0;
      while (done < line.byteLength) {
        done += writeSync(this.handle.fd, line, done, line.byteLength - done, this.size + done);
      }
    } catch (error) {
      this.cutBack();
      throw diskError(error, this.path);
    }
    this.rows += 1;
    this.size += line.byteLength;
  }

  private cutBack(): void {
    try {
      ftruncateSync(this.handle.fd, this.size);
    } catch {
      // The error that led here says more; the half row goes when the file is opened again.
    }
  }

  /** Makes every row survive a power cut. Call before saving a checkpoint that counts them. */
  async flush(): Promise<void> {
    try {
      await this.handle.sync();
    } catch (error) {
      throw diskError(error, this.path);
    }
  }

  async close(): Promise<void> {
    await this.flush();
    await this.handle.close();
  }
}

async function openOrCreate(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r+');
  } catch (error) {
    if (!isSystemError(error) || error.code !== 'ENOENT') throw error;
  }
  try {
    const handle = await open(path, 'wx+');
    await syncFolder(dirname(path));
    return handle;
  } catch (error) {
    throw diskError(error, path);
  }
}

/** The first `limit` complete rows of a file: how many there are and where they end. */
async function measure(handle: FileHandle, limit: number): Promise<{ rows: number; size: number }> {
  const buffer = Buffer.alloc(READ_BYTES);
  let rows = 0;
  let size = 0;
  for (let position = 0; rows < limit; ) {
    const { bytesRead } = await handle.read(buffer, 0, READ_BYTES, position);
    if (bytesRead === 0) break;
    for (let i = buffer.indexOf(NEWLINE); i >= 0 && i < bytesRead && rows < limit; i = buffer.indexOf(NEWLINE, i + 1)) {
      rows += 1;
      size = position + i + 1;
    }
    position += bytesRead;
  }
  return { rows, size };
}

/**
 * The rows of a metrics file, streamed; a file that does not exist has none. Half a line at the end (a row that is being
 * written, or was when the process died) is left out.
 * @throws UserError file_corrupt, naming the line
 */
export async function* readMetrics(path: string): AsyncGenerator<MetricsRow> {
  let number = 0;
  for await (const { bytes } of completeLines(path)) yield parseRow(bytes.toString('utf8'), path, ++number);
}

/** One line of a metrics file. @throws UserError file_corrupt, naming the line */
export function parseRow(line: string, path: string, number: number): MetricsRow {
  const row = rowOf(line);
  if (row !== undefined) return row;
  throw new UserError('file_corrupt', {
    where: `${path}:${number}`,
    what: 'the line is not a row of metrics',
    action: 'remove the line, or restore the file',
  });
}
