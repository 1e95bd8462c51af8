/** Cleaning and deduplication: how fast each step goes through a corpus on one core, and what a kept document costs in memory. */

import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { cleaningSchema, deduplicationSchema, sourceSchema } from '../../src/config/schema.ts';
import { cleanText } from '../../src/data/cleaning.ts';
import { newCounters, readDocuments } from '../../src/data/documents.ts';
import { Duplicates } from '../../src/data/duplicates.ts';
import { exactHash, MinHash } from '../../src/data/min_hash.ts';
import { mix32 } from '../../src/data/words.ts';
import { median } from '../cpu/cpu.ts';

export interface Options {
  /** Corpora to go through, read into memory. */
  paths: string[];
  rounds: number;
  /** Invented documents that are kept, one in ten of those met repeats an earlier one. */
  documents: number;
  window: number;
  say(line: string): void;
}

export interface Report {
  date: string;
  machine: string;
  node: string;
  megabytes: number;
  texts: number;
  /** Seconds of processor time of each round: one thread works, and others may use the cores as well. */
  steps: { step: string; seconds: number[] }[];
  kept: KeptFigure[];
}

export interface KeptFigure {
  kept: number;
  found: number;
  /** Resident memory that came with them. */
  bytes: number;
  /** Of one document met: check, and add when it is kept. */
  microseconds: number;
}

/** Every rule is on, none drops much. */
const RULES = cleaningSchema.parse({
  unicode: 'nfc',
  minWords: 1,
  minMeanWordLength: 1,
  maxMeanWordLength: 20,
  maxNonAlphabetic: 0.9,
  minUniqueWords: 0.01,
  minEntropy: 0.1,
  maxRepeatedLines: 0.9,
});

export async function benchmarkDedup(options: Options): Promise<Report> {
  // Before the texts, whose memory would come and go meanwhile.
  const kept = await measureKept(options);
  const texts: string[] = [];
  const sources = options.paths.map((path) => sourceSchema.parse({ path }));
  for await (const { text } of readDocuments(sources, newCounters())) texts.push(text);
  return {
    ...{ date: new Date().toISOString(), machine: cpus()[0]?.model ?? 'unknown', node: process.version },
    megabytes: texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0) / 1e6,
    texts: texts.length,
    steps: measureSteps(texts, options),
    kept,
  };
}

function measureSteps(texts: readonly string[], { rounds, say }: Options): Report['steps'] {
  const minHash = new MinHash();
  const steps: [string, (text: string) => unknown][] = [
    ['clean, all rules', (text) => cleanText(text, RULES)],
    ['exact hash', exactHash],
    ['MinHash', (text) => minHash.sign(text)],
  ];
  const figures = steps.map(([step]) => ({ step, seconds: [] as number[] }));
  for (let round = -1; round < rounds; round++) {
    steps.forEach(([, work], i) => {
      const start = process.cpuUsage();
      for (const text of texts) work(text);
      const { user, system } = process.cpuUsage(start);
      // The first round warms up.
      if (round >= 0) figures[i]!.seconds.push((user + system) / 1e6);
    });
    say(`round ${round + 1} of ${rounds}`);
  }
  return figures;
}

async function measureKept({ documents, window, say }: Options): Promise<KeptFigure[]> {
  const folder = await mkdtemp(join(tmpdir(), 'memory3-bench-'));
  const before = process.memoryUsage.rss();
  const duplicates = new Duplicates(deduplicationSchema.parse({ exact: true, near: true, window }), folder);
  const figures: KeptFigure[] = [];
  try {
    let [met, found, milliseconds] = [0, 0, 0];
    for (let next = documents / 4; duplicates.kept < documents; met++) {
      const { exact, signature } = inventedEntry(met);
      const start = performance.now();
      if (duplicates.check(exact, signature)) found++;
      else duplicates.add(exact, signature);
      milliseconds += performance.now() - start;
      if (duplicates.kept < next) continue;
      next += documents / 4;
      const { kept } = duplicates;
      const bytes = process.memoryUsage.rss() - before;
      figures.push({ kept, found, bytes, microseconds: (1000 * milliseconds) / (met + 1) });
      say(`${kept} documents kept`);
    }
  } finally {
    duplicates.close();
    await rm(folder, { recursive: true });
  }
  return figures;
}

/** Random hashes; every tenth has the signature of an earlier document with 20 places changed. */
function inventedEntry(number: number): { exact: Uint32Array; signature: Uint32Array } {
  const repeats = number % 10 === 9;
  const original = repeats ? mix32(number) % number : number;
  const signature = Uint32Array.from({ length: 128 }, (_, i) => mix32(mix32(original + 1) ^ Math.imul(i, 0x9e3779b9)));
  const first = number % 100;
  for (let i = first; repeats && i < first + 20; i++) signature[i] = mix32(number ^ (i << 20));
  return { exact: Uint32Array.from({ length: 4 }, (_, i) => mix32(number + i * 1e9)), signature };
}

export function printDedupReport({ megabytes, texts, steps, kept, machine, node }: Report): void {
  console.log(
    `${machine}, node ${node}, processor time of one thread; ${megabytes.toFixed(1)} MB in ${texts} documents`,
  );
  for (const { step, seconds } of steps) {
    console.log(`  ${step.padEnd(18)}${(megabytes / median(seconds)).toFixed(1).padStart(7)} MB/s`);
  }
  console.log('documents kept       found    bytes each  µs each');
  for (const { kept: count, found, bytes, microseconds } of kept) {
    const cells = [
      `${found}`.padStart(12),
      (bytes / count).toFixed(0).padStart(14),
      microseconds.toFixed(1).padStart(9),
    ];
    console.log(`${`${count}`.padStart(14)}${cells.join('')}`);
  }
}
