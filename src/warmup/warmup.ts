/** Stage one: ordinary pretraining without memories (paper §3.5: without it a model learns to ignore them). */

import type { RunConfig } from '../config/schema.ts';
import type { Model } from '../model/model.ts';
import type { MicroBatch, Stage, StageState } from '../train/stage.ts';
import { TextBatches, type TrainingText, timed } from '../train/text_batches.ts';
import { meanLoss } from '../train/validation.ts';

export class WarmupStage implements Stage {
  readonly name = 'warmup';
  readonly settings: RunConfig['warmup'];
  private readonly model: Model;
  private readonly text: TextBatches;

  constructor(config: RunConfig, model: Model, text: TrainingText) {
    this.settings = config.warmup;
    this.model = model;
    this.text = new TextBatches(config, config.warmup, text);
  }

  async prepare(): Promise<undefined> {}

  async microBatch(step: number, micro: number): Promise<MicroBatch> {
    const { value, ms } = await timed(() => this.text.training(step, micro));
    return this.text.plain(value, ms);
  }

  async validate(): Promise<Record<string, number>> {
    const count = this.text.validationCount;
    if (count === 0) return {};
    const batchAt = async (i: number): Promise<MicroBatch> => this.text.plain(await this.text.validating(i), 0);
    return { 'validation/loss': await meanLoss(this.model, count, batchAt) };
  }

  async measure(): Promise<void> {}

  state(): StageState {
    return {};
  }
}
