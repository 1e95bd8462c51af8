/** A thread of the build: cleans texts and signs those that stay, so that duplicates among them can be told. */

import { workerData } from 'node:worker_threads';
import type { CleaningConfig, DeduplicationConfig } from '../config/schema.ts';
import { serveJobs } from '../io/worker_pool.ts';
import { cleanText } from './cleaning.ts';
import { ENTRY_BYTES, packEntry } from './duplicates.ts';
import { exactHash, MinHash } from './min_hash.ts';

export interface CleanWorkerData {
  cleaning: CleaningConfig;
  deduplication: DeduplicationConfig;
}

export interface CleanResult {
  /** What became of each text; `text` is left out where it is as it was. */
  texts: { text?: string; dropped?: { reason: string; detail: string } }[];
  /** Packed entries of the texts that stay, back to back; empty when duplicates are not looked for. */
  entries: Uint8Array<ArrayBuffer>;
}

const { cleaning, deduplication } = workerData as CleanWorkerData;
const minHash = new MinHash();

serveJobs<string[], CleanResult>(
  async (originals) => {
    const cleaned = originals.map((original) => cleanText(original, cleaning));
    const texts = cleaned.map(({ text, dropped }, i) => ({
      ...(text === originals[i] ? {} : { text }),
      ...(dropped && { dropped }),
    }));
    return { texts, entries: entriesOf(cleaned.flatMap(({ text, dropped }) => (dropped ? [] : [text]))) };
  },
  ({ entries }) => [entries.buffer],
);

function entriesOf(texts: readonly string[]): Uint8Array<ArrayBuffer> {
  if (!deduplication.exact && !deduplication.near) return new Uint8Array(0);
  const entries = new Uint8Array(texts.length * ENTRY_BYTES);
  for (const [i, text] of texts.entries()) {
    const signature = deduplication.near ? minHash.sign(text) : undefined;
    entries.set(packEntry(exactHash(text), signature), i * ENTRY_BYTES);
  }
  return entries;
}
