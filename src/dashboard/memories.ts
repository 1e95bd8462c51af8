/** What the dashboard answers about a run's memories. */

import { join } from 'node:path';
import { dataPaths } from '../data/paths.ts';
import { UserError } from '../errors.ts';
import { WorkerPool } from '../io/worker_pool.ts';
import type { BankAnswer, FoundMemory, MemoryDetail } from './api.ts';
import type { Indexes } from './indexes.ts';
import { mediaPlaces } from './media.ts';
import type { MemoryJob, MemoryResult } from './memory_thread.ts';
import { Refused } from './refused.ts';
import type { RetrievalRecords } from './retrieved.ts';
import { stampOf } from './run_file.ts';
import type { Run } from './runs.ts';
import { StageRows } from './stage_rows.ts';

const LIMITS = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 16 };
const IDLE_MS = 20_000;
/** Questions that wait at most: each may take seconds. */
const MOST_WAITING = 16;
/** Records of retrievals that are looked through for a memory. */
const MOST_RECORDS = 400;
const ALL_STEPS = { from: Number.NEGATIVE_INFINITY, to: Number.POSITIVE_INFINITY };

export class Memories {
  readonly #indexes: Indexes;
  #pool: WorkerPool<MemoryJob, MemoryResult> | undefined;
  #waiting = 0;
  #idle: NodeJS.Timeout | undefined;

  constructor(indexes: Indexes) {
    this.#indexes = indexes;
  }

  async bank(run: Run): Promise<BankAnswer> {
    const result = await this.#ask({ kind: 'bank', ...placeOf(run) });
    return (result as MemoryResult & { kind: 'bank' }).bank;
  }

  async find(run: Run, text: string, limit: number): Promise<FoundMemory[]> {
    const result = await this.#ask({ kind: 'find', text, limit, ...placeOf(run) });
    return (result as MemoryResult & { kind: 'find' }).found;
  }

  async get(run: Run, id: string): Promise<MemoryDetail> {
    const { tokenizer, references } = dataPaths(run.folder.data);
    const records = retrievalRecords(run, this.#indexes);
    const result = await this.#ask({ kind: 'get', id, tokenizer, references, records, ...placeOf(run) });
    const { memory, pieces, address, retrieved } = result as MemoryResult & { kind: 'get' };
    const { document, title, text, span, writer, kept } = memory;
    const url = [address, document].find((one) => /^https?:\/\/\S+$/.test(one ?? ''));
    return {
      ...{ id, document, title, text, writer, pieces, kept, retrieved },
      span: [span[0], span[1]],
      ...(url !== undefined && { url }),
    };
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle);
    await this.#pool?.close();
  }

  async #ask(job: MemoryJob): Promise<MemoryResult> {
    if (this.#waiting >= MOST_WAITING) throw new Refused(429, 'too_many_questions', 'other questions wait; try again');
    this.#waiting += 1;
    clearTimeout(this.#idle);
    this.#pool ??= new WorkerPool({ module: 'memory_thread', caller: import.meta.url, size: 1, limits: LIMITS });
    const pool = this.#pool;
    try {
      return await pool.run(job);
    } catch (error) {
      if (!(error instanceof UserError)) await this.#drop(pool);
      throw error;
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#idle = setTimeout(() => void this.#drop(pool), IDLE_MS).unref();
    }
  }

  /** A thread that has ended, such as for want of memory, answers nothing more; the next question starts another. */
  async #drop(pool: WorkerPool<MemoryJob, MemoryResult>): Promise<void> {
    if (this.#pool === pool) this.#pool = undefined;
    await pool.close();
  }
}

function placeOf({ folder, within }: Run): { folder: string; within: string } {
  if (stampOf(join(folder.bank, 'CURRENT')) === undefined)
    throw new Refused(404, 'bank_missing', 'the run has no memory bank');
  return { folder: folder.bank, within };
}

function retrievalRecords(run: Run, indexes: Indexes): RetrievalRecords[] {
  const names = StageRows.with(run, indexes, (stages) => stages.flatMap((stage) => [...stage.names().media]));
  const keys = new Set(names.flatMap(([key, type]) => (type === 'retrievals' ? [key] : [])));
  return [...keys].map((key) => {
    const { places } = mediaPlaces(run, indexes, { key, limit: MOST_RECORDS, ...ALL_STEPS });
    return { key, places };
  });
}
