/** The thread that looks into memory banks. */

import { serveJobs } from '../io/worker_pool.ts';
import type { BankAnswer, FoundMemory } from './api.ts';
import { type BankPlace, describeBank, findMemories, getMemory, type StoredMemory } from './memory_reader.ts';
import { piecesOf } from './pieces.ts';

export type MemoryJob = BankPlace &
  ({ kind: 'bank' } | { kind: 'find'; text: string; limit: number } | { kind: 'get'; id: string; tokenizer: string });

export type MemoryResult =
  | { kind: 'bank'; bank: BankAnswer }
  | { kind: 'find'; found: FoundMemory[] }
  | { kind: 'get'; memory: StoredMemory; pieces: string[] };

serveJobs<MemoryJob, MemoryResult>(async (job) => {
  if (job.kind === 'bank') return { kind: 'bank', bank: await describeBank(job) };
  if (job.kind === 'find') return { kind: 'find', found: await findMemories(job, job.text, job.limit) };
  const memory = await getMemory(job, job.id);
  return { kind: 'get', memory, pieces: await piecesOf(job.tokenizer, job.within, memory.tokens) };
});
