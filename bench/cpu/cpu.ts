/** Runs the cases on both sides in turn. */

import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { physicalCores } from '../../src/io/cores.ts';
import { initParameters } from '../../src/model/shape.ts';
import { cases, checkCase, type Measured } from './cases.ts';
import { ours, type Run, type Setting, type TorchChoice, torch, Worker } from './worker.ts';

export interface Options {
  rounds: number;
  threads: number;
  withPeer: boolean;
  only?: string[];
  say(line: string): void;
}

export interface Figure {
  name: string;
  measured: Measured;
  /** Seconds a step, one of each round. */
  ours: number[];
  peer?: number[];
  peerSetting?: string;
  /** Of the case that this one is set against, in the same rounds. */
  against?: number[];
  /** Share of the wall time that JavaScript was on a processor. */
  javascriptShare: number;
  profile: { name: string; calls: number; seconds: number }[];
}

export interface Report {
  date: string;
  machine: string;
  cores: number;
  threads: number;
  node: string;
  torch?: string;
  rounds: number;
  figures: Figure[];
  /** Most memory of a process that has trained three steps of shape 3, bytes. */
  peakBytes?: { ours: number; peer?: number };
}

const PYTHON = process.env.PYTHON ?? '/usr/bin/python3';

export async function benchmarkCpu(options: Options): Promise<Report> {
  const { rounds, say } = options;
  const threads = options.threads || physicalCores();
  const version = options.withPeer ? torchVersion(say) : undefined;
  const settings = version ? [firstChoice(threads), ...otherChoices(threads)].map((c) => torch(PYTHON, c)) : [];
  const report: Report = {
    date: new Date().toISOString(),
    machine: cpus()[0]?.model ?? 'unknown',
    cores: physicalCores(),
    threads,
    node: process.version,
    ...(version && { torch: version }),
    rounds,
    figures: [],
  };
  if (version) await checkAgreement(threads, settings[0]!, say);
  for (const [name, measured] of Object.entries(cases())) {
    if (options.only && !options.only.includes(name)) continue;
    say(`${name}: ${measured.what}`);
    report.figures.push(await measure(name, measured, settings, { ...options, threads }));
  }
  if (!options.only || options.only.includes('shape3')) report.peakBytes = await peaks(threads, settings);
  return report;
}

function torchVersion(say: Options['say']): string | undefined {
  try {
    return execFileSync(PYTHON, ['-c', 'import torch; print(torch.__version__)'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    say(
      `PyTorch is not there (${PYTHON}; set PYTHON, or on Debian: apt-get install python3-torch): only ours is measured`,
    );
    return undefined;
  }
}

/** Where the search for PyTorch's best settings begins: what is best most often. */
const firstChoice = (threads: number): TorchChoice => ({ threads, passive: false, keepMemory: true, freeBlas: true });

/** What differs from the first choice in one thing. */
function otherChoices(threads: number): TorchChoice[] {
  const first = firstChoice(threads);
  return [
    ...(threads > 1 ? [{ ...first, passive: true }] : []),
    ...(threads > 1 ? [{ ...first, threads: 1 }] : []),
    { ...first, keepMemory: false },
    ...(process.env.OPENBLAS_CORETYPE ? [{ ...first, freeBlas: false }] : []),
  ];
}

/** Both sides must compute the same thing, or a comparison says nothing. */
async function checkAgreement(threads: number, setting: Setting, say: Options['say']): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'memory3-bench-'));
  const workers = [new Worker(ours(threads)), new Worker(setting)];
  try {
    for (const memories of [false, true]) {
      const file = join(folder, 'weights');
      const given = checkCase(file, memories);
      if (given.kind !== 'training') throw new Error('the check trains');
      const values = [...initParameters({ ...given.shape, initStd: 0.2, embeddingStd: 1 }, 3).values()];
      await writeFile(file, Buffer.concat(values.map((value) => new Uint8Array(value.buffer))));
      const results: Run[] = [];
      for (const worker of workers) {
        await worker.prepare(given);
        results.push(await worker.run(3));
      }
      expectEqual(results, memories, say);
    }
  } finally {
    for (const worker of workers) worker.close();
    await rm(folder, { recursive: true });
  }
}

