/**
 * Weights & Biases without a network: the file that the official `wandb sync` uploads. It is cut back where the run goes
 * back to a checkpoint, and appended to, so that one file is the whole run.
 */

import type { FileHandle } from 'node:fs/promises';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { UserError } from '../../errors.ts';
import {
  appendWhole,
  diskError,
  exists,
  makeFolder,
  syncFolder,
  temporaryName,
  writeFileAtomic,
} from '../../io/files.ts';
import type { Ending, Sink, SinkOptions, TrackedRow, TrackedRun } from '../sink.ts';
import type { MetricsRow } from '../values.ts';
import { historyRow, historyValues, valueJson } from './history.ts';
import { aboutRun, identify } from './identity.ts';
import { encodeRecords, FILE_HEADER, hasFileHeader, readRecords } from './record_log.ts';
import {
  configRecord,
  EXIT_CODES,
  encodeRecord,
  exitRecord,
  filesRecord,
  headerRecord,
  historyItems,
  historyRecord,
  type Item,
  outputRecord,
  type RecordBody,
  type RunAbout,
  readRecord,
  runRecord,
  statsRecord,
  summaryRecord,
} from './records.ts';
import { systemMetrics } from './system_metrics.ts';

/** A file as far as it counts. */
interface Place {
  size: number;
  /** Number of its last record. */
  number: number;
  /** Last step of its history. */
  step: number;
  /** Time of that row, seconds since 1970. */
  time?: number;
}

export class OfflineSink implements Sink {
  readonly name = 'wandb';
  readonly #run: TrackedRun;
  readonly #anew: boolean;
  /** The folder of all files of the run. */
  readonly #parent: string;
  #about: RunAbout | undefined;
  /** Where the folder of this run stands at the end, and where it is written until then. */
  #target = '';
  #folder = '';
  #handle: FileHandle | undefined;
  #place: Place = { size: 0, number: 0, step: -1 };
  /** Last values of the history that no summary in the file has. */
  readonly #unsummed = new Map<string, Item>();

  constructor(run: TrackedRun, { anew = false }: SinkOptions = {}) {
    this.#run = run;
    this.#anew = anew;
    this.#parent = resolve(run.root, 'wandb');
  }

  get place(): string {
    return this.#target;
  }

  get lastTime(): number | undefined {
    return this.#place.time;
  }

