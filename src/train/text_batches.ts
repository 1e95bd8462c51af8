/** Plain-text micro-batches: tokens at positions from 0, no memories. B sequences, T tokens. */

import type { RunConfig } from '../config/schema.ts';
import { type Batch, batchAt, numSamples } from '../data/batches.ts';
import type { TokenDataset } from '../data/token_dataset.ts';
import type { MicroBatch, StageSettings } from './stage.ts';

/** The two splits of a token dataset. */
export interface TrainingText {
  train: TokenDataset;
  validation: TokenDataset;
}

/** The training and validation tokens of a stage, cut into micro-batches in the order that the seed gives. */
export class TextBatches {
  readonly sequenceLength: number;
  private readonly seed: number;
  private readonly settings: StageSettings;
  private readonly train: TokenDataset;
  private readonly validation: TokenDataset;

  constructor(config: RunConfig, settings: StageSettings, { train, validation }: TrainingText) {
    this.sequenceLength = config.data.sequenceLength;
    this.seed = config.seed;
    this.settings = settings;
    this.train = train;
    this.validation = validation;
  }

  /** Tokens of micro-batch `micro` (from 0) of step `step` (from 1). */
  training(step: number, micro: number): Promise<Batch> {
    const { batchSize, accumulate } = this.settings;
    const shape = { batchSize, accumulate, sequenceLength: this.sequenceLength };
    return batchAt(this.train, this.seed, step - 1, micro, shape);
  }

  /** Number of validation batches: as many as asked for, or as the held-out tokens give. */
  get validationCount(): number {
    const samples = numSamples(this.validation, this.sequenceLength);
    return Math.min(this.settings.validationBatches, Math.floor(samples / this.settings.batchSize));
  }

  /** Tokens of validation batch `i`: the same at every validation. */
  validating(i: number): Promise<Batch> {
    const shape = { batchSize: this.settings.batchSize, accumulate: 1, sequenceLength: this.sequenceLength };
    return batchAt(this.validation, this.seed, i, 0, shape);
  }

  /** A batch as the model takes it when no memories are read. */
  plain({ ids, targets }: Batch, dataMs: number): MicroBatch {
    const { recompute } = this.settings;
    const positions = Int32Array.from({ length: this.sequenceLength }, (_, position) => position);
    const input = { ids, targets, positions, recompute };
    return { input, dataMs, retrievalMs: 0, dispose: () => {} };
  }
}

/** Awaits `work` and tells how many milliseconds it took. */
export async function timed<T>(work: () => Promise<T>): Promise<{ value: T; ms: number }> {
  const started = performance.now();
  const value = await work();
  return { value, ms: performance.now() - started };
}
