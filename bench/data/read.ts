/**
 * Reading shuffled training sequences back from shards in the page cache: tokens a second of wall-clock time and of
 * processor time. Legend: T tokens of a sequence.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SampleOrder } from '../../src/data/sample_order.ts';
import {
  joinSplits,
  TokenDataset,
  TokenShardWriter,
  type TokenSplit,
  writeTokenManifest,
} from '../../src/data/token_dataset.ts';

export interface ReadOptions {
  /** Tokens of the dataset. */
  tokens: number;
  sequenceLength: number;
  /** Sequences read together, as for a micro-batch. */
  batchSize: number;
  rounds: number;
}

export interface ReadRate {
  /** Million tokens a second. */
  wall: number;
  processor: number;
  /** MiB: at the start, and at the end. */
  rss: [number, number];
}

const SHARD_TOKENS = 8 * 2 ** 20;
const DOCUMENT_TOKENS = 1000;

/** The first epoch compares every record batch with its checksum; the rounds after it are what training runs at. */
export async function benchmarkReading(options: ReadOptions): Promise<{ first: ReadRate; later: ReadRate[] }> {
  const folder = await mkdtemp(join(tmpdir(), 'memory3-read-'));
  try {
    await writeDataset(folder, options.tokens);
    const dataset = await TokenDataset.open(folder, 'train');
    const rates: ReadRate[] = [];
    for (let epoch = 0; epoch <= options.rounds; epoch++) rates.push(await readEpoch(dataset, options, epoch));
    await dataset.close();
    return { first: rates[0]!, later: rates.slice(1) };
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function readEpoch(
  dataset: TokenDataset,
  { sequenceLength: T, batchSize }: ReadOptions,
  epoch: number,
): Promise<ReadRate> {
  const order = new SampleOrder(dataset.segments, T);
  const before = { rss: rss(), time: performance.now(), processor: process.cpuUsage() };
  const first = epoch * order.numSamples;
  for (let done = 0; done < order.numSamples; done += batchSize) {
    const rows = Array.from({ length: Math.min(batchSize, order.numSamples - done) }, (_, row) =>
      dataset.window(order.startAt(1, first + done + row), T + 1),
    );
    await Promise.all(rows);
  }
  const seconds = (performance.now() - before.time) / 1000;
  const { user, system } = process.cpuUsage(before.processor);
  const million = (order.numSamples * T) / 1e6;
  return { wall: million / seconds, processor: million / ((user + system) / 1e6), rss: [before.rss, rss()] };
}

const rss = () => Math.round(process.memoryUsage.rss() / 2 ** 20);

/** Random ids in shards of 8 Mi tokens. */
async function writeDataset(folder: string, tokens: number): Promise<void> {
  const ids = new Int32Array(DOCUMENT_TOKENS);
  const shards: TokenSplit[] = [];
  for (let written = 0; written < tokens; written += SHARD_TOKENS) {
    const name = `tokens-${String(shards.length).padStart(5, '0')}.arrow`;
    const writer = new TokenShardWriter(join(folder, 'train', name), 32_768);
    const count = Math.min(SHARD_TOKENS, tokens - written);
    for (let at = 0; at < count; at += DOCUMENT_TOKENS) {
      for (let i = 1; i < DOCUMENT_TOKENS; i++) ids[i] = Math.imul(at + i, 0x9e3779b1) >>> 17;
      const source = { path: 'random', offset: at };
      await writer.append(
        { id: `${name}:${at}`, text: '', source },
        ids.subarray(0, Math.min(DOCUMENT_TOKENS, count - at)),
      );
    }
    shards.push(await writer.close());
  }
  const splits = { train: joinSplits(shards), validation: joinSplits([]) };
  const sources = [{ name: 'random', files: [], splits }];
  await writeTokenManifest(folder, { tokenizerHash: 'none', vocabSize: 32_768, bos: 0, sources });
}

export function printReadReport({ first, later }: Awaited<ReturnType<typeof benchmarkReading>>): void {
  const line = (name: string, { wall, processor, rss: [before, after] }: ReadRate) =>
    console.log(
      `${name.padEnd(16)} ${wall.toFixed(1).padStart(7)} M tokens/s, ${processor.toFixed(1)} of processor time; RSS ${before} to ${after} MiB`,
    );
  line('first epoch', first);
  for (const rate of later) line('later epoch', rate);
}
