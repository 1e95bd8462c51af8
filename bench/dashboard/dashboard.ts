/** How fast the dashboard answers over a folder of ten million rows, and how much memory its server takes. */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunDetail } from '../../src/dashboard/api.ts';
import { makeRuns } from './folder.ts';

const CHARTS = [
  'train/loss,validation/loss',
  'train/learning_rate',
  'train/gradient_norm',
  'train/tokens_per_s',
  'train/gflop_per_s',
  'time/data_ms,time/retrieval_ms,time/compute_ms',
];
/** Shares of the run that zooms show. */
const DEPTHS = [0.5, 0.05, 0.005, 0.0005];
const POINTS = 4000;

export interface DashboardBenchmark {
  rows: number;
  longRows: number;
  runs: number;
  zooms: number;
  /** Where the runs are made; removed then. */
  folder: string;
  say(line: string): void;
}

/** Milliseconds. */
interface Times {
  list: number;
  run: number;
  zoomMedian: number;
  zoomWorst: number;
}

export interface DashboardFigures {
  bytes: number;
  /** Without an index and without the files in memory; while it is being made; when it is there; the same after a restart. */
  cold: Times;
  indexed: Times;
  warm: Times;
  indexSeconds: number;
  indexBytes: number;
  /** Most memory that the server had, MB: over all of the cold start, and after the restart. */
  rssCold: number;
  rssWarm: number;
}

export async function benchmarkDashboard(options: DashboardBenchmark): Promise<DashboardFigures> {
  const { say } = options;
  if (!existsSync('dist/cli/dashboard.js')) throw new Error('run `npm run build` first');
  const folder = mkdtempSync(join(options.folder === '' ? tmpdir() : options.folder, 'memory3-dashboard-'));
  try {
    const runs = join(folder, 'runs');
    await makeRuns({ ...options, folder: runs });
    const bytes = bytesIn(runs);
    forget(runs);
    say('cold: no index, files not in memory');
    const first = await start(runs, join(folder, 'cache'));
    const cold = await measure(first.address, options.zooms);
    const began = performance.now();
    while ((await get<RunDetail>(first.address, 'runs/long')).indexed < 1) await sleep(500);
    const indexSeconds = (performance.now() - began) / 1000;
    say(`indexed after ${indexSeconds.toFixed(0)} s more`);
    const indexed = await measure(first.address, options.zooms);
    const rssCold = mostMemory(first.pid);
    await first.stop();
    const second = await start(runs, join(folder, 'cache'));
    const warm = await measure(second.address, options.zooms);
    const rssWarm = mostMemory(second.pid);
    await second.stop();
    return { bytes, cold, indexed, warm, indexSeconds, indexBytes: bytesIn(join(folder, 'cache')), rssCold, rssWarm };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function printDashboardFigures(figures: DashboardFigures): void {
  const line = (name: string, { list, run, zoomMedian, zoomWorst }: Times) =>
    console.log(
      `${name.padEnd(34)} list ${list.toFixed(0)} ms, run ${run.toFixed(0)} ms, zoom median ${zoomMedian.toFixed(0)} ms, worst ${zoomWorst.toFixed(0)} ms`,
    );
  console.log(`${(figures.bytes / 1e9).toFixed(2)} GB of rows, index ${(figures.indexBytes / 1e9).toFixed(2)} GB`);
  line('cold, while it is indexed', figures.cold);
  line(`indexed, ${figures.indexSeconds.toFixed(0)} s later`, figures.indexed);
  line('started again, index there', figures.warm);
  console.log(`most memory: ${figures.rssCold.toFixed(0)} MB cold, ${figures.rssWarm.toFixed(0)} MB warm`);
}

/** The list of runs, the page of the long run with its charts, then zooms into all charts at once. */
async function measure(address: string, zooms: number): Promise<Times> {
  const list = await timed(() => get(address, 'runs'));
  const run = await timed(async () => {
    await get(address, 'runs/long');
    await charts(address, '');
  });
  const { step } = await get<RunDetail>(address, 'runs/long');
  const times: number[] = [];
  for (let i = 0; i < zooms; i++) {
    const width = step * DEPTHS[i % DEPTHS.length]!;
    const from = (step - width) * ((i * 0.618) % 1);
    times.push(await timed(() => charts(address, `&from=${from}&to=${from + width}`)));
  }
  times.sort((a, b) => a - b);
  return { list, run, zoomMedian: times[times.length >> 1]!, zoomWorst: times.at(-1)! };
}

async function charts(address: string, range: string): Promise<void> {
  await Promise.all(
    CHARTS.map((keys) => get(address, `runs/long/series?keys=${encodeURIComponent(keys)}&points=${POINTS}${range}`)),
  );
}

async function get<T>(address: string, path: string): Promise<T> {
  const response = await fetch(`${address}api/${path}`);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

interface Started {
  address: string;
  pid: number;
  stop(): Promise<void>;
}

async function start(runs: string, cache: string): Promise<Started> {
  const server = spawn(process.execPath, ['bin/memory3.js', 'dashboard', runs, '--port', '0'], {
    env: { ...process.env, XDG_CACHE_HOME: cache },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  for await (const chunk of server.stdout) {
    text += String(chunk);
    const address = /http:\S+/.exec(text)?.[0];
    if (address === undefined) continue;
    const stop = async () => {
      server.kill('SIGINT');
      if (server.exitCode === null) await once(server, 'exit');
    };
    return { address, pid: server.pid!, stop };
  }
  throw new Error(`the server ended: ${text}`);
}

/** MB. */
function mostMemory(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1000;
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function bytesIn(folder: string): number {
  return filesIn(folder).reduce((sum, path) => sum + statSync(path).size, 0);
}

/** Has the system drop files from its page cache. */
function forget(folder: string): void {
  execFileSync('sync');
  for (const path of filesIn(folder)) {
    execFileSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
  }
}
