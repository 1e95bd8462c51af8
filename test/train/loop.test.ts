/** The loop and its record, with a small model and batches made up by a stage of the test's own. */

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { latestCheckpoint, listCheckpoints, loadCheckpoint } from '../../src/checkpoint/checkpoint.ts';
import { modelSchema, type RunConfig, runSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, parameterShapes, sizeOf } from '../../src/model/shape.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import { RunTracker } from '../../src/tracking/run_tracker.ts';
import type { Tracker } from '../../src/tracking/tracker.ts';
import type { Histogram, MetricsRow as Row } from '../../src/tracking/values.ts';
import { train } from '../../src/train/loop.ts';
import { TrainingRecord } from '../../src/train/record.ts';
import { trainingState, weightValues } from '../../src/train/resume.ts';
import type { MicroBatch, Stage, StageSettings, StageState } from '../../src/train/stage.ts';
import { StopRequest } from '../../src/train/stop.ts';
import { temporaryFolder, userErrorOf } from '../data/support.ts';
import { hasCuda } from '../engines.ts';

const TOKENS = 8;
const SHAPE = {
  ...modelSchema.parse({
    numLayers: 1,
    hiddenSize: 8,
    numHeads: 2,
    kvHeads: 1,
    headDim: 4,
    mlpWidth: 8,
    memoryLayers: 0,
  }),
  vocabSize: 20,
};
const PROVENANCE = { tokenizerHash: 'tokenizer', datasetHash: 'dataset' };

/** Sequences of random tokens; a sequence's last targets are left out of the loss, more of them in every other one. */
class RandomStage implements Stage {
  readonly name = 'warmup';
  readonly prepared: number[] = [];
  readonly settings: StageSettings;
  /** Called with each step that begins. */
  private readonly begin: (step: number) => void;

  constructor(settings: StageSettings, begin: (step: number) => void = () => {}) {
    this.settings = settings;
    this.begin = begin;
  }

  async prepare(step: number): Promise<undefined> {
    this.prepared.push(step);
    this.begin(step);
  }

  async microBatch(step: number, micro: number): Promise<MicroBatch> {
    const { batchSize, accumulate } = this.settings;
    const count = batchSize * TOKENS;
    const first = (step * accumulate * batchSize + micro * batchSize) * TOKENS;
    const token = (i: number): number => randomInt(1, PURPOSE.test, 0, first + i, SHAPE.vocabSize);
    const isLeftOut = (i: number): boolean => i % TOKENS >= ((first + i) % (2 * TOKENS) < TOKENS ? 7 : 3);
    const input = {
      ids: Int32Array.from({ length: count }, (_, i) => token(i)),
      targets: Int32Array.from({ length: count }, (_, i) => (isLeftOut(i) ? -1 : token(i + 1))),
      positions: Int32Array.from({ length: TOKENS }, (_, i) => i),
    };
    return { input, dataMs: 0, retrievalMs: 0, dispose: () => {} };
  }

  async validate(): Promise<Record<string, number>> {
    return { 'validation/loss': 10 - this.prepared.length, 'validation/other': 1 };
  }

  async measure(tracker: Tracker, step: number): Promise<void> {
    tracker.log({ extra: 1 }, step);
  }

  state(): StageState {
    return { parent: 'f'.repeat(64) };
  }
}

function configure(warmup: object, tracking: object = {}): RunConfig {
  const schedule = { kind: 'constant', warmupSteps: 0, peak: 0.01 };
  const settings = { steps: 6, batchSize: 2, learningRate: schedule, validateEvery: 4, checkpointEvery: 3, ...warmup };
  return runSchema.parse({ name: 'loop', data: { sequenceLength: TOKENS }, warmup: settings, tracking });
}

const stops: StopRequest[] = [];
beforeAll(async () => {
  vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  await openEngine('cpu', 1);
});
afterEach(() => {
  for (const stop of stops.splice(0)) stop.release();
});

interface Options {
  folder?: RunFolder;
  begin?: (step: number, model: Model) => void;
}

