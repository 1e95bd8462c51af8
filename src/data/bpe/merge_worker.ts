/** Learns merges in a thread of its own. */

import { serveJobs } from '../../io/worker_pool.ts';
import { type LearnedMerges, learnMerges, type StartVocabulary } from './merges.ts';
import type { WordCounts } from './words.ts';

export interface MergeJob {
  words: WordCounts;
  start: StartVocabulary;
  vocabSize: number;
  /** [1] New tokens so far. */
  learned: Int32Array;
}

serveJobs(async ({ words, start, vocabSize, learned }: MergeJob): Promise<LearnedMerges> => {
  return learnMerges(words, start, vocabSize, (tokens) => Atomics.store(learned, 0, tokens));
});
