/**
 * The record of a run: what training measures goes to the files of `<run>/metrics` and nowhere else. They are the truth;
 * whatever else shows a run (Weights & Biases, TensorBoard, the dashboard) is made from them and can be made again.
 */

import { appendFileSync, existsSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { ignoreUserError, isSystemError } from '../errors.ts';
import { diskError, endsWithLine, makeFolder, readJson, writeJsonAtomic } from '../io/files.ts';
import { type RunFolder, STAGES, type StageName } from '../io/run_folder.ts';
import type { EventKind } from './events.ts';
import { MetricsFile } from './metrics_file.ts';
import { lastRow } from './run_rows.ts';
import type { Tracker } from './tracker.ts';
import { histogramOf, type Image, type MetricsRow, type MetricValue, type Retrievals } from './values.ts';

/**
 * Told when the rows of a stage count: when it begins to write, after rows that a checkpoint does not count were cut off,
 * and when it is found finished. `step` is the last one in its file, 0 when there is none.
 */
export type StageListener = (stage: StageName, step: number) => void;

export class RunTracker implements Tracker {
  readonly folder: RunFolder;
  readonly #events: MetricsFile;
  readonly #log: FileHandle;
  readonly #listener: StageListener;
  #stage: { name: StageName; file: MetricsFile } | undefined;
  /** The row of the step that is being recorded. */
  #row: { step: number; values: MetricsRow } | undefined;

  private constructor(folder: RunFolder, events: MetricsFile, log: FileHandle, listener: StageListener) {
    this.folder = folder;
    this.#events = events;
    this.#log = log;
    this.#listener = listener;
  }

  /** Opens the files that belong to the whole run; half a line that a crash left at the end of one is cut off. */
  static async open(folder: RunFolder, listener: StageListener = () => {}): Promise<RunTracker> {
    await makeFolder(folder.metrics);
    const events = await MetricsFile.open(folder.events);
    return new RunTracker(folder, events, await openLog(folder.log), listener);
  }

  /**
   * From here on rows are those of `stage`. Its file is cut back to the first `rows`, those that the checkpoint counts.
   * @throws UserError file_truncated when it holds fewer
   */
  async beginStage(stage: StageName, rows: number): Promise<void> {
    await this.endStage();
    this.#stage = { name: stage, file: await MetricsFile.open(this.folder.metricsFile(stage), { rows }) };
    await this.#tell(stage);
  }

  /**
   * Says that `stage` was finished by an earlier command, so that sinks take what they lack of it. Nothing happens when a
   * later stage has begun: of its rows nothing is known here.
   */
  async finishedStage(stage: StageName): Promise<void> {
    const later = STAGES.slice(STAGES.indexOf(stage) + 1);
    if (!later.some((name) => existsSync(this.folder.metricsFile(name)))) await this.#tell(stage);
  }

  /** Rows in the file of the stage: what a checkpoint stores. */
  get rowCount(): number {
    return this.#stage?.file.rowCount ?? 0;
  }

  log(values: Record<string, number | string>, step: number): void {
    Object.assign(this.#rowOf(step), values);
  }

  histogram(name: string, values: ArrayLike<number>, step: number): void {
    this.#set(name, histogramOf(values), step);
  }

  text(name: string, text: string, step: number): void {
    this.#set(name, { type: 'text', text }, step);
  }

  image(name: string, image: Omit<Image, 'type'>, step: number): void {
    this.#set(name, { type: 'image', ...image }, step);
  }

  retrievals(name: string, chunks: Retrievals['chunks'], step: number): void {
    this.#set(name, { type: 'retrievals', chunks }, step);
  }

  /** Ends the row of the step that is being recorded and hands it to the operating system; without a stage it goes. */
  commit(): void {
    const row = this.#row;
    this.#row = undefined;
    if (row === undefined || this.#stage === undefined) return;
    const { step, values } = row;
    this.#stage.file.append({ step, 'time/unix_s': unixSeconds(), ...values });
  }

  /** Something happened; `step` is one of the stage that runs. */
  event(kind: EventKind, text: string, step?: number): void {
    const stage = this.#stage?.name;
    this.#events.append({
      time: unixSeconds(),
      kind,
      ...(stage && { stage }),
      ...(step !== undefined && { step }),
      text,
    });
  }

  /** Keeps a line that was shown to the user. A log that cannot be written ends no training. */
  line(text: string): void {
    const time = new Date().toISOString();
    try {
      appendFileSync(
        this.#log.fd,
        text
          .split('\n')
          .map((part) => `${time} ${part}\n`)
          .join(''),
      );
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
  }

  async summary(values: Record<string, number | string>): Promise<void> {
    await writeJsonAtomic(this.folder.summary, { ...(await readSummary(this.folder)), ...values });
  }

  /** Makes every row survive a power cut. Call before saving a checkpoint that counts them. */
  async flush(): Promise<void> {
    this.commit();
    await this.#stage?.file.flush();
    await this.#events.flush();
  }

  async endStage(): Promise<void> {
    this.commit();
    const stage = this.#stage;
    this.#stage = undefined;
    await stage?.file.close();
  }

  async close(): Promise<void> {
    await this.endStage();
    await this.#events.close();
    await this.#log.close();
  }

  async #tell(stage: StageName): Promise<void> {
    // A row that is damaged is told where rows are read, and stops no training; there is one row a step.
    const row = await lastRow(this.folder.metricsFile(stage)).catch(ignoreUserError);
    if (row !== undefined || this.#stage?.name === stage) this.#listener(stage, Number(row?.step ?? this.rowCount));
  }

  #set(name: string, value: MetricValue, step: number): void {
    this.#rowOf(step)[name] = value;
  }

  #rowOf(step: number): MetricsRow {
    if (this.#row?.step !== step) {
      this.commit();
      this.#row = { step, values: {} };
    }
    return this.#row.values;
  }
}

/** The final values of a run; a file that is not there or damaged has none, for it can be made again. */
export async function readSummary(folder: RunFolder): Promise<Record<string, unknown>> {
  try {
    const values = await readJson(folder.summary, 'run the evaluation again');
    return typeof values === 'object' && values !== null && !Array.isArray(values) ? { ...values } : {};
  } catch {
    return {};
  }
}

/** The log opened for adding to it; half a line at its end gets its line break, since nothing of a log is cut off. */
async function openLog(path: string): Promise<FileHandle> {
  try {
    const handle = await open(path, 'a+');
    if (!(await endsWithLine(handle))) await handle.write('\n');
    return handle;
  } catch (error) {
    throw diskError(error, path);
  }
}

/** Milliseconds are enough, and keep rows short. */
export function unixSeconds(): number {
  return Date.now() / 1000;
}
