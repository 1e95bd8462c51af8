/**
 * The training loop of both stages: fetch, accumulate, check, update, measure, save. One optimiser step is
 * `trainStep`; everything after it is bookkeeping.
 */

import type { TrackingConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import type { Model } from '../model/model.ts';
import { flopsPerToken } from '../model/shape.ts';
import { lossAndGradients } from '../model/training.ts';
import type { AdamW } from '../optim/adamw.ts';
import { learningRate } from '../optim/schedule.ts';
import { accumulateGradients, clipAndUpdate, disposeGradients, type Gradients } from '../optim/update.ts';
import { Progress } from '../tracking/progress.ts';
import { attentionImage, isEvery, recordHistograms } from './measures.ts';
import type { TrainingRecord } from './record.ts';
import type { Stage, StageEvent } from './stage.ts';
import type { StopRequest } from './stop.ts';

export interface TrainingState {
  /** Optimiser steps made. */
  step: number;
  /** Target tokens that counted so far. */
  tokensSeen: number;
  best: { step: number; loss: number } | undefined;
}

export interface Training {
  stage: Stage;
  model: Model;
  optimizer: AdamW;
  /** Global gradient norm above which gradients are scaled down. */
  clipNorm: number;
  record: TrainingRecord;
  /** What is recorded, and how often. */
  tracking: TrackingConfig;
  state: TrainingState;
  stop: StopRequest;
  say(message: string): void;
  /** Goes on from a prompt with the current weights; changes nothing that is trained. */
  sample(prompt: string): Promise<string>;
}

/** Sums over the micro-batches of one step. */
interface Accumulated {
  gradients: Gradients;
  lossSum: number;
  tokens: number;
  memoryShare: number;
  /** Of each memory layer and head, `[Lmem · H]`; absent when it is not recorded or no memory was read. */
  headShares: Float64Array | undefined;
  dataMs: number;
  retrievalMs: number;
}

/**
 * Trains from `training.state` to the end of the stage, or to the step in which a stop was requested.
 * @returns true when the stage is complete
 * @throws UserError training_diverged when a loss or gradient is not finite; the weights are those of the step before
 */
export async function train(training: Training): Promise<boolean> {
  const { stage, state, stop, record } = training;
  const { settings } = stage;
  const progress = new Progress({ label: stage.name, total: settings.steps, unit: 'steps', done: state.step });
  try {
    while (state.step < settings.steps && !stop.requested) {
      const { loss, tokensPerSecond } = await trainStep(training);
      progress.update(state.step, { loss, 'tok/s': tokensPerSecond });
      await sampleTexts(training);
      const isSaved = isDue(settings.checkpointEvery, state.step, settings.steps);
      if (isDue(settings.validateEvery, state.step, settings.steps)) await validate(training, isSaved);
      record.tracker.commit();
      if (isSaved || stop.requested) await record.checkpoint(training);
    }
    // A stage of no steps passes its weights on as they are.
    if (settings.steps === 0) await record.checkpoint(training);
  } finally {
    progress.stop();
  }
  return state.step >= settings.steps;
}

/** True every `interval` steps and at the last one; `interval` 0 means at the last one only. */
function isDue(interval: number, step: number, lastStep: number): boolean {
  return step === lastStep || (interval > 0 && step % interval === 0);
}

async function trainStep(training: Training): Promise<{ loss: number; tokensPerSecond: number }> {
  const { stage, model, optimizer, state, record, tracking } = training;
  const { tracker } = record;
  const started = performance.now();
  const step = state.step + 1;
  const change = await stage.prepare(step);
  if (change !== undefined) tell(training, change, step);
  const prepared = performance.now();
  const sums = await accumulate(stage, model, step, isEvery(tracking.attentionEvery, step));
  const rate = learningRate(stage.settings.learningRate, step, stage.settings.steps);
  const loss = sums.lossSum / sums.tokens;
  const { gradientNorm, updated } = await clipAndUpdate(optimizer, sums.gradients, {
    learningRate: rate,
    clipNorm: training.clipNorm,
    tokens: sums.tokens,
  });
  const seconds = (performance.now() - started) / 1000;
  if (updated && isEvery(tracking.histogramsEvery, step)) await recordHistograms(tracker, model, sums, step);
  disposeGradients(sums.gradients);
  if (!updated) throw diverged(stage, step, loss, gradientNorm, record);

  state.step = step;
  state.tokensSeen += sums.tokens;
  recordStep(training, sums, { loss, rate, gradientNorm, seconds, prepareMs: prepared - started });
  await stage.measure(tracker, step);
  return { loss, tokensPerSecond: sums.tokens / seconds };
}

/** What the update of a step was like. */
interface StepFigures {
  loss: number;
  /** Learning rate. */
  rate: number;
  gradientNorm: number;
  /** Of the whole step, and the milliseconds of it before the first micro-batch. */
  seconds: number;
  prepareMs: number;
}

function recordStep({ model, state, record }: Training, sums: Accumulated, figures: StepFigures): void {
  const { loss, rate, gradientNorm, seconds, prepareMs } = figures;
  const { tracker, sequenceLength } = record;
  tracker.log(
    {
      'train/loss': loss,
      'train/learning_rate': rate,
      'train/gradient_norm': gradientNorm,
      'train/tokens': state.tokensSeen,
      'train/tokens_per_s': sums.tokens / seconds,
      'train/gflop_per_s': (sums.tokens * flopsPerToken(model.shape, sequenceLength)) / seconds / 1e9,
      'time/data_ms': sums.dataMs,
      'time/retrieval_ms': sums.retrievalMs,
      'time/prepare_ms': prepareMs,
      'time/compute_ms': seconds * 1000 - prepareMs - sums.dataMs - sums.retrievalMs,
      ...(sums.memoryShare > 0 && { 'memory/attention_share': sums.memoryShare }),
    },
    state.step,
  );
  if (sums.headShares) tracker.image('memory/attention', attentionImage(model.shape, sums.headShares), state.step);
}

function tell({ stage, record, say }: Training, { kind, text }: StageEvent, step: number): void {
  record.tracker.event(kind, text, step);
  say(`${stage.name} step ${step}: ${text}`);
}

/** Loss and gradients are sums over tokens, so that dividing once by all valid tokens of the step weighs each alike. */
async function accumulate(stage: Stage, model: Model, step: number, headShares: boolean): Promise<Accumulated> {
  const { accumulate: parts } = stage.settings;
  let gradients: Gradients | undefined;
  let byHead: Float64Array | undefined;
  const sums = { lossSum: 0, tokens: 0, memoryShare: 0, dataMs: 0, retrievalMs: 0 };
  for (let micro = 0; micro < parts; micro++) {
    const batch = await stage.microBatch(step, micro);
    const result = await lossAndGradients(model, batch.input, { headShares });
    batch.dispose();
    gradients = accumulateGradients(gradients, result.gradients);
    sums.lossSum += result.lossSum;
    sums.tokens += result.count;
    sums.memoryShare += (result.memoryShare ?? 0) / parts;
    byHead = result.headShares?.map((share, i) => share / parts + (byHead?.[i] ?? 0)) ?? byHead;
    sums.dataMs += batch.dataMs;
    sums.retrievalMs += batch.retrievalMs;
  }
  return { ...sums, headShares: byHead, gradients: gradients ?? new Map() };
}

/** Texts that the current weights give, when they are due. */
async function sampleTexts({ record, tracking, state, sample }: Training): Promise<void> {
  const { every, prompts } = tracking.samples;
  if (!isEvery(every, state.step)) return;
  for (const [i, prompt] of prompts.entries()) {
    record.tracker.text(`samples/${i + 1}`, prompt + (await sample(prompt)), state.step);
  }
}

/** The best step is one of those that are saved, so that the best checkpoint can be kept. */
async function validate(training: Training, isSaved: boolean): Promise<void> {
  const { stage, state, record } = training;
  const losses = await stage.validate();
  const [loss] = Object.values(losses);
  if (loss === undefined) return;
  const isBetter = Number.isFinite(loss) && (state.best === undefined || loss < state.best.loss);
  if (isSaved && isBetter) state.best = { step: state.step, loss };
  record.tracker.log(losses, state.step);
  const shown = Object.entries(losses).map(
    ([name, value]) => `${name.slice(name.indexOf('/') + 1)} ${value.toFixed(4)}`,
  );
  tell(training, { kind: 'validation', text: `validation ${shown.join(', ')}` }, state.step);
}

function diverged(stage: Stage, step: number, loss: number, norm: number, record: TrainingRecord): UserError {
  return new UserError('training_diverged', {
    where: `${stage.name} step ${step}`,
    what: `the loss is ${loss} and the gradient norm ${norm}; the update was not made`,
    action: `resume from a checkpoint in ${record.checkpoints} with a smaller ${stage.name}.learningRate.peak and --accept-changes`,
  });
}
