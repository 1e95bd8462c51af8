/** Measures what recording a run and showing it in every sink adds to its training steps, in turn with steps that are not. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../../src/config/load.ts';
import type { RunConfig, TrackingConfig } from '../../src/config/schema.ts';
import { ContinualStage } from '../../src/continual/continual.ts';
import { TrainingBank } from '../../src/continual/training_bank.ts';
import { dataPaths } from '../../src/data/paths.ts';
import { decodeChunk } from '../../src/data/tokenizer.ts';
import { openEngine } from '../../src/engine/engine.ts';
import { makeFolder } from '../../src/io/files.ts';
import { RunFolder, STAGES, type StageName } from '../../src/io/run_folder.ts';
import type { Model } from '../../src/model/model.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { RunTracker } from '../../src/tracking/run_tracker.ts';
import { readStatus } from '../../src/tracking/status.ts';
import { TrackingService } from '../../src/tracking/tracking_service.ts';
import { train } from '../../src/train/loop.ts';
import { TrainingRecord } from '../../src/train/record.ts';
import type { Stage } from '../../src/train/stage.ts';
import { StopRequest } from '../../src/train/stop.ts';
import { openText } from '../../src/train/text_batches.ts';
import { WarmupStage } from '../../src/warmup/warmup.ts';
import { modelOf, type Prepared, prepare } from '../bank/prefetch.ts';

export interface TrackingBenchOptions {
  /** Steps of a block that are measured. */
  steps: number;
  /** In each, a block of either kind runs. */
  rounds: number;
  threads: number;
  /** All when left out. */
  only?: StageName;
  say(line: string): void;
}

/** Steps of one kind, in a row. */
export interface Block {
  /** Milliseconds a step, everything between two steps included. */
  milliseconds: number;
  /** Processor milliseconds a step of all threads, that of the sinks too. */
  processor: number;
  /** Processor milliseconds a step of the thread of the sinks alone; 0 without, and where the system does not tell. */
  thread: number;
  /** Milliseconds of each step. */
  each: number[];
}

export interface TrackingReport {
  date: string;
  machine: string;
  node: string;
  engine: string;
  sinks: TrackingConfig['sinks'];
  steps: number;
  /** Load of the machine before and after, a mean of a minute; 1 is one processor kept busy. */
  load: [number, number];
  cases: { stage: StageName; tokens: number; pairs: { plain: Block; tracked: Block }[] }[];
}

/** Steps before those that count: the sinks have taken their first rows, and what runs often is compiled. */
const COLD = 150;
const QUICKSTART = fileURLToPath(new URL('../../configs/quickstart.yaml', import.meta.url));
const SINKS: TrackingConfig['sinks'] = ['wandb', 'tensorboard', 'csv'];
/** Rows go to the run's file, and nothing else is done. */
const NOTHING = { sinks: [], hardwareEvery: 0, attentionEvery: 0, retrievalsEvery: 0 };

