/**
 * A thread that encodes groups of texts: it reads the tokenizer once and hands over all ids of a group as one array without a
 * copy. An array for each text cost 5 to 10 % more processor time with poems of 60 characters.
 */

import { workerData } from 'node:worker_threads';
import { Tokenizer } from '../../src/data/tokenizer.ts';
import { serveJobs } from '../../src/io/worker_pool.ts';

export interface Encoded {
  /** Ids of all texts, one after the other. */
  ids: Int32Array<ArrayBuffer>;
  /** Where each text ends in `ids`. */
  ends: Int32Array<ArrayBuffer>;
}

const tokenizer = Tokenizer.load(workerData as string);

serveJobs(
  async (texts: readonly string[]): Promise<Encoded> => {
    const encoded = await (await tokenizer).encodeBatch(texts);
    const ids = new Int32Array(encoded.reduce((sum, { length }) => sum + length, 0));
    const ends = new Int32Array(encoded.length);
    let at = 0;
    for (const [i, each] of encoded.entries()) {
      ids.set(each, at);
      at += each.length;
      ends[i] = at;
    }
    return { ids, ends };
  },
  ({ ids, ends }) => [ids.buffer, ends.buffer],
);
