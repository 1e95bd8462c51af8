/** The binding beside Faiss's own Python package: the same index file, queries and threads, in turn. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { FaissIndex } from '../../src/engine/native/faiss.ts';
import { normalised } from '../../src/memory/index.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { median, quantile } from '../cpu/cpu.ts';

export interface Options {
  vectors: number;
  queries: number;
  rounds: number;
  threads: number;
  say(line: string): void;
}

/** One way of asking, seconds a query in each round. */
export interface Figure {
  index: string;
  way: Way;
  ours: number[];
  peer: number[];
}

export interface Report extends Pick<Options, 'vectors' | 'queries' | 'threads'> {
  date: string;
  machine: string;
  node: string;
  faiss: string;
  figures: Figure[];
}

const WAYS = ['together', 'alone'] as const;
type Way = (typeof WAYS)[number];

interface Case {
  factory: string;
  parameters: Record<string, number>;
}

const CASES: readonly Case[] = [
  { factory: 'HNSW32', parameters: { efSearch: 64 } },
  { factory: 'IVF256,Flat', parameters: { nprobe: 16 } },
];
const DIMENSIONS = 128;
const CLUSTERS = 500;
const K = 5;
const PYTHON = process.env.PYTHON ?? '/usr/bin/python3';

export async function benchmarkFaiss(options: Options): Promise<Report> {
  const { vectors, queries, threads, say } = options;
  const folder = await mkdtemp(join(tmpdir(), 'memory3-bench-'));
  const report: Report = {
    ...{ vectors, queries, threads, faiss: '', figures: [] },
    ...{ date: new Date().toISOString(), machine: cpus()[0]?.model ?? 'unknown', node: process.version },
  };
  try {
    const asked = clustered(2, queries);
    await writeFile(join(folder, 'queries'), new Uint8Array(asked.buffer));
    for (const each of CASES) {
      say(`${each.factory}: ${vectors} vectors`);
      const path = join(folder, 'index');
      await makeIndex(path, each, clustered(1, vectors));
      const { figures, version } = await compare(path, each, asked, options, join(folder, 'queries'));
      report.figures.push(...figures);
      report.faiss = version;
    }
    return report;
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Vectors of length one around common centres, [n, d]. */
function clustered(seed: number, count: number): Float32Array {
  const centres = randomNormals(0, PURPOSE.test, 0, CLUSTERS * DIMENSIONS);
  const noise = randomNormals(seed, PURPOSE.test, 1, count * DIMENSIONS);
  for (let i = 0; i < noise.length; i++) {
    const centre = (Math.floor(i / DIMENSIONS) * 7919) % CLUSTERS;
    noise[i] = 0.7 * noise[i]! + centres[centre * DIMENSIONS + (i % DIMENSIONS)]!;
  }
  return normalised(noise, DIMENSIONS);
}

async function makeIndex(path: string, { factory }: Case, data: Float32Array): Promise<void> {
  const index = FaissIndex.create(DIMENSIONS, factory);
  await index.train(data);
  await index.add(
    data,
    BigInt64Array.from({ length: data.length / DIMENSIONS }, (_, i) => BigInt(i)),
  );
  await index.write(path);
  await index.close();
}

async function compare(
  path: string,
  { factory, parameters }: Case,
  queries: Float32Array,
  { rounds, threads }: Options,
  queriesPath: string,
): Promise<{ figures: Figure[]; version: string }> {
  const index = await FaissIndex.read(path, { threads });
  for (const [name, value] of Object.entries(parameters)) await index.set(name, value);
  const settings = Object.entries(parameters).map(([name, value]) => `${name}=${value}`);
  const peer = new Peer([path, queriesPath, DIMENSIONS, K, threads, ...settings].map(String));
  try {
    const { version } = await peer.answer<{ version: string }>();
    const figures = WAYS.map((way): Figure => ({ index: factory, way, ours: [], peer: [] }));
    for (let round = -1; round < rounds; round++) {
      for (const figure of figures) {
        const own = await searched(index, queries, figure.way);
        const other = await peer.ask(figure.way);
        if (other.ids.some((id, i) => BigInt(id) !== own.ids[i])) throw new Error('the two sides find other vectors');
        // The first round only brings everything into the caches.
        if (round < 0) continue;
        const count = queries.length / DIMENSIONS;
        figure.ours.push(own.seconds / count);
        figure.peer.push(other.seconds / count);
      }
    }
    return { figures, version };
  } finally {
    peer.close();
    await index.close();
  }
}

async function searched(
  index: FaissIndex,
  queries: Float32Array,
  way: Way,
): Promise<{ seconds: number; ids: bigint[] }> {
  // Threads that were idle while the other side computed wake up first, on both sides.
  await index.search(queries, K);
  const start = performance.now();
  const found: BigInt64Array[] = [];
  if (way === 'together') found.push((await index.search(queries, K)).ids);
  for (let from = 0; way === 'alone' && from < queries.length; from += DIMENSIONS) {
    found.push((await index.search(queries.subarray(from, from + DIMENSIONS), K)).ids);
  }
  const seconds = (performance.now() - start) / 1000;
  return { seconds, ids: found.flatMap((ids) => [...ids]) };
}

/** The process of bench/peers/faiss_search.py. */
class Peer {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(args: readonly string[]) {
    const script = fileURLToPath(new URL('../peers/faiss_search.py', import.meta.url));
    this.#process = spawn(PYTHON, [script, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#reader = createInterface({ input: this.#process.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async ask(way: Way): Promise<{ seconds: number; ids: number[] }> {
    this.#process.stdin?.write(`${way}\n`);
    return await this.answer();
  }

  async answer<T>(): Promise<T> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${PYTHON} has no Faiss (set PYTHON, or on Debian: apt-get install python3-faiss)`);
    return JSON.parse(value) as T;
  }

  close(): void {
    this.#process.stdin?.end();
    this.#reader.close();
  }
}

export function printFaissReport({ date, machine, node, faiss, vectors, queries, threads, figures }: Report): void {
  console.log(`${date.slice(0, 10)}, ${machine}, Node ${node}, Faiss ${faiss}`);
  console.log(`${vectors} vectors of ${DIMENSIONS}, ${queries} queries, ${threads} threads; microseconds a query\n`);
  console.log(
    '| index | queries | memory3 | python3-faiss | speed against Python (quartiles) |\n|---|---|---|---|---|',
  );
  for (const { index, way, ours, peer } of figures) {
    const ratios = ours.map((own, round) => peer[round]! / own);
    const micro = (seconds: readonly number[]): string => (1e6 * median(seconds)).toFixed(0);
    const quartiles = `${quantile(ratios, 0.25).toFixed(2)} to ${quantile(ratios, 0.75).toFixed(2)}`;
    const called = way === 'together' ? 'in one call' : 'one a call';
    console.log(
      `| ${index} | ${called} | ${micro(ours)} | ${micro(peer)} | ${median(ratios).toFixed(2)} (${quartiles}) |`,
    );
  }
}
