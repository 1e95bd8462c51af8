/**
 * Reading files of runs without trust: a name may be a symbolic link out of the runs folder, a pipe that blocks for ever, a
 * folder, or huge. Reads are synchronous, since they are small and the page cache answers them faster than a thread pool.
 */

import { closeSync, constants, fstatSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { sep } from 'node:path';
import { isSystemError } from '../errors.ts';
import { damaged, Refused } from './refused.ts';

const { O_RDONLY, O_NONBLOCK, O_NOFOLLOW } = constants;
const NOT_THERE = ['ENOENT', 'ENOTDIR', 'ELOOP'];

/** Whether `path`, both resolved, lies in `folder`. */
export function isInside(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** What a file was when it was looked at; the same stamp means the same contents. */
export interface Stamp {
  size: number;
  mtimeMs: number;
}

/** The file's size and time; undefined when there is none, also for what is no regular file. */
export function stampOf(path: string): Stamp | undefined {
  try {
    const { size, mtimeMs } = statSync(path);
    return { size, mtimeMs };
  } catch {
    return undefined;
  }
}

/** An opened regular file. */
export class RunFile {
  readonly path: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly #fd: number;

  private constructor(path: string, fd: number, { size, mtimeMs }: Stamp) {
    this.path = path;
    this.#fd = fd;
    this.size = size;
    this.mtimeMs = mtimeMs;
  }

  /**
   * @param within the resolved folder that the file must lie in, wherever links lead
   * @returns undefined when there is no such file
   * @throws Refused when it lies elsewhere or is no regular file
   */
  static open(path: string, within: string): RunFile | undefined {
    let real: string;
    try {
      real = realpathSync(path);
    } catch (error) {
      if (isSystemError(error) && NOT_THERE.includes(error.code ?? '')) return undefined;
      throw error;
    }
    if (!isInside(real, within)) throw new Refused(403, 'outside', `${nameOf(path)} leads out of the runs folder`);
    const fd = openSync(real, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
    const stats = fstatSync(fd);
    if (stats.isFile()) return new RunFile(path, fd, stats);
    closeSync(fd);
    throw damaged(`${nameOf(path)} is no regular file`);
  }

  /** Bytes from `position` on; fewer than `length` at the end of the file. */
  read(position: number, length: number): Buffer {
    const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(length, this.size - position)));
    let done = 0;
    while (done < buffer.length) {
      const bytes = readSync(this.#fd, buffer, done, buffer.length - done, position + done);
      if (bytes === 0) break;
      done += bytes;
    }
    return buffer.subarray(0, done);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Does `work` with the file, if it is there. @throws Refused as `RunFile.open` */
export function withFile<T>(path: string, within: string, work: (file: RunFile) => T): T | undefined {
  const file = RunFile.open(path, within);
  if (file === undefined) return undefined;
  try {
    return work(file);
  } finally {
    file.close();
  }
}

/** The whole text of a small file; undefined when there is none. @throws Refused when it is larger than `most` bytes */
export function readSmall(path: string, within: string, most = 2 ** 20): string | undefined {
  return withFile(path, within, (file) => {
    if (file.size > most) throw damaged(`${nameOf(path)} is larger than ${most} bytes`);
    return file.read(0, file.size).toString('utf8');
  });
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf(sep) + 1);
}
