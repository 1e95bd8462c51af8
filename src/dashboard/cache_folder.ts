/**
 * The dashboard's folder for what it makes of runs: nothing in it is needed, all of it can be made again. One process uses a
 * folder at a time; a second dashboard takes the next one. Where none can be had, such as in a home that cannot be written,
 * a temporary one does, for as long as this dashboard runs.
 */

import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { lockRunFolder, type RunLock } from '../io/run_folder.ts';

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
  /** None: the folder is a temporary one. */
  readonly #lock: RunLock | undefined;
  readonly #used = new Set<string>();

  private constructor(path: string, bytes: number, lock: RunLock | undefined) {
    this.path = path;
    this.#bytes = bytes;
    this.#lock = lock;
  }

  /** Takes a folder that no living process uses. */
  static async open({ root, bytes = DEFAULT_BYTES }: CacheOptions = {}): Promise<CacheFolder> {
    try {
      const base = root ?? defaultRoot();
      mkdirSync(base, { recursive: true, mode: 0o700 });
      for (let number = 0; number < MOST_FOLDERS; number++) {
        const path = join(base, String(number));
        const lock = await lockRunFolder(path).catch(ifLocked);
        if (lock === undefined) continue;
        const cache = new CacheFolder(path, bytes, lock);
        cache.evict();
        return cache;
      }
    } catch (error) {
      if (!isSystemError(error) && !(error instanceof UserError)) throw error;
    }
    return new CacheFolder(mkdtempSync(join(tmpdir(), 'memory3-dashboard-')), bytes, undefined);
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
    if (this.#lock === undefined) rmSync(this.path, { recursive: true, force: true });
    else this.#lock.release();
  }
}

/** Undefined for a folder that another process uses. */
function ifLocked(error: unknown): undefined {
  if (error instanceof UserError && error.code === 'run_locked') return undefined;
  throw error;
}

function defaultRoot(): string {
  const base = process.env.XDG_CACHE_HOME;
  return join(base === undefined || base === '' ? join(homedir(), '.cache') : base, 'memory3', 'dashboard');
}

/** What the files of a folder take on disk. */
function bytesOf(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => {
    const stats = statSync(join(folder, name), { throwIfNoEntry: false });
    return sum + (stats?.blocks ?? 0) * 512;
  }, 0);
}
