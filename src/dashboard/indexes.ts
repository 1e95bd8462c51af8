/** The indexes of all runs: which of them are up to date, and the thread that makes them so. */

import { STAGES, type StageName } from '../io/run_folder.ts';
import { WorkerPool } from '../io/worker_pool.ts';
import type { CacheFolder } from './cache_folder.ts';
import { type IndexState, isPrefix, metaFile, readState } from './row_index.ts';
import { type IndexJob, isWhole } from './row_index_writer.ts';
import { type RunFile, stampOf } from './run_file.ts';
import type { Run } from './runs.ts';

/** Rows behind the index are read when they are not more bytes than these; from so many on the index goes forward. */
export const MOST_TAIL_BYTES = 4 * 2 ** 20;
const WORTH_INDEXING = 2 ** 18;
const PART_BYTES = 32 * 2 ** 20;
/** The thread ends when it had nothing to do for so many milliseconds. */
const IDLE_MS = 20_000;
/** What could not be written is tried again after so many milliseconds. */
const REST_MS = 60_000;
/** MiB of its heap: a part's records lie outside of it. */
const LIMITS = { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16 };

/** An index that holds for a file as it is now. */
export interface UsableIndex {
  state: IndexState;
  folder: string;
}

interface Entry {
  run: Run;
  folder: string;
  state: IndexState | undefined;
  /** What is wrong with the rows, and the file as it was then: it is looked at again once it changes. */
  problem?: string;
  failedAt?: string;
  /** The index could not be written; it is tried again after this time, ms. */
  restsUntil: number;
}

export class Indexes {
  readonly #cache: CacheFolder;
  readonly #onDefect: (error: unknown) => void;
  readonly #entries = new Map<string, Entry>();
  /** Paths that wait, the most urgent last. */
  #wanted = new Set<string>();
  #pool: WorkerPool<IndexJob, IndexState> | undefined;
  #isWorking = false;
  #isClosed = false;
  #idle: NodeJS.Timeout | undefined;

  /** @param onDefect told why an index could not be written; curves are drawn without it */
  constructor(cache: CacheFolder, onDefect: (error: unknown) => void = () => undefined) {
    this.#cache = cache;
    this.#onDefect = onDefect;
  }

  /** The index of the opened file of a stage, as far as it holds; starts to bring it forward when it is worth it. */
  usable(run: Run, stage: StageName, file: RunFile): UsableIndex | undefined {
    const entry = this.#entry(run, run.folder.metricsFile(stage));
    // Somebody may have emptied the cache.
    if (stampOf(metaFile(entry.folder)) === undefined) entry.state = undefined;
    const state = entry.state !== undefined && isPrefix(entry.state, file) ? entry.state : undefined;
    const behind = file.size - (state?.offset ?? 0);
    const isOther = entry.state !== undefined && state === undefined;
    if (behind > WORTH_INDEXING || isOther || entry.problem !== undefined) this.#want(file.path);
    return state && { state, folder: entry.folder };
  }

  /** What indexing has found wrong with a run's rows. */
  problem(run: Run): string | undefined {
    for (const stage of STAGES) {
      const problem = this.#entries.get(run.folder.metricsFile(stage))?.problem;
      if (problem !== undefined) return `${stage}.jsonl: ${problem}`;
    }
    return undefined;
  }

  /** Resolves when nothing waits any more. */
  async settled(): Promise<void> {
    while (this.#isWorking && !this.#isClosed) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#idle);
    await this.#pool?.close();
  }

  #entry(run: Run, path: string): Entry {
    const known = this.#entries.get(path);
    if (known !== undefined) return known;
    const folder = this.#cache.folderOf(path);
    const state = readState(folder, path);
    const entry: Entry = { run, folder, state: state && isWhole(folder, state) ? state : undefined, restsUntil: 0 };
    entry.problem = entry.state?.problem;
    this.#entries.set(path, entry);
    return entry;
  }

  #want(path: string): void {
    const entry = this.#entries.get(path);
    if (entry === undefined || this.#isClosed || Date.now() < entry.restsUntil) return;
    if (entry.failedAt === stampText(path)) return;
    this.#wanted.delete(path);
    this.#wanted.add(path);
    if (!this.#isWorking) void this.#work();
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    clearTimeout(this.#idle);
    try {
      for (
        let path = [...this.#wanted].at(-1);
        path !== undefined && !this.#isClosed;
        path = [...this.#wanted].at(-1)
      ) {
        if (!(await this.#part(path, this.#entries.get(path)!))) this.#wanted.delete(path);
      }
      if (!this.#isClosed) this.#cache.evict();
    } catch (error) {
      this.#onDefect(error);
    } finally {
      this.#isWorking = false;
      this.#idle = setTimeout(() => void this.#rest(), IDLE_MS).unref();
    }
  }

  /** Indexes a part of a file. @returns true when there is more of it */
  async #part(path: string, entry: Entry): Promise<boolean> {
    const stamp = stampText(path);
    const before = entry.state;
    try {
      this.#pool ??= new WorkerPool({ module: 'index_thread', caller: import.meta.url, size: 1, limits: LIMITS });
      const { run, folder } = entry;
      const state = await this.#pool.run({ path, within: run.within, folder, bytes: PART_BYTES });
      entry.state = state;
      entry.problem = state.problem;
      entry.failedAt = state.problem === undefined ? undefined : stamp;
      const left = (stampOf(path)?.size ?? 0) - state.offset;
      return state.problem === undefined && left > WORTH_INDEXING && state.offset !== before?.offset;
    } catch (error) {
      if (this.#isClosed) return false;
      // The rows are no worse for it, such as on a full disk.
      this.#onDefect(error);
      entry.restsUntil = Date.now() + REST_MS;
      await this.#rest();
      return false;
    }
  }

  /** Ends the thread; the next part starts another. */
  async #rest(): Promise<void> {
    const pool = this.#pool;
    this.#pool = undefined;
    await pool?.close();
  }
}

function stampText(path: string): string {
  const stamp = stampOf(path);
  return `${stamp?.size} ${stamp?.mtimeMs}`;
}
