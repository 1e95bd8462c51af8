/** What the dashboard answers about a run's memories. */

import { join } from 'node:path';
import { WorkerPool } from '../io/worker_pool.ts';
import type { Retrievals } from '../tracking/values.ts';
import type { BankAnswer, FoundMemory, MemoryDetail } from './api.ts';
import { mediaAnswer } from './detail.ts';
import type { Indexes } from './indexes.ts';
import type { MemoryJob, MemoryResult } from './memory_thread.ts';
import { Refused } from './refused.ts';
import { stampOf } from './run_file.ts';
import type { Run } from './runs.ts';
import { StageRows } from './stage_rows.ts';

const LIMITS = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 16 };
const IDLE_MS = 20_000;
/** Questions that wait at most: each may take seconds. */
const MOST_WAITING = 16;
/** Records of retrievals that are looked through for a memory. */
const MOST_RECORDS = 400;
const MOST_CHUNKS = 50;

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
    const tokenizer = join(run.folder.data, 'tokenizer.json');
    const result = await this.#ask({ kind: 'get', id, tokenizer, ...placeOf(run) });
    const { memory, pieces } = result as MemoryResult & { kind: 'get' };
    const { document, title, text, span, writer, kept } = memory;
    return {
      ...{ id, document, title, text, writer, pieces, kept },
      span: [span[0], span[1]],
      ...(/^https?:\/\/\S+$/.test(document) && { url: document }),
      retrieved: retrievalsOf(run, this.#indexes, id),
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
      // A thread that has ended, such as for want of memory, answers nothing more; the next question starts another.
      if (this.#pool === pool) this.#pool = undefined;
      await pool.close();
      throw error;
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#idle = setTimeout(() => void this.#rest(), IDLE_MS).unref();
    }
  }

  async #rest(): Promise<void> {
    const pool = this.#pool;
    this.#pool = undefined;
    await pool?.close();
  }
}

function placeOf({ folder, within }: Run): { folder: string; within: string } {
  if (stampOf(join(folder.bank, 'CURRENT')) === undefined)
    throw new Refused(404, 'bank_missing', 'the run has no memory bank');
  return { folder: folder.bank, within };
}

/** By which chunks a memory was read, in the rows that record them. */
function retrievalsOf(run: Run, indexes: Indexes, id: string): MemoryDetail['retrieved'] {
  const keys = StageRows.with(run, indexes, (stages) =>
    stages.flatMap((stage) => [...stage.names().media].filter(([, type]) => type === 'retrievals').map(([key]) => key)),
  );
  const retrieved: MemoryDetail['retrieved'] = { count: 0, recordedChunks: 0, chunks: [] };
  for (const key of new Set(keys)) {
    const open = { from: Number.NEGATIVE_INFINITY, to: Number.POSITIVE_INFINITY };
    for (const { step, value } of mediaAnswer(run, indexes, { key, limit: MOST_RECORDS, ...open }).entries) {
      addRetrievals(retrieved, step, value as Retrievals, id);
    }
  }
  retrieved.chunks = retrieved.chunks.slice(-MOST_CHUNKS);
  return retrieved;
}

function addRetrievals(retrieved: MemoryDetail['retrieved'], step: number, { chunks }: Retrievals, id: string): void {
  for (const chunk of Array.isArray(chunks) ? chunks : []) {
    if (!Array.isArray(chunk?.memories)) continue;
    retrieved.recordedChunks += 1;
    const memory = chunk.memories.find((one) => one?.id === id);
    if (memory === undefined) continue;
    retrieved.count += 1;
    retrieved.chunks.push({
      step,
      text: String(chunk.text),
      ...(typeof memory.score === 'number' && { score: memory.score }),
    });
  }
}