/** Trains from the newest checkpoint, or from the start. */
async function run(config: RunConfig, { folder = new RunFolder(temporaryFolder()), begin }: Options = {}) {
  const { newest } = await latestCheckpoint(folder.checkpoints('warmup'));
  const checkpoint = newest && (await loadCheckpoint(newest.path));
  const model = new Model(SHAPE, checkpoint ? weightValues(checkpoint.parameters) : initParameters(SHAPE, 3));
  const optimizer = new AdamW(model.parameters, config.optimizer);
  if (checkpoint) optimizer.load(checkpoint.optimizer);
  const tracker = await RunTracker.open(folder);
  const record = await TrainingRecord.open(tracker, 'warmup', config, PROVENANCE, checkpoint);
  const stop = new StopRequest(() => {});
  stops.push(stop);
  const stage = new RandomStage(config.warmup, (step) => begin?.(step, model));
  const said: string[] = [];
  const say = (message: string): void => {
    said.push(message);
  };
  const state = trainingState(checkpoint);
  try {
    const complete = await train({
      ...{ stage, model, optimizer, clipNorm: 1, record, tracking: config.tracking, state, stop, say },
      sample: async (prompt) => `${prompt}!`,
    });
    return { complete, folder, said, weights: await model.weights(), prepared: stage.prepared };
  } finally {
    await record.close();
    await tracker.close();
    optimizer.dispose();
    model.dispose();
  }
}

const rowsOf = (path: string): Record<string, number>[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, number>);
const validationsOf = (folder: RunFolder) =>
  rowsOf(folder.metricsFile('warmup')).flatMap((row) =>
    row['validation/loss'] === undefined ? [] : [[row.step, row['validation/loss']]],
  );
const stepsOf = async (folder: RunFolder): Promise<number[]> =>
  (await listCheckpoints(folder.checkpoints('warmup'))).map(({ step }) => step).sort((a, b) => a - b);

describe.each(hasCuda ? (['cpu', 'cuda'] as const) : (['cpu'] as const))('train on %s', (engine) => {
  beforeAll(async () => void (await openEngine(engine, 1, 'float32')));
  afterAll(async () => void (await openEngine('cpu', 1)));

  it('stops after the step in which a signal arrives, and goes on with the same bits', async () => {
    const whole = await run(configure({}));
    const stopped = await run(configure({}), { begin: (step) => step === 2 && process.emit('SIGINT', 'SIGINT') });
    expect(stopped.complete).toBe(false);
    expect(await stepsOf(stopped.folder)).toEqual([2]);
    expect(rowsOf(stopped.folder.metricsFile('warmup'))).toHaveLength(2);
    const resumed = await run(configure({}), { folder: stopped.folder });
    expect(resumed.prepared).toEqual([3, 4, 5, 6]);
    expect(resumed.weights).toEqual(whole.weights);
  });

  it('refuses a step that is not finite, without making it', async () => {
    const folder = new RunFolder(temporaryFolder());
    const poison = (step: number, model: Model): void => {
      if (step === 5) tf.tidy(() => model.finalNorm.assign(tf.fill([8], Number.NaN)));
    };
    const error = await userErrorOf(run(configure({}), { folder, begin: poison }));
    expect(error.code).toBe('training_diverged');
    expect(error.message).toContain('warmup step 5: the loss is NaN');
    expect(error.message).toContain('warmup.learningRate.peak');
    expect(await stepsOf(folder)).toEqual([3]);
  });
});