  /** @throws UserError file_corrupt when something else lies at the file's place */
  async open(lastStep: number): Promise<number> {
    await this.close();
    const identity = await identify(this.#run.root, this.#anew);
    this.#about = aboutRun(this.#run, identity);
    const { id, startedAt } = identity;
    this.#target = join(this.#parent, `offline-run-${timeOf(startedAt)}-${id}`);
    // A copy is put in its place when it is whole.
    this.#folder = this.#anew ? temporaryName(this.#target) : this.#target;
    if (this.#anew || !(await exists(this.#path(this.#target)))) await this.#create();
    this.#handle = await open(this.#path(this.#folder), 'r+');
    this.#place = await this.#goOn(this.#handle, lastStep);
    if (!this.#anew) await this.#append([configRecord(this.#about.config)]);
    return this.#place.step;
  }

  async write(rows: readonly TrackedRow[]): Promise<void> {
    const { startedAt } = this.#about!;
    const records: RecordBody[] = [];
    for (const row of rows) {
      const history = historyRow(row, startedAt);
      for (const file of history.files) await writeFileAtomic(join(this.#folder, 'files', file.path), file.bytes);
      if (history.files.length > 0) records.push(filesRecord(history.files.map(({ path }) => path)));
      const values = historyValues(history);
      records.push(historyRecord(row.step, values));
      this.#keep(values);
    }
    // Whatever has no summary when a run dies has a row: both come in one write.
    records.push(summaryRecord([...this.#unsummed.values()]));
    await this.#append(records);
    this.#unsummed.clear();
    const last = rows.at(-1);
    if (last !== undefined) this.#place = { ...this.#place, step: last.step, time: last.time };
  }

  async hardware(rows: readonly MetricsRow[]): Promise<void> {
    await this.#append(rows.map((row) => statsRecord(Number(row.time ?? 0), systemMetrics(row))));
  }

  async lines(lines: readonly string[]): Promise<void> {
    const now = Date.now() / 1000;
    await this.#append(lines.map((line) => outputRecord(now, line)));
  }

  async summary(values: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#append([
      summaryRecord(Object.entries(values).map(([name, value]): Item => [[name], valueJson(value)])),
    ]);
  }

  async finish(ending: Ending): Promise<void> {
    const { startedAt } = this.#about!;
    const runtime = Math.max(0, (this.#place.time ?? startedAt) - startedAt);
    const spent: Item = [['_wandb', 'runtime'], JSON.stringify(Math.round(runtime))];
    await this.#append([summaryRecord([spent]), exitRecord(EXIT_CODES[ending], runtime)]);
    await this.#handle!.sync();
    if (!this.#anew) return;
    await rename(this.#folder, this.#target);
    await syncFolder(this.#parent);
    this.#folder = this.#target;
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
    if (this.#anew && this.#folder !== this.#target) await rm(this.#folder, { recursive: true, force: true });
  }

  #path(folder: string): string {
    return join(folder, `run-${this.#about!.id}.wandb`);
  }

  /** Makes the folder and the file with what stands before the first row, at once. */
  async #create(): Promise<void> {
    const temporary = temporaryName(this.#target);
    await rm(temporary, { recursive: true, force: true });
    await makeFolder(this.#parent);
    try {
      await mkdir(join(temporary, 'files'), { recursive: true });
      const records = [headerRecord('memory3'), runRecord(this.#about!)].map((body, i) => encodeRecord(i + 1, body));
      const bytes = Buffer.concat([FILE_HEADER, encodeRecords(records, FILE_HEADER.length)]);
      await writeFileAtomic(this.#path(temporary), bytes);
      if (this.#folder === temporary) return;
      await rename(temporary, this.#target);
      await syncFolder(this.#parent);
    } catch (error) {
      throw diskError(error, temporary);
    }
  }

  /** Cuts the file at its first row after `lastStep`, at its end mark or where it is damaged, whichever comes first. */
  async #goOn(handle: FileHandle, lastStep: number): Promise<Place> {
    const path = this.#path(this.#folder);
    const action = 'move it away; the file is written again from the metrics of the run';
    if (!(await hasFileHeader(handle))) {
      throw new UserError('file_corrupt', { where: path, what: 'it is no file of Weights & Biases', action });
    }
    const place: Place = { size: FILE_HEADER.length, number: 0, step: -1 };
    this.#unsummed.clear();
    let rows: Buffer[] = [];
    let last: Buffer | undefined;
    for await (const { end, bytes } of readRecords(handle)) {
      const record = readRecord(bytes);
      if (record.kind === 'exit' || (record.kind === 'history' && record.step > lastStep)) break;
      if (record.kind === 'summary') rows = [];
      if (record.kind === 'history') {
        place.step = record.step;
        last = Buffer.from(record.message);
        rows.push(last);
      }
      [place.size, place.number] = [end, record.number];
    }
    if (place.number < 2) {
      throw new UserError('file_corrupt', { where: path, what: 'it does not begin with a run', action });
    }
    for (const row of rows) this.#keep(historyItems(row));
    if (last !== undefined) place.time = timestampOf(historyItems(last));
    await handle.truncate(place.size);
    return place;
  }

  #keep(values: readonly Item[]): void {
    for (const value of values) this.#unsummed.set(value[0].join('\0'), value);
  }

  /** Adds the records, or none of them. */
  async #append(bodies: readonly RecordBody[]): Promise<void> {
    const { size, number } = this.#place;
    const records = bodies.map((body, i) => encodeRecord(number + 1 + i, body));
    const bytes = encodeRecords(records, size);
    await appendWhole(this.#handle!, bytes, size, this.#path(this.#folder));
    this.#place = { ...this.#place, size: size + bytes.byteLength, number: number + bodies.length };
  }
}

/** Seconds since 1970 of a row of the history. */
function timestampOf(row: readonly Item[]): number {
  return Number(row.find(([path]) => path[0] === '_timestamp')?.[1]);
}

/** `YYYYMMDD_HHMMSS` in universal time. */
function timeOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '_');
}
