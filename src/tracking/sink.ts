/**
 * Where the rows of a run are shown besides its own files. A sink holds a prefix of the run: it says how far it has come,
 * is given what follows, and may be behind or fail without anybody waiting for it.
 */

import type { RunConfig } from '../config/schema.ts';
import type { StageName } from '../io/run_folder.ts';
import type { MetricsRow } from './values.ts';

export const SINKS = ['wandb', 'tensorboard', 'csv'] as const;
export type SinkName = (typeof SINKS)[number];

/** A row of the run as a whole. */
export interface TrackedRow {
  /** Steps of the whole run: those of continual go on where warmup ended. One row a step; steps rise. */
  step: number;
  stage: StageName;
  /** Seconds since 1970. */
  time: number;
  /** Without `step` and `time/unix_s`; `train/step` is the step in the stage. */
  values: MetricsRow;
}

/** What a sink knows of the run. */
export interface TrackedRun {
  /** The run folder. */
  root: string;
  config: RunConfig;
}

export interface SinkOptions {
  /** Rewrites the sink from the run's files instead of going on in it: to a file beside, or a run of a new id. */
  anew?: boolean;
  /** File or folder to write instead of the one in the run folder, for sinks that are files. */
  path?: string;
  /** Called when the people on the other side ask the run to stop. */
  onStop?: (who: string) => void;
}

/** How a command ended. */
export type Ending = 'finished' | 'stopped' | 'failed';

export interface Sink {
  readonly name: SinkName;
  /** Where a person looks at it: an address, or a path to open. Known once it is open. */
  readonly place: string;
  /**
   * Time of the last row that it holds, as the row has it, known once it is open; absent where nothing can be cut. A sink
   * that was not fed while the run went back to a checkpoint holds a row of another time than the run's files do.
   */
  readonly lastTime?: number | undefined;
  /** Seconds between two deliveries, for those that must not be asked often; without, as rows come. */
  readonly every?: number;
  /**
   * Opens it. What it holds after step `lastStep` of the run is cut off where that can be done, since the resumed run
   * writes those rows again; a sink that cannot be cut keeps them and says so by its answer.
   * @param lastStep last step in the run's files; −1 when they hold none
   * @returns the last step that it holds now; −1: none. Rows after it are wanted
   * @throws when it cannot be opened now; it is tried again later
   */
  open(lastStep: number): Promise<number>;
  /**
   * Takes rows in order. When it throws, the same rows are given again later, perhaps with others behind them; those that
   * arrived all the same must not be there twice.
   */
  write(rows: readonly TrackedRow[]): Promise<void>;
  /** Rows of load: `time` in seconds since 1970 and `hardware/…` values. */
  hardware?(rows: readonly MetricsRow[]): Promise<void>;
  /** Lines of the log, without their times. */
  lines?(lines: readonly string[]): Promise<void>;
  /** Final values, all of them. */
  summary?(values: Readonly<Record<string, unknown>>): Promise<void>;
  /** Called about every 15 seconds, also when nothing is written: a heartbeat for those that want one. */
  beat?(): Promise<void>;
  /** The command has ended and no rows follow from it. */
  finish(ending: Ending): Promise<void>;
  /** Frees files and sockets; after an error, too. */
  close(): Promise<void>;
}
