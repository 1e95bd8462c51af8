/**
 * The dashboard's folder for what it makes of runs: nothing in it is needed, all of it can be made again. One process uses a
 * folder at a time; a second dashboard takes the next one.
 */

import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';

const MOST_FOLDERS = 16;

export interface CacheOptions {
  /** Default: `memory3/dashboard` in XDG_CACHE_HOME or ~/.cache. */
  root?: string;
  /** Bytes that it may take; what was not used for longest goes first. */
  bytes?: number;
}

const DEFAULT_BYTES = 8 * 2 ** 30;

export class CacheFolder {
  readonly path: string;
  readonly #bytes: number;
  readonly #used = new Set<string>();

  private constructor(path: string, bytes: number) {
    this.path = path;
    this.#bytes = bytes;
  }

  /** Takes a folder that no living process uses. @throws UserError disk_full, input_invalid */
  static open({ root = defaultRoot(), bytes = DEFAULT_BYTES }: CacheOptions = {}): CacheFolder {
    for (let number = 0; number < MOST_FOLDERS; number++) {
      const path = join(root, String(number));
      try {
        mkdirSync(path, { recursive: true, mode: 0o700 });
        if (!take(join(path, 'lock'))) continue;
      } catch (error) {
        if (!isSystemError(error)) throw error;
        const action = 'make the folder writable, or set XDG_CACHE_HOME to one that is';
        throw new UserError('input_invalid', {
          where: path,
          what: `cannot be used as cache: ${error.code}`,
          action,
          cause: error,
        });
      }
      const cache = new CacheFolder(path, bytes);
      cache.evict();
      return cache;
    }
    throw new UserError('input_invalid', {
      where: root,
      what: `${MOST_FOLDERS} dashboards use it`,
      action: 'end one of them, or set XDG_CACHE_HOME to another folder',
    });
  }

  /** The folder for what is made of the file at `source`; it need not be there yet. */
  folderOf(source: string): string {
    const folder = join(this.path, sha256(source).slice(0, 32));
    if (!this.#used.has(folder)) {
      this.#used.add(folder);
      const now = new Date();
      try {
        utimesSync(folder, now, now);
      } catch {
        // It is not there yet.
      }
    }
    return folder;
  }

  /** Removes what was not used for longest until the rest is small enough; what this process uses stays. */
  evict(): void {
    const folders = readdirSync(this.path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => join(this.path, name))
      .map((path) => ({ path, bytes: bytesOf(path), usedAt: statSync(path).mtimeMs }))
      .sort((a, b) => b.usedAt - a.usedAt);
    let total = folders.filter(({ path }) => this.#used.has(path)).reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { path, bytes } of folders) {
      if (this.#used.has(path)) continue;
      total += bytes;
      if (total > this.#bytes) rmSync(path, { recursive: true, force: true });
    }
  }

  close(): void {
    rmSync(join(this.path, 'lock'), { force: true });
  }
}

function defaultRoot(): string {
  const base = process.env.XDG_CACHE_HOME;
  return join(base === undefined || base === '' ? join(homedir(), '.cache') : base, 'memory3', 'dashboard');
}

/** Makes the lock file, also over that of a process that is gone. */
function take(path: string): boolean {
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const fd = openSync(path, 'wx', 0o600);
      writeSync(fd, String(process.pid));
      closeSync(fd);
      return true;
    } catch (error) {
      if (!isSystemError(error) || error.code !== 'EEXIST') throw error;
      if (isAlive(Number(readFileSync(path, 'utf8')))) return false;
      rmSync(path, { force: true });
    }
  }
  return false;
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isSystemError(error) && error.code === 'EPERM';
  }
}

/** What the files of a folder take on disk. */
function bytesOf(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => {
    const stats = statSync(join(folder, name), { throwIfNoEntry: false });
    return sum + (stats?.blocks ?? 0) * 512;
  }, 0);
}
