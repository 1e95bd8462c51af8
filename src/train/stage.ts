/** What the shared loop asks of a stage. The loop does not know which one it runs. */

import type { WarmupConfig } from '../config/schema.ts';
import type { StageName } from '../io/run_folder.ts';
import type { TrainingBatch } from '../model/training.ts';
import type { EventKind } from '../tracking/events.ts';
import type { Tracker } from '../tracking/tracker.ts';

export type { StageName } from '../io/run_folder.ts';

/** The settings that both stages have. */
export type StageSettings = WarmupConfig;

/** One micro-batch, ready for the model. */
export interface MicroBatch {
  input: TrainingBatch & { targets: Int32Array };
  /** Milliseconds that the step spent on reading tokens, and on searching and reading memories or waiting for them. */
  dataMs: number;
  retrievalMs: number;
  /** Frees the tensors that `input` holds. */
  dispose(): void;
}

export interface Stage {
  readonly name: StageName;
  readonly settings: StageSettings;
  /**
   * Sees to what must be true before optimiser step `step` (1-based) runs, such as a bank that has grown.
   * @returns what was changed, for the record
   */
  prepare(step: number): Promise<StageEvent | undefined>;
  /** Micro-batch `micro` of step `step`: a pure function of the run's configuration, the weights and the bank. */
  microBatch(step: number, micro: number): Promise<MicroBatch>;
  /** Validation metrics by name, such as `validation/loss`. The first one decides which checkpoint is best. */
  validate(): Promise<Record<string, number>>;
  /** What the stage adds to the row of the step just made. */
  measure(tracker: Tracker, step: number): Promise<void>;
  /** What the stage adds to the checkpoint's state. */
  state(): StageState;
  /** Called after each checkpoint, when old ones are gone. */
  saved?(): Promise<void>;
}

export interface StageEvent {
  kind: EventKind;
  text: string;
}

export interface StageState {
  /** Hash of the stage-one weights that the stage began with. */
  parent?: string;
  /** Version of the bank that the next step reads. */
  bankVersion?: number;
  /** Hashes of the weights that wrote its memories, and the step after which those of this stage did. */
  bankWriters?: string[];
  bankWritten?: Record<string, number>;
}
