/** A thread that encodes groups of texts: it reads the tokenizer once and hands its ids over without copies. */

import { workerData } from 'node:worker_threads';
import { Tokenizer } from '../../src/data/tokenizer.ts';
import { serveJobs } from '../../src/io/worker_pool.ts';

const tokenizer = Tokenizer.load(workerData as string);

serveJobs(
  async (texts: readonly string[]) => await (await tokenizer).encodeBatch(texts),
  (ids: Int32Array[]) => ids.map(({ buffer }) => buffer as ArrayBuffer),
);
