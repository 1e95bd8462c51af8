/** Reading ahead gives the bits of reading in the step, whatever happens to the bank meanwhile. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BatchReader, type Place, type Reading } from '../../src/continual/batch_reader.ts';
import { ContinualStage } from '../../src/continual/continual.ts';
import { Prefetcher, type PrefetchSetup } from '../../src/continual/prefetch.ts';
import { TrainingBank } from '../../src/continual/training_bank.ts';
import { dataPaths } from '../../src/data/paths.ts';
import { decodeChunk } from '../../src/data/tokenizer.ts';
import type { CudaBackend } from '../../src/engine/cuda/backend.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { UserError } from '../../src/errors.ts';
import { Bank } from '../../src/memory/bank.ts';
import { segmentFolder } from '../../src/memory/segment.ts';
import { bankIdentity, makeEncoder } from '../../src/pipeline/bank_setup.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';
import type { MicroBatch } from '../../src/train/stage.ts';
import { TextBatches } from '../../src/train/text_batches.ts';
import { flipBit, userErrorOf } from '../data/support.ts';
import { hasCuda } from '../engines.ts';
import { type RandomRun, randomRun, writeBank } from '../infer/random_run.ts';
import { RecordingTracker } from '../tracking/support.ts';

// A thread that loads TypeScript starts slowly on a machine that does other work too.
vi.setConfig({ testTimeout: 120_000 });

const open: { close(): Promise<void> }[] = [];
const runs: RandomRun[] = [];
afterEach(async () => {
  for (const opened of open.splice(0).reverse()) await opened.close();
  for (const { model } of runs.splice(0)) model.dispose();
});

/** The bank grows before the steps 1, 4, 7 and 10 and is rewritten in part before 6 and 11. */
const STAGE = {
  ...{ batchSize: 2, accumulate: 2, plainShare: 0.2, validationBatches: 2 },
  ...{ growth: { initialShare: 0.2, every: 3, share: 0.3 }, refreshEvery: 5, refreshShare: 0.5 },
};
const STEPS = 12;

async function newRun(continual: object): Promise<RandomRun> {
  const run = await randomRun({
    continual: { steps: STEPS, ...STAGE, ...continual },
    tracking: { retrievalsEvery: 2, retrievedChunks: 6 },
  });
  runs.push(run);
  await writeBank(run, 0);
  return run;
}

async function openBank({ config, folder, model, references, tokenizer }: RandomRun, version?: number) {
  const prefix = tokenizer.referencePrefix;
  const decode = decodeChunk(tokenizer);
  const bank = await TrainingBank.open({ config, folder: folder.bank, model, references, prefix, decode, version });
  open.push(bank);
  return bank;
}

async function openStage(run: RandomRun, version?: number): Promise<{ stage: ContinualStage; bank: TrainingBank }> {
  const { config, folder, model, train, validation, weights, tokenizer } = run;
  const bank = await openBank(run, version);
  const text = { train, validation, weights };
  const stage = new ContinualStage({
    ...{ config, model, text, plainText: text, bank, prefix: tokenizer.referencePrefix, parent: 'p' },
    decode: decodeChunk(tokenizer),
    ...{ tokenizer: dataPaths(folder.data).tokenizer, checkpoints: folder.checkpoints('continual') },
  });
  open.push(stage);
  return { stage, bank };
}

/** Everything that the model is given. */
async function contents({ input, dispose }: MicroBatch): Promise<unknown> {
  const { ids, targets, memories, onlineReferences } = input;
  const tensors = memories && [...memories.keys, ...memories.values, memories.lengths, memories.index];
  const values = tensors && (await Promise.all(tensors.map((tensor) => tensor.data())));
  const index = onlineReferences && (await onlineReferences.index.data());
  dispose();
  return { ids, targets, values, online: onlineReferences && { ...onlineReferences, index } };
}

/** What a step has found in the bank, without how fast. */
function found(values: MetricsRow): MetricsRow {
  return Object.fromEntries(Object.entries(values).filter(([name]) => name.startsWith('memory/')));
}

