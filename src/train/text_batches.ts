/** Plain-text micro-batches: tokens at positions from 0, no memories. B sequences, T tokens. */

import type { RunConfig, SourceConfig } from '../config/schema.ts';
import { type Batch, batchAt } from '../data/batches.ts';
import { SampleOrder } from '../data/sample_order.ts';
import { sourceWeights } from '../data/source_groups.ts';
import { type OpenOptions, TokenDataset } from '../data/token_dataset.ts';
import { firstVisibleOf } from '../model/first_visible.ts';
import type { MicroBatch, StageSettings } from './stage.ts';

/** The two splits of a token dataset. */
export interface TrainingText {
  train: TokenDataset;
  validation: TokenDataset;
  /** Weights of the sources in training, by name; without, each has what it holds. Validation is never weighted. */
  weights: ReadonlyMap<string, number> | undefined;
}

/**
 * Opens the token dataset that was made from `sources`.
 * @throws UserError as `TokenDataset.open`
 */
export async function openText(
  folder: string,
  sources: readonly SourceConfig[],
  options: OpenOptions = {},
): Promise<TrainingText> {
  return {
    train: await TokenDataset.open(folder, 'train', options),
    validation: await TokenDataset.open(folder, 'validation', options),
    weights: sourceWeights(sources),
  };
}

/** The training and validation tokens of a stage, cut into micro-batches in the order that the seed gives. */
export class TextBatches {
  readonly sequenceLength: number;
  private readonly seed: number;
  private readonly separateDocuments: boolean;
  private readonly settings: StageSettings;
  private readonly text: TrainingText;
  private readonly trainOrder: SampleOrder;
  private readonly validationOrder: SampleOrder;

  constructor(config: RunConfig, settings: StageSettings, text: TrainingText) {
    this.sequenceLength = config.data.sequenceLength;
    this.seed = config.seed;
    this.separateDocuments = config.data.separateDocuments;
    this.settings = settings;
    this.text = text;
    this.trainOrder = new SampleOrder(text.train.segments, this.sequenceLength, text.weights);
    this.validationOrder = new SampleOrder(text.validation.segments, this.sequenceLength);
  }

  /** Tokens of micro-batch `micro` (from 0) of step `step` (from 1). */
  training(step: number, micro: number): Promise<Batch> {
    return batchAt(this.text.train, this.trainOrder, this.seed, step - 1, micro, this.settings);
  }

  /** Number of validation batches: as many as asked for, or as the held-out tokens give. */
  get validationCount(): number {
    const { validationBatches, batchSize } = this.settings;
    return Math.min(validationBatches, Math.floor(this.validationOrder.numSamples / batchSize));
  }

  /** Tokens of validation batch `i`: the same at every validation. */
  validating(i: number): Promise<Batch> {
    const shape = { batchSize: this.settings.batchSize, accumulate: 1 };
    return batchAt(this.text.validation, this.validationOrder, this.seed, i, 0, shape);
  }

  /**
   * The first token that each token of the rows `[B, width]` attends to: that of its own document, when documents are kept
   * apart (`data.separateDocuments`); undefined when they are not.
   */
  firstVisible(ids: Int32Array, width: number): Int32Array | undefined {
    return this.separateDocuments ? firstVisibleOf(ids, width, this.text.train.manifest.bos) : undefined;
  }

  /** A batch as the model takes it when no memories are read. */
  plain({ ids, targets }: Batch, dataMs: number): MicroBatch {
    const { recompute } = this.settings;
    const positions = Int32Array.from({ length: this.sequenceLength }, (_, position) => position);
    const firstVisible = this.firstVisible(ids, this.sequenceLength);
    const input = { ids, targets, positions, firstVisible, recompute };
    return { input, dataMs, retrievalMs: 0, dispose: () => {} };
  }
}

/** Awaits `work` and tells how many milliseconds it took. */
export async function timed<T>(work: () => Promise<T>): Promise<{ value: T; ms: number }> {
  const started = performance.now();
  const value = await work();
  return { value, ms: performance.now() - started };
}
