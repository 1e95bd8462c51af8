/**
 * A whole build of a run's data in a process of its own: time and MB/s of each stage, and the most memory that it had. With
 * copies the corpus is so many times as large: in each further copy the words of every document stand in another order, so
 * that neither cleaning nor the search for duplicates takes it for one that was there before.
 */

import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { stringify } from 'yaml';
import type { RunConfig, SourceConfig } from '../../src/config/schema.ts';
import { readBuildReport } from '../../src/data/build_report.ts';
import { newCounters, readDocuments } from '../../src/data/documents.ts';
import type { StageTime } from '../../src/data/report.ts';
import { makeFolder, writeFileAtomic } from '../../src/io/files.ts';

export interface BuildOptions {
  config: RunConfig;
  /** Folder for corpus and data; removed at the end. */
  folder: string;
  /** How many times as large as the run's the corpora are. */
  copies: number;
  say: (line: string) => void;
}

export interface BuildFigures {
  copies: number;
  /** Documents kept, and MB of their text. */
  documents: number;
  megabytes: number;
  stages: StageTime[];
  seconds: number;
  /** MiB: the most resident memory of the process with all its threads. */
  peak: number;
  contentHash: string;
}

export async function benchmarkBuild({ config, folder, copies, say }: BuildOptions): Promise<BuildFigures> {
  await makeFolder(folder);
  try {
    const further = Array.from({ length: copies - 1 }, (_, i) => i + 1);
    const sources: SourceConfig[] = [...config.data.sources];
    for (const copy of further)
      sources.push(...(await shuffledCopies(config.data.sources, join(folder, `copy-${copy}`), copy)));
    const run = { ...config, name: 'built', runsFolder: folder, data: { ...config.data, sources } };
    const path = join(folder, 'build.yaml');
    await writeFileAtomic(path, stringify(run));
    say(`building ${sources.length} sources`);
    const started = performance.now();
    const peak = await peakMemory(['bin/memory3.js', 'data', 'build', '-c', path]);
    const seconds = (performance.now() - started) / 1000;
    const { sources: built, stages, contentHash } = await readBuildReport(join(folder, 'built', 'data'));
    const sum = (count: (part: { documents: number; bytes: number }) => number) =>
      built.reduce((total, { train, validation }) => total + count(train) + count(validation), 0);
    const megabytes = sum(({ bytes }) => bytes) / 1e6;
    return { copies, documents: sum(({ documents }) => documents), megabytes, stages, seconds, peak, contentHash };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Every source again as JSONL, each document's words (characters, where there are hardly any spaces) in another order. */
async function shuffledCopies(sources: readonly SourceConfig[], folder: string, copy: number): Promise<SourceConfig[]> {
  await makeFolder(folder);
  const made: SourceConfig[] = [];
  for (const [i, source] of sources.entries()) {
    const path = join(folder, `${i}.jsonl`);
    async function* lines() {
      for await (const { id, text } of readDocuments([source], newCounters())) {
        yield `${JSON.stringify({ id: `${id} ${copy}`, text: shuffled(text, copy) })}\n`;
      }
    }
    await pipeline(Readable.from(lines()), createWriteStream(path));
    const { name = source.path } = source;
    made.push({ ...source, name, path, format: 'jsonl', textField: 'text', idField: 'id' });
  }
  return made;
}

/** Line by line, so that what the rules measure stays as it is. */
function shuffled(text: string, copy: number): string {
  return text
    .split('\n')
    .map((line) => {
      const spaced = line.includes(' ');
      const words = spaced ? line.split(' ') : [...line];
      const step = strideFor(words.length, copy);
      return words.map((_, at) => words[(at * step) % words.length]!).join(spaced ? ' ' : '');
    })
    .join('\n');
}

/** Steps that visit all of `length` places; for most lengths another one for each copy. */
function strideFor(length: number, copy: number): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  if (length < 2) return 1;
  let step = 3 * copy + 2;
  while (divisor(step, length) !== 1) step += 1;
  return step;
}

/** Runs node; gives the peak of its resident memory in MiB, as Linux counts it. */
async function peakMemory(args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  let peak = 0;
  const timer = setInterval(() => {
    void readFile(`/proc/${child.pid}/status`, 'utf8').then(
      (status) => {
        peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 1024 * peak) / 1024;
      },
      () => undefined,
    );
  }, 100);
  const code = await new Promise<number | null>((done) => child.on('close', done));
  clearInterval(timer);
  if (code !== 0) throw new Error(`the build ended with ${code}`);
  return peak;
}

export function printBuildFigures({ copies, documents, megabytes, stages, seconds, peak }: BuildFigures): void {
  console.log(
    `corpus × ${copies}: ${documents} documents, ${megabytes.toFixed(1)} MB kept, ${seconds.toFixed(0)} s, peak ${peak.toFixed(0)} MiB`,
  );
  for (const { stage, seconds: time, bytes } of stages) {
    const rate = (bytes / 1e6 / time).toFixed(2);
    console.log(
      `  ${stage.padEnd(12)} ${time.toFixed(1).padStart(7)} s ${(bytes / 1e6).toFixed(1).padStart(8)} MB ${rate.padStart(7)} MB/s`,
    );
  }
}