/** What each step reads and validates; the weights move after every step, as in training. */
async function trace(run: RandomRun, { until = STEPS, from = 1, version }: Partial<Record<string, number>> = {}) {
  const { stage, bank } = await openStage(run, version);
  const steps: unknown[] = [];
  let tracker = new RecordingTracker();
  for (let step = from; step <= until; step++) {
    await stage.prepare(step);
    const batches: unknown[] = [];
    for (let micro = 0; micro < STAGE.accumulate; micro++) {
      batches.push(await contents(await stage.microBatch(step, micro)));
    }
    for (const variable of run.model.parameters.values()) tf.tidy(() => variable.assign(variable.mul(1.01)));
    tracker = new RecordingTracker();
    await stage.measure(tracker, step);
    const measures = found(tracker.values);
    steps.push({ version: bank.bank.version, batches, measures, ...(step % 4 === 0 && (await stage.validate())) });
  }
  return { steps, version: bank.bank.version, measures: tracker.values };
}

describe('a stage that reads ahead', () => {
  for (const memories of ['bank', 'online'] as const) {
    it(`gives the bits of one that does not, over growths and refreshes and a resume (${memories})`, async () => {
      const expected = await trace(await newRun({ memories, prefetch: 0 }));
      expect(expected.measures['time/prefetch_ms']).toBeUndefined();
      expect(new Set(expected.steps.map((step) => (step as { version: number }).version)).size).toBe(6);

      expect(
        expected.steps.filter((step) => 'memory/retrievals' in (step as { measures: MetricsRow }).measures).length,
      ).toBeGreaterThan(3);

      const ahead = await trace(await newRun({ memories, prefetch: 3 }));
      expect(ahead.steps).toEqual(expected.steps);
      expect(ahead.measures['time/prefetch_ms']).toBeGreaterThan(0);
      if (memories === 'bank') expect(ahead.measures['bank/cache_hit_rate']).toBeGreaterThan(0);

      const stopped = await newRun({ memories, prefetch: 1 });
      const before = await trace(stopped, { until: 8 });
      const after = await trace(stopped, { from: 9, version: before.version });
      expect([...before.steps, ...after.steps]).toEqual(expected.steps);
    });
  }

  it.skipIf(!hasCuda)(
    'sends rows ahead on an engine that has a way for them, and gives the same bits there',
    async () => {
      const newCudaRun = async (prefetch: number): Promise<RandomRun> => {
        const run = await newRun({ prefetch });
        await openEngine('cuda', 0, 'float32');
        return run;
      };
      try {
        const before = tf.memory().numDataBuffers;
        const expected = await trace(await newCudaRun(0), { until: 4 });
        const later = await newCudaRun(2);
        const upload = vi.spyOn((tf.backend() as CudaBackend).kernels, 'upload');
        const { steps, measures } = await trace(later, { until: 4 });
        expect(steps).toEqual(expected.steps);
        expect(measures['time/prefetch_ms']).toBeGreaterThan(0);
        expect(upload.mock.calls.length).toBeGreaterThan(4);
        // What was sent for a step that did not come goes with the stage.
        for (const opened of open.splice(0).reverse()) await opened.close();
        for (const { model } of runs.splice(0)) model.dispose();
        expect(tf.memory().numDataBuffers).toBe(before);
      } finally {
        vi.restoreAllMocks();
        await openEngine('cpu', 0);
      }
    },
  );

  it('reads in the step what can only be found with the model of the step', async () => {
    const run = await randomRun({ retrieval: { encoder: 'keys' }, continual: { steps: STEPS, ...STAGE } });
    runs.push(run);
    const { config, folder, model, references, tokenizer } = run;
    const encoder = await makeEncoder(config, model, tokenizer, references);
    await Bank.create(folder.bank, bankIdentity(config, model.shape, tokenizer, encoder));
    const { steps, measures } = await trace(run, { until: 3 });
    expect(steps).toHaveLength(3);
    expect(measures['time/prefetch_ms']).toBeUndefined();
  });

  it('fails as one that does not when the bank is damaged, in the step that reads the damage', async () => {
    const errors: object[] = [];
    for (const prefetch of [0, 2]) {
      const run = await newRun({ prefetch, plainShare: 0 });
      const { stage, bank } = await openStage(run);
      await stage.prepare(1);
      const [segment] = bank.bank.segments;
      const rows = join(segmentFolder(run.folder.bank, segment!.id), 'rows.bin');
      flipBit(rows, 100);
      const error = await stage.microBatch(1, 0).catch((thrown: unknown) => thrown);
      if (!(error instanceof UserError)) throw error;
      expect(error.where).toBe(rows);
      const { code, exitCode, message } = error;
      errors.push({ code, exitCode, message: message.replaceAll(run.folder.root, '') });
    }
    const [inStep, ahead] = errors;
    expect(ahead).toEqual(inStep);
    expect(ahead).toMatchObject({ code: 'file_corrupt', exitCode: 4 });
  });
});