export async function benchmarkTracking(options: TrackingBenchOptions): Promise<TrackingReport> {
  const { steps, threads, say } = options;
  const { name: engine } = await openEngine('auto', threads);
  const before = loadavg()[0]!;
  const cache = join(process.cwd(), '.cache');
  await makeFolder(cache);
  const folder = await mkdtemp(join(cache, 'bench-'));
  try {
    const { config } = await loadConfig(QUICKSTART, {});
    say('data and bank');
    const prepared = await prepare(settings(config, steps), folder);
    const cases: TrackingReport['cases'] = [];
    for (const stage of STAGES) {
      if (options.only !== undefined && options.only !== stage) continue;
      cases.push({ stage, ...(await measure(prepared, stage, options)) });
    }
    const about = { date: new Date().toISOString(), machine: cpus()[0]?.model ?? 'unknown', node: process.version };
    return { ...about, engine, sinks: SINKS, steps, load: [before, loadavg()[0]!], cases };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Every step of stage two reads memories; validation and checkpoint come after the steps that count. */
function settings(config: RunConfig, steps: number): RunConfig {
  const bounds = { steps: COLD + steps + 1, validateEvery: 0, checkpointEvery: 0, validationBatches: 1 };
  const growth = { ...config.continual.growth, every: COLD + steps + 2 };
  return {
    ...config,
    warmup: { ...config.warmup, ...bounds },
    continual: { ...config.continual, ...bounds, growth, plainShare: 0, refreshEvery: 0, driftSample: 0 },
  };
}

async function measure(
  prepared: Prepared,
  stage: StageName,
  { rounds, steps, say }: TrackingBenchOptions,
): Promise<Omit<TrackingReport['cases'][number], 'stage'>> {
  const pairs: { plain: Block; tracked: Block }[] = [];
  for (let round = 0; round < rounds; round++) {
    // What comes second is not always the same.
    const plainFirst = round % 2 === 0;
    const first = await runBlock(prepared, stage, !plainFirst, steps);
    const second = await runBlock(prepared, stage, plainFirst, steps);
    const [plain, tracked] = plainFirst ? [first, second] : [second, first];
    pairs.push({ plain, tracked });
    const ratio = tracked.milliseconds / plain.milliseconds;
    say(
      `${stage}, round ${round + 1} of ${rounds}: ${plain.milliseconds.toFixed(1)} ms a step, ` +
        `tracked ${tracked.milliseconds.toFixed(1)} ms (× ${ratio.toFixed(4)})`,
    );
  }
  const { batchSize } = prepared.config[stage];
  return { tokens: batchSize * prepared.config.data.sequenceLength, pairs };
}

/** Trains from the start in a run folder of its own. */
async function runBlock(prepared: Prepared, name: StageName, isTracked: boolean, steps: number): Promise<Block> {
  const folder = new RunFolder(await mkdtemp(join(prepared.folder, 'run-')));
  const tracking = { ...prepared.config.tracking, ...(isTracked ? { sinks: SINKS } : NOTHING) };
  const config: RunConfig = { ...prepared.config, tracking };
  const threads = new Set(threadIds());
  const service = isTracked ? await startService(folder, config) : undefined;
  const added = isTracked ? threadIds().filter((id) => !threads.has(id)) : [];
  const tracker = await RunTracker.open(folder, (stage, step) => service?.beginStage(stage, step));
  const model = modelOf(config, prepared.tokenizer);
  const { stage, close } = await openStage({ ...prepared, config }, name, model);
  const marks = markSteps(stage, added);
  try {
    await trainAll(config, stage, model, tracker);
  } finally {
    await close();
    model.dispose();
    await tracker.endStage();
    await service?.end('finished');
    await tracker.close();
  }
  if (isTracked) await refuseFailure(folder, COLD + steps + 1);
  await rm(folder.root, { recursive: true });
  const counted = marks.slice(COLD, COLD + steps + 1);
  const perStep = (what: keyof Mark): number => (counted.at(-1)![what] - counted[0]![what]) / steps;
  const each = counted.slice(1).map(({ at }, i) => at - counted[i]!.at);
  return { milliseconds: perStep('at'), processor: perStep('processor'), thread: perStep('thread'), each };
}

/** The threads of this process, where the system tells. */
function threadIds(): string[] {
  return existsSync('/proc/self/task') ? readdirSync('/proc/self/task') : [];
}

/** Milliseconds that threads have run. */
function threadTime(ids: readonly string[]): number {
  const nanoseconds = ids.map((id) => {
    const path = `/proc/self/task/${id}/schedstat`;
    return existsSync(path) ? Number(readFileSync(path, 'utf8').split(' ')[0]) : 0;
  });
  return nanoseconds.reduce((sum, time) => sum + time, 0) / 1e6;
}

/** The thread beside the training; it has loaded its modules when this returns. */
async function startService(folder: RunFolder, config: RunConfig): Promise<TrackingService> {
  await makeFolder(folder.metrics);
  const service = new TrackingService(folder, config, { command: 'bench', say: console.error, onStop: () => {} });
  while (!existsSync(folder.status)) await sleep(20);
  return service;
}

async function openStage(
  { config, folder, text, tokenizer, references, bank }: Prepared,
  name: StageName,
  model: Model,
): Promise<{ stage: Stage; close(): Promise<void> }> {
  const paths = dataPaths(join(folder, 'data'));
  if (name === 'warmup') {
    const plainText = await openText(paths.tokens, config.data.sources);
    return { stage: new WarmupStage(config, model, plainText), close: async () => {} };
  }
  const decode = decodeChunk(tokenizer);
  const shared = { config, model, prefix: tokenizer.referencePrefix, decode };
  const trained = await TrainingBank.open({ ...shared, folder: bank, references, written: { bench: 0 } });
  const stage = new ContinualStage({
    ...{ ...shared, text, plainText: text, bank: trained, parent: '0'.repeat(64) },
    ...{ tokenizer: paths.tokenizer, checkpoints: join(folder, 'checkpoints') },
  });
  const close = async (): Promise<void> => {
    await stage.close();
    await trained.close();
  };
  return { stage, close };
}

/** When a step begins: time, and processor time of the process and of some threads, in milliseconds. */
interface Mark {
  at: number;
  processor: number;
  thread: number;
}

/** @param threads that are watched */
function markSteps(stage: Stage, threads: readonly string[]): Mark[] {
  const marks: Mark[] = [];
  const prepareStep = stage.prepare.bind(stage);
  stage.prepare = async (step) => {
    const { user, system } = process.cpuUsage();
    marks.push({ at: performance.now(), processor: (user + system) / 1000, thread: threadTime(threads) });
    return await prepareStep(step);
  };
  return marks;
}

async function trainAll(config: RunConfig, stage: Stage, model: Model, tracker: RunTracker): Promise<void> {
  const provenance = { tokenizerHash: 'bench', datasetHash: 'bench' };
  const record = await TrainingRecord.open(tracker, stage.name, config, provenance, undefined);
  const optimizer = new AdamW(model.parameters, config.optimizer);
  const stop = new StopRequest(() => {});
  try {
    await train({
      ...{ stage, model, optimizer, record, stop, clipNorm: config.optimizer.clipNorm, tracking: config.tracking },
      ...{ state: { step: 0, tokensSeen: 0, best: undefined }, say: () => {}, sample: async () => '' },
    });
  } finally {
    stop.release();
    optimizer.dispose();
  }
}

/** A sink that took nothing would cost nothing. */
async function refuseFailure(folder: RunFolder, steps: number): Promise<void> {
  const { sinks = [] } = (await readStatus(folder.status)) ?? {};
  const failed = sinks.find(({ waiting, failures }) => waiting > 0 || failures > 0);
  if (sinks.length === SINKS.length && failed === undefined) return;
  throw new Error(`not every sink took all ${steps} rows: ${JSON.stringify(sinks)}`);
}
