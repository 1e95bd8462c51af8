/** What a stage leaves on disk: one row a step, events, checkpoints. */

import { rm } from 'node:fs/promises';
import { basename } from 'node:path';
import { type Checkpoint, listCheckpoints, removeAfter, retain, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { type RunFolder, STAGES } from '../io/run_folder.ts';
import { parameterShapes } from '../model/shape.ts';
import type { RunTracker } from '../tracking/run_tracker.ts';
import type { Training } from './loop.ts';
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
  /** What the steps measure. */
  readonly tracker: RunTracker;

  private constructor(checkpoints: string, config: RunConfig, provenance: Provenance, tracker: RunTracker) {
    this.checkpoints = checkpoints;
    this.config = config;
    this.provenance = provenance;
    this.tracker = tracker;
  }

  /**
   * Opens the record of a stage at the point of `checkpoint`: metric rows and checkpoints after it are dropped, since
   * the resumed run writes its own. Without one the stage starts anew.
   */
  static async open(
    tracker: RunTracker,
    stage: StageName,
    config: RunConfig,
    provenance: Provenance,
    checkpoint: Checkpoint | undefined,
  ): Promise<TrainingRecord> {
    const checkpoints = tracker.folder.checkpoints(stage);
    await removeAfter(checkpoints, checkpoint?.state.step ?? 0);
    await forgetLater(tracker.folder, stage);
    await tracker.beginStage(stage, checkpoint?.state.metricsRows.steps ?? 0);
    return new TrainingRecord(checkpoints, config, provenance, tracker);
  }

  /** Tokens of a training sequence. */
  get sequenceLength(): number {
    return this.config.data.sequenceLength;
  }

  /** Saves everything that the rest of the run depends on, then drops checkpoints that are no longer kept. */
  async checkpoint({ stage, model, optimizer, state }: Training): Promise<string> {
    await this.tracker.flush();
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
        metricsRows: { steps: this.tracker.rowCount },
        bestValidation: state.best,
        config: this.config,
        ...stage.state(),
      },
    });
    await retain(this.checkpoints, stage.settings.keepCheckpoints, state.best?.step);
    await stage.saved?.();
    this.tracker.event('checkpoint', `saved ${basename(path)}`, state.step);
    return path;
  }

  async close(): Promise<void> {
    await this.tracker.endStage();
  }
}

/** Rows of a later stage that has no checkpoint are those of a run that was begun here before this one. */
async function forgetLater(folder: RunFolder, stage: StageName): Promise<void> {
  for (const later of STAGES.slice(STAGES.indexOf(stage) + 1)) {
    const saved = await listCheckpoints(folder.checkpoints(later));
    if (saved.length === 0) await rm(folder.metricsFile(later), { force: true });
  }
}