function expectEqual([own, other]: Run[], memories: boolean, say: Options['say']): void {
  for (const key of ['loss', 'gradientNorm'] as const) {
    const [a, b] = [own![key]!, other![key]!];
    if (!(Math.abs(a - b) <= 1e-4 * Math.abs(b))) throw new Error(`${key} after 3 steps: ours ${a}, PyTorch ${b}`);
  }
  say(`agreement ${memories ? 'with memories' : 'without memories'}: loss ${own!.loss!.toFixed(6)} on both sides`);
}

async function measure(name: string, measured: Measured, settings: Setting[], options: Options): Promise<Figure> {
  const own = new Worker(ours(options.threads));
  const against = measured.against === undefined ? undefined : cases()[measured.against]!;
  const other = against && new Worker(ours(options.threads));
  const peer = settings.length > 0 ? await bestPeer(measured, settings, options.say) : undefined;
  try {
    const figure: Figure = { name, measured, ours: [], javascriptShare: 0, profile: [] };
    const [peerSeconds, otherSeconds]: number[][] = [[], []];
    await own.prepare(measured.case);
    await other?.prepare(against!.case);
    for (const worker of [own, other]) await worker?.warmUp();
    let last: Run | undefined;
    for (let round = 0; round < options.rounds; round++) {
      last = await own.run(measured.steps);
      figure.ours.push(median(last.seconds));
      if (other) otherSeconds!.push(median((await other.run(against!.steps)).seconds));
      if (peer) peerSeconds!.push(median((await peer.run(measured.steps)).seconds));
    }
    Object.assign(figure, profileOf(last!, measured.steps));
    if (other) figure.against = otherSeconds!;
    return peer ? { ...figure, peer: peerSeconds!, peerSetting: peer.setting.name } : figure;
  } finally {
    for (const worker of [own, other, peer]) worker?.close();
  }
}

function profileOf(run: Run, steps: number): Pick<Figure, 'javascriptShare' | 'profile'> {
  const total = run.seconds.reduce((sum, value) => sum + value, 0);
  return {
    javascriptShare: run.javascript! / total,
    profile: run.profile!.map(({ name, calls, seconds }) => ({ name, calls: calls / steps, seconds: seconds / steps })),
  };
}

/** Tries each setting on the case and keeps the fastest process. */
async function bestPeer({ case: given }: Measured, settings: Setting[], say: Options['say']): Promise<Worker> {
  let best: { worker: Worker; seconds: number } | undefined;
  for (const setting of settings) {
    const worker = new Worker(setting);
    await worker.prepare(given);
    const seconds = await worker.warmUp();
    say(`  PyTorch, ${setting.name}: ${(seconds * 1000).toFixed(1)} ms`);
    if (best && best.seconds <= seconds) worker.close();
    else {
      best?.worker.close();
      best = { worker, seconds };
    }
  }
  return best!.worker;
}

/** PyTorch's peak is that of the setting in which it is lowest. */
async function peaks(threads: number, settings: Setting[]): Promise<{ ours: number; peer?: number }> {
  const peak = async (setting: Setting): Promise<number> => {
    const worker = new Worker(setting);
    try {
      await worker.prepare(cases().shape3!.case);
      await worker.run(3);
      return await worker.peakBytes();
    } finally {
      worker.close();
    }
  };
  const own = await peak(ours(threads));
  const others: number[] = [];
  for (const setting of settings) others.push(await peak(setting));
  return others.length > 0 ? { ours: own, peer: Math.min(...others) } : { ours: own };
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** By linear interpolation. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  return sorted[below]! + (place - below) * ((sorted[below + 1] ?? sorted[below]!) - sorted[below]!);
}
