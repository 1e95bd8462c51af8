/** What a stage leaves on disk: one row a step, validation rows, checkpoints. */

import { type Checkpoint, removeAfter, retain, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import type { RunFolder } from '../io/run_folder.ts';
import { parameterShapes } from '../model/shape.ts';
import { MetricsFile } from '../tracking/metrics_file.ts';
import type { StepRow, Training } from './loop.ts';
import type { StageName } from './stage.ts';

/** Hashes of what a stage trains on; `datasetHash` covers every dataset that it reads. */
export interface Provenance {
  tokenizerHash: string;
  datasetHash: string;
}

export class TrainingRecord {
  /** Folder of the stage's checkpoints. */
  readonly checkpoints: string;
  private readonly config: RunConfig;
  private readonly provenance: Provenance;
  private readonly steps: MetricsFile;
  private readonly validations: MetricsFile;

  private constructor(
    checkpoints: string,
    config: RunConfig,
    provenance: Provenance,
    files: { steps: MetricsFile; validations: MetricsFile },
  ) {
    this.checkpoints = checkpoints;
    this.config = config;
    this.provenance = provenance;
    this.steps = files.steps;
    this.validations = files.validations;
  }

  /**
   * Opens the record of a stage at the point of `checkpoint`: metric rows and checkpoints after it are dropped, since
   * the resumed run writes its own. Without one the stage starts anew.
   */
  static async open(
    folder: RunFolder,
    stage: StageName,
    config: RunConfig,
    provenance: Provenance,
    checkpoint: Checkpoint | undefined,
  ): Promise<TrainingRecord> {
    const checkpoints = folder.checkpoints(stage);
    await removeAfter(checkpoints, checkpoint?.state.step ?? 0);
    const rows = checkpoint?.state.metricsRows ?? {};
    const steps = await MetricsFile.open(folder.metricsFile(stage), { rows: rows.steps ?? 0 });
    const validations = await MetricsFile.open(folder.validationFile(stage), { rows: rows.validations ?? 0 });
    return new TrainingRecord(checkpoints, config, provenance, { steps, validations });
  }

  /** Tokens of a training sequence. */
  get sequenceLength(): number {
    return this.config.data.sequenceLength;
  }

  step(row: StepRow): void {
    this.steps.append(row);
  }

  validation(row: { step: number } & Record<string, number>): void {
    this.validations.append(row);
  }

  /** Saves everything that the rest of the run depends on, then drops checkpoints that are no longer kept. */
  async checkpoint({ stage, model, optimizer, state }: Training): Promise<string> {
    await this.steps.flush();
    await this.validations.flush();
    const shapes = parameterShapes(model.shape);
    const weights = await model.weights();
    const parameters = new Map([...weights].map(([name, data]) => [name, { shape: shapes.get(name) ?? [], data }]));
    const { path } = await saveCheckpoint(this.checkpoints, state.step, {
      parameters,
      optimizer: await optimizer.state(),
      state: {
        stage: stage.name,
        tokensSeen: state.tokensSeen,
        modelConfig: model.shape,
        ...this.provenance,
        metricsRows: { steps: this.steps.rowCount, validations: this.validations.rowCount },
        bestValidation: state.best,
        config: this.config,
        ...stage.state(),
      },
    });
    await retain(this.checkpoints, stage.settings.keepCheckpoints, state.best?.step);
    await stage.saved?.();
    return path;
  }

  async close(): Promise<void> {
    await this.steps.close();
    await this.validations.close();
  }
}
