/** The thread that looks into memory banks. */

import { UserError } from '../errors.ts';
import { serveJobs } from '../io/worker_pool.ts';
import type { BankAnswer, FoundMemory, MemoryDetail } from './api.ts';
import {
  addressOf,
  type BankPlace,
  describeBank,
  findMemories,
  getMemory,
  type StoredMemory,
} from './memory_reader.ts';
import { piecesOf } from './pieces.ts';
import { refusalOf } from './refused.ts';
import { type RetrievalRecords, retrievalsOf } from './retrieved.ts';

export type MemoryJob = BankPlace &
  (
    | { kind: 'bank' }
    | { kind: 'find'; text: string; limit: number }
    | { kind: 'get'; id: string; tokenizer: string; references: string; records: RetrievalRecords[] }
  );

export type MemoryResult =
  | { kind: 'bank'; bank: BankAnswer }
  | { kind: 'find'; found: FoundMemory[] }
  | {
      kind: 'get';
      memory: StoredMemory;
      pieces: string[];
      address: string | undefined;
      retrieved: MemoryDetail['retrieved'];
    };

serveJobs<MemoryJob, MemoryResult>(async (job) => {
  try {
    return await answer(job);
  } catch (error) {
    const refusal = refusalOf(error, job.within);
    if (error instanceof UserError || refusal.status === 500) throw error;
    // Only a user error is still one on the other side.
    throw new UserError('file_corrupt', { what: refusal.message });
  }
});

async function answer(job: MemoryJob): Promise<MemoryResult> {
  if (job.kind === 'bank') return { kind: 'bank', bank: await describeBank(job) };
  if (job.kind === 'find') return { kind: 'find', found: await findMemories(job, job.text, job.limit) };
  const memory = await getMemory(job, job.id);
  return {
    kind: 'get',
    memory,
    pieces: await piecesOf(job.tokenizer, job.within, memory.tokens),
    address: await addressOf({ folder: job.references, within: job.within }, job.id),
    retrieved: retrievalsOf(job.within, job.id, job.records),
  };
}
