/** Encoding of all shards of documents, in threads, without those that an earlier process encoded. */

import { join } from 'node:path';
import { ignoreUserError } from '../errors.ts';
import { readJson } from '../io/files.ts';
import { WorkerPool } from '../io/worker_pool.ts';
import { checkSize } from './arrow_file.ts';
import {
  type EncodeJob,
  type EncodeResult,
  type EncodeSetup,
  encodeResultSchema,
  encodeShard,
} from './encode_shard.ts';
import { REBUILD } from './manifest.ts';
import { SPLITS } from './token_dataset.ts';
import { encodeOnOneThread } from './tokenizer.ts';

/** What an earlier process made of the job, when its files are there. */
export async function encodedBefore(folder: string, job: EncodeJob): Promise<EncodeResult | undefined> {
  const raw = await readJson(job.record, REBUILD).catch(ignoreUserError);
  const result = encodeResultSchema.safeParse(raw).data;
  if (!result) return undefined;
  try {
    for (const split of SPLITS) for (const shard of result[split].shards) await checkSize(join(folder, split), shard);
    return result;
  } catch (error) {
    return ignoreUserError(error);
  }
}

/** The results of `jobs` in order; one job alone needs no threads. */
export async function* encodeAll(
  setup: EncodeSetup,
  jobs: readonly EncodeJob[],
  workers: number,
): AsyncGenerator<EncodeResult> {
  if (jobs.length < 2) {
    for (const job of jobs) yield await encodeShard(setup, job);
    return;
  }
  const size = Math.min(workers, jobs.length);
  const restore = encodeOnOneThread();
  const pool = new WorkerPool<EncodeJob, EncodeResult>({
    ...{ module: './encode_worker', caller: import.meta.url, data: setup, size },
  });
  try {
    yield* pool.map(jobs);
  } finally {
    await pool.close();
    restore();
  }
}
