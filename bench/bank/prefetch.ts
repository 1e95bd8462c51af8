/** Measures how long a training step waits for what it reads, with reading ahead and without, in turn. */

import { mkdtemp, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../../src/config/load.ts';
import type { RunConfig } from '../../src/config/schema.ts';
import { ContinualStage } from '../../src/continual/continual.ts';
import { TrainingBank } from '../../src/continual/training_bank.ts';
import { buildData } from '../../src/data/build.ts';
import { dataPaths } from '../../src/data/paths.ts';
import { ReferenceDataset } from '../../src/data/references.ts';
import { continualSources } from '../../src/data/source_groups.ts';
import { decodeChunk, Tokenizer } from '../../src/data/tokenizer.ts';
import { openEngine } from '../../src/engine/engine.ts';
import { makeFolder } from '../../src/io/files.ts';
import { Bank } from '../../src/memory/bank.ts';
import type { RetrievalEncoder } from '../../src/memory/encoders/encoder.ts';
import { growthPlan } from '../../src/memory/growth.ts';
import { keptCount, type MemoryBatch, memoryLayout, rowLength } from '../../src/memory/layout.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, parameterShapes, sizeOf } from '../../src/model/shape.ts';
import { lossAndGradients } from '../../src/model/training.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import { bankIdentity, makeEncoder } from '../../src/pipeline/bank_setup.ts';
import { modelShape } from '../../src/pipeline/workspace.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { openText, type TrainingText } from '../../src/train/text_batches.ts';
import { RecordingTracker } from '../../test/tracking/support.ts';

export interface PrefetchOptions {
  /** Steps of a turn that are measured. */
  steps: number;
  rounds: number;
  threads: number;
  /** Names of cases; all when left out. */
  only?: readonly string[];
  say(line: string): void;
}

/** Steps with one setting, of all rounds; times in milliseconds. */
export interface Turns {
  ahead: number;
  steps: number[];
  /** What each step waited for tokens and memories. */
  waits: number[];
  /** Processor time of all threads a step, a mean of each turn. */
  processor: number[];
  /** What reading a step took in the thread that reads ahead. */
  reading: number[];
}

export interface PrefetchReport {
  date: string;
  machine: string;
  node: string;
  engine: string;
  cases: { name: string; parameters: number; tokens: number; memories: number; turns: Turns[] }[];
}

/** Steps before those that count: buffers are made, the first reading is waited for. */
const COLD = 3;
const SETTINGS = [0, 2] as const;

const fileOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const CASES: Record<string, { config: string; memories: RunConfig['continual']['memories'] }> = {
  'quickstart, online': { config: fileOf('../../configs/quickstart.yaml'), memories: 'online' },
  'quickstart, bank': { config: fileOf('../../configs/quickstart.yaml'), memories: 'bank' },
  '25M, bank': { config: fileOf('25m.yaml'), memories: 'bank' },
};

export async function benchmarkPrefetch(options: PrefetchOptions): Promise<PrefetchReport> {
  const { name: engine } = await openEngine('auto', options.threads);
  const cache = join(process.cwd(), '.cache');
  await makeFolder(cache);
  const report: PrefetchReport = {
    ...{ date: new Date().toISOString(), machine: cpus()[0]?.model ?? 'unknown', node: process.version, engine },
    cases: [],
  };
  for (const [name, { config: path, memories }] of Object.entries(CASES)) {
    if (options.only?.every((part) => !name.startsWith(part))) continue;
    const folder = await mkdtemp(join(cache, 'bench-'));
    try {
      const { config } = await loadConfig(path, {});
      options.say(`${name}: data and bank`);
      const prepared = await prepare({ ...config, continual: stageOf(config, memories, options.steps) }, folder);
      report.cases.push({ name, ...(await measure(prepared, name, options)) });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return report;
}

/** The stage without plain steps, and without growth after the start: every measured step reads. */
function stageOf(config: RunConfig, memories: 'bank' | 'online', steps: number): RunConfig['continual'] {
  const growth = { ...config.continual.growth, every: COLD + steps };
  return { ...config.continual, memories, growth, steps: COLD + steps, plainShare: 0, accumulate: 1, refreshEvery: 0 };
}

export interface Prepared {
  config: RunConfig;
  folder: string;
  text: TrainingText;
  tokenizer: Tokenizer;
  references: ReferenceDataset;
  bank: string;
  memories: number;
}

/** Builds data, and a bank of the references that stage two begins with: their own vectors, made-up numbers. */
export async function prepare(config: RunConfig, folder: string): Promise<Prepared> {
  const paths = dataPaths(join(folder, 'data'));
  await buildData(config.data, config.memory, join(folder, 'data'), config.seed);
  const tokenizer = await Tokenizer.load(paths.tokenizer);
  const references = await ReferenceDataset.open(paths.references);
  const model = modelOf(config, tokenizer);
  const encoder = await makeEncoder(config, model, tokenizer, references);
  const bank = join(folder, 'bank');
  const writer = await Bank.create(bank, bankIdentity(config, model.shape, tokenizer, encoder));
  const memories = growthPlan(config.continual.growth, references.size, config.seed).countAt(0);
  await writer.append(madeUp(config, encoder, references, memories), 'bench');
  model.dispose();
  const tokens = config.data.continual.sources.length > 0 ? paths.continualTokens : paths.tokens;
  const text = await openText(tokens, continualSources(config.data));
  return { config, folder, text, tokenizer, references, bank, memories };
}

async function* madeUp(
  config: RunConfig,
  encoder: RetrievalEncoder,
  references: ReferenceDataset,
  count: number,
): AsyncGenerator<MemoryBatch> {
  const layout = memoryLayout(config.model, config.memory);
  const plan = growthPlan(config.continual.growth, references.size, config.seed);
  let first = 0;
  for await (const { context: _, ...reference } of references.inOrder(plan.referencesAt(0, count), 0)) {
    const { text, tokens } = reference;
    const rows = randomNormals(config.seed, PURPOSE.test, first++, rowLength(layout));
    const keptLength = Math.min(layout.keptTokens, tokens.length);
    const vectors = await encoder.encodeReferences({
      texts: [text],
      tokens: [tokens],
      rows,
      keptLengths: [keptLength],
    });
    const kept = Int32Array.from({ length: keptCount(layout) }, (_, i) => i % keptLength);
    yield { records: [{ ...reference, kept, keptLength }], rows, vectors };
  }
}

export function modelOf(config: RunConfig, tokenizer: Tokenizer): Model {
  const shape = modelShape(config, tokenizer);
  return new Model(shape, initParameters(shape, config.seed));
}

async function measure(
  prepared: Prepared,
  name: string,
  { rounds, steps, say }: PrefetchOptions,
): Promise<Omit<PrefetchReport['cases'][number], 'name'>> {
  const { config, tokenizer, memories } = prepared;
  const turns: Turns[] = SETTINGS.map((ahead) => ({ ahead, steps: [], waits: [], processor: [], reading: [] }));
  for (let round = 0; round < rounds; round++) {
    for (const turn of turns) {
      say(`${name}: round ${round + 1} of ${rounds}, ${turn.ahead} ahead`);
      await runTurn(prepared, turn, steps);
    }
  }
  const shapes = parameterShapes(modelShape(config, tokenizer));
  const parameters = [...shapes.values()].reduce((sum, shape) => sum + sizeOf(shape), 0);
  return { parameters, tokens: config.continual.batchSize * config.data.sequenceLength, memories, turns };
}

/** Trains some steps from the start and adds what they took. */
async function runTurn({ config, folder, text, tokenizer, references, bank }: Prepared, turn: Turns, steps: number) {
  const settings: RunConfig = { ...config, continual: { ...config.continual, prefetch: turn.ahead } };
  const model = modelOf(config, tokenizer);
  const optimizer = new AdamW(model.parameters, config.optimizer);
  const prefix = tokenizer.referencePrefix;
  const decode = decodeChunk(tokenizer);
  const trained = await TrainingBank.open({ config: settings, folder: bank, model, references, prefix, decode });
  const stage = new ContinualStage({
    ...{ config: settings, model, text, plainText: text, bank: trained, decode, prefix, parent: 'bench' },
    ...{ tokenizer: dataPaths(join(folder, 'data')).tokenizer, checkpoints: join(folder, 'checkpoints') },
  });
  let used = process.cpuUsage();
  try {
    for (let step = 1; step <= COLD + steps; step++) {
      if (step === COLD + 1) used = process.cpuUsage();
      const { milliseconds, wait } = await trainStep(stage, model, optimizer, config, step);
      const tracker = new RecordingTracker();
      await stage.measure(tracker, step);
      const prefetchMs = tracker.values['time/prefetch_ms'];
      if (step <= COLD) continue;
      turn.steps.push(milliseconds);
      turn.waits.push(wait);
      if (typeof prefetchMs === 'number') turn.reading.push(prefetchMs);
    }
    const { user, system } = process.cpuUsage(used);
    turn.processor.push((user + system) / 1000 / steps);
  } finally {
    await stage.close();
    await trained.close();
    optimizer.dispose();
    model.dispose();
  }
}

async function trainStep(stage: ContinualStage, model: Model, optimizer: AdamW, config: RunConfig, step: number) {
  await stage.prepare(step);
  const started = performance.now();
  const batch = await stage.microBatch(step, 0);
  const { gradients, count } = await lossAndGradients(model, batch.input);
  batch.dispose();
  const { clipNorm } = config.optimizer;
  const { updated } = await clipAndUpdate(optimizer, gradients, { learningRate: 1e-4, clipNorm, tokens: count });
  disposeGradients(gradients);
  if (!updated) throw new Error(`step ${step} diverged`);
  return { milliseconds: performance.now() - started, wait: batch.dataMs + batch.retrievalMs };
}