describe('train', () => {
  it('makes every step once and leaves rows, validations and checkpoints where they are due', async () => {
    const { complete, folder, said, prepared } = await run(configure({ steps: 7, keepCheckpoints: 1 }));
    expect(complete).toBe(true);
    expect(prepared).toEqual([1, 2, 3, 4, 5, 6, 7]);
    const rows = rowsOf(folder.metricsFile('warmup'));
    expect(rows.map(({ step }) => step)).toEqual(prepared);
    // In every pair of sequences 7 and 3 targets count.
    expect(rows.map((row) => row['train/tokens'])).toEqual(prepared.map((step) => 10 * step));
    expect(rows.every((row) => row.extra === 1 && Number.isFinite(row['train/loss']))).toBe(true);
    expect(validationsOf(folder)).toEqual([
      [4, 6],
      [7, 3],
    ]);
    expect(said).toHaveLength(2);
    expect(await stepsOf(folder)).toEqual([7]);
  });

  it('weighs every token alike, in however many micro-batches they come', async () => {
    const whole = await run(configure({ batchSize: 2, accumulate: 1 }));
    const parts = await run(configure({ batchSize: 1, accumulate: 2 }));
    for (const [name, weights] of whole.weights)
      for (const [i, weight] of weights.entries())
        expect(Math.abs(parts.weights.get(name)![i]! - weight)).toBeLessThan(1e-4);
    const [a, b] = [whole, parts].map(({ folder }) =>
      rowsOf(folder.metricsFile('warmup')).map((row) => row['train/loss']!),
    );
    for (const [i, loss] of a!.entries()) expect(b![i]).toBeCloseTo(loss, 4);
  });

  it('drops the rows after the checkpoint that it goes on from', async () => {
    const folder = new RunFolder(temporaryFolder());
    const failing = run(configure({}), {
      folder,
      begin: (step) => {
        if (step === 5) throw new Error('killed');
      },
    });
    await expect(failing).rejects.toThrow('killed');
    expect(rowsOf(folder.metricsFile('warmup'))).toHaveLength(4);
    expect(validationsOf(folder)).toHaveLength(1);
    const resumed = await run(configure({}), { folder });
    expect(resumed.prepared).toEqual([4, 5, 6]);
    expect(rowsOf(folder.metricsFile('warmup')).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(validationsOf(folder).map(([step]) => step)).toEqual([4, 6]);
  });

  it('begun anew where a run was before drops the rows of its later stage, unless that has checkpoints', async () => {
    const folder = new RunFolder(temporaryFolder());
    const later = folder.metricsFile('continual');
    mkdirSync(folder.metrics);
    for (const hasCheckpoints of [true, false]) {
      writeFileSync(later, '{"step":1}\n');
      const saved = join(folder.checkpoints('continual'), 'step-00000001');
      if (hasCheckpoints) mkdirSync(saved, { recursive: true });
      await run(configure({ steps: 1 }), { folder });
      expect(existsSync(later)).toBe(hasCheckpoints);
      rmSync(saved, { recursive: true, force: true });
      rmSync(folder.checkpoints('warmup'), { recursive: true });
    }
  });

  it('passes the weights on when there is no step to make', async () => {
    const { complete, folder, weights } = await run(configure({ steps: 0 }));
    expect(complete).toBe(true);
    expect(await stepsOf(folder)).toEqual([0]);
    expect(weights).toEqual(initParameters(SHAPE, 3));
  });

  it('records distributions and samples where they are due, and trains the same bits', async () => {
    const tracking = { histogramsEvery: 2, attentionEvery: 1, samples: { every: 3, prompts: ['one', 'two'] } };
    const plain = await run(configure({ accumulate: 2 }));
    const tracked = await run(configure({ accumulate: 2 }, tracking));
    expect(tracked.weights).toEqual(plain.weights);
    const [before, rows] = [plain, tracked].map(({ folder }) => rowsOf(folder.metricsFile('warmup')) as Row[]);
    const kept = ({ step, ...row }: Row) => [
      step,
      row['train/loss'],
      row['train/gradient_norm'],
      row['validation/loss'],
    ];
    expect(rows!.map(kept)).toEqual(before!.map(kept));
    expect(before!.some((row) => Object.keys(row).some((name) => /^(parameters|gradients|samples)/.test(name)))).toBe(
      false,
    );

    const names = [...parameterShapes(SHAPE).keys()];
    for (const row of rows!) {
      const due = (row.step as number) % 2 === 0;
      for (const name of names) {
        for (const group of ['parameters', 'gradients']) {
          const histogram = row[`${group}/${name}`] as Histogram | undefined;
          expect(histogram !== undefined, `${group}/${name} in step ${String(row.step)}`).toBe(due);
          const count = histogram?.counts.reduce((sum, part) => sum + part, 0);
          if (due) expect(count).toBe(sizeOf(parameterShapes(SHAPE).get(name)!));
        }
      }
      const isSampled = (row.step as number) % 3 === 0;
      expect(row['samples/1']).toEqual(isSampled ? { type: 'text', text: 'oneone!' } : undefined);
      expect(row['samples/2']).toEqual(isSampled ? { type: 'text', text: 'twotwo!' } : undefined);
    }
    // Gradients are means over tokens, as their norm is: none of them is larger than it.
    const last = rows!.at(-1)!;
    const reach = names.flatMap((name) => (last[`gradients/${name}`] as Histogram).edges).map(Math.abs);
    expect(Math.max(...reach)).toBeLessThanOrEqual(last['train/gradient_norm'] as number);
    expect(Math.max(...reach)).toBeGreaterThan((last['train/gradient_norm'] as number) / 100);
    const weights = tracked.weights.get(names[0]!)!;
    const { edges } = last[`parameters/${names[0]!}`] as Histogram;
    expect([edges[0], edges.at(-1)]).toEqual([Math.min(...weights), Math.max(...weights)]);
  });

  it('leaves no tensors', async () => {
    await run(configure({}));
    const { numTensors } = tf.memory();
    await run(configure({}));
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});