function setupOf({ config, folder, train, tokenizer }: RandomRun): PrefetchSetup {
  const paths = dataPaths(folder.data);
  return {
    ...{ config, engine: 'cpu', bank: folder.bank, tokens: train.folder, tokenizer: paths.tokenizer },
    prefix: tokenizer.referencePrefix,
  };
}

const PLACES: Place[] = [1, 2, 3, 4].map((step) => ({ kind: 'training', step, micro: 0 }));
/** A reading without the time it took. */
const bits = ({ dataMs: _, retrievalMs: __, ...rest }: Reading): unknown => rest;

describe('Prefetcher', () => {
  it('hands out nothing that was read of an older version', async () => {
    const run = await newRun({});
    const bank = await openBank(run);
    await bank.prepare(1);
    const prefetcher = new Prefetcher(setupOf(run), 3);
    open.push(prefetcher);
    const text = new TextBatches(run.config, run.config.continual, run);
    const reader = new BatchReader(run.config, text, run.tokenizer.referencePrefix);
    const inStep = async (place: Place) =>
      bits(await reader.read(place, { bank: bank.bank, retriever: await bank.retriever() }));

    await prefetcher.open(bank.bank.version);
    const [first, ...later] = PLACES as [Place, ...Place[]];
    expect(bits(await prefetcher.read(first, later))).toEqual(await inStep(first));
    const old = await Promise.all(later.map(inStep));
    await bank.prepare(4);
    await prefetcher.open(bank.bank.version);
    for (const [i, place] of later.entries()) {
      const reading = bits(await prefetcher.read(place, later.slice(i + 1)));
      expect(reading).toEqual(await inStep(place));
      expect(reading).not.toEqual(old[i]);
    }
  });

  it('asks for no more than it was told to', async () => {
    const run = await newRun({});
    const bank = await openBank(run);
    await bank.prepare(1);
    const prefetcher = new Prefetcher(setupOf(run), 2);
    open.push(prefetcher);
    await prefetcher.open(bank.bank.version);
    const asked: Place[] = [];
    function* after(): Generator<Place> {
      for (const place of PLACES.slice(1)) {
        asked.push(place);
        yield place;
      }
    }
    await prefetcher.read(PLACES[0]!, after());
    // The third is looked at and left.
    expect(asked).toEqual(PLACES.slice(1, 4));
  });

  it('says what is wrong with a version, and goes on with another', async () => {
    const run = await newRun({});
    const bank = await openBank(run);
    await bank.prepare(1);
    const prefetcher = new Prefetcher(setupOf(run), 1);
    open.push(prefetcher);
    const error = await userErrorOf(prefetcher.open(99));
    expect(error.code).toBe('artefact_missing');
    await expect(prefetcher.read(PLACES[0]!, [])).rejects.toThrow('no version of the bank is open');
    await prefetcher.open(bank.bank.version);
    expect((await prefetcher.read(PLACES[0]!, [])).ids).toHaveLength(64);
  });

  it('says what keeps the thread from starting', async () => {
    const run = await newRun({});
    const prefetcher = new Prefetcher({ ...setupOf(run), tokens: join(run.folder.root, 'nowhere') }, 1);
    open.push(prefetcher);
    expect((await userErrorOf(prefetcher.open(0))).code).toBe('artefact_missing');
  });

  it('refuses what is asked for after its end, also what was under way', async () => {
    const run = await newRun({});
    const prefetcher = new Prefetcher(setupOf(run), 1);
    const opening = prefetcher.open(0);
    opening.catch(() => undefined);
    await prefetcher.close();
    await expect(opening).rejects.toThrow('the thread that reads ahead ended');
    await expect(prefetcher.open(0)).rejects.toThrow('the thread that reads ahead ended');
    await prefetcher.close();
  });

  it('keeps no process alive that has nothing to wait for, whatever it still reads', async () => {
    const run = await newRun({});
    const bank = await openBank(run);
    await bank.prepare(1);
    const child = fileURLToPath(new URL('./prefetch_child.ts', import.meta.url));
    const setup = {
      setup: { ...setupOf(run), prefix: [...run.tokenizer.referencePrefix] },
      version: bank.bank.version,
    };
    const process_ = spawn(process.execPath, ['--import', 'tsx', child, JSON.stringify(setup)]);
    let output = '';
    for (const stream of [process_.stdout, process_.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    const [code] = (await once(process_, 'close')) as [number];
    expect(output).toBe('read\n');
    expect(code).toBe(0);
  });
});
