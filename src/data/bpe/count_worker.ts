/** Counts the words of texts in a thread of its own. */

import { workerData } from 'node:worker_threads';
import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { serveJobs } from '../../io/worker_pool.ts';
import { countNativeWords, countWords, type WordCounts } from './words.ts';

/** A `tokenizer.json` that cuts words, or undefined for GPT-2's pattern. */
export type CountWorkerData = string | undefined;

const json = workerData as CountWorkerData;
const native = json === undefined ? undefined : NativeTokenizer.fromString(json);

serveJobs(
  async (texts: readonly string[]): Promise<WordCounts> =>
    native ? countNativeWords(texts, native) : countWords(texts),
  ({ bytes, ends, counts }) => [bytes.buffer, ends.buffer, counts.buffer],
);
