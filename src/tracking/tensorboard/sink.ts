/**
 * TensorBoard: one event file for the rows of the run, whose steps are those of the whole run, and beside it, as a run
 * `hardware` of its own, one for the load, whose steps are seconds since the first sample. Both go on over resumes.
 */

import { readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { makeFolder } from '../../io/files.ts';
import type { Ending, Sink, SinkOptions, TrackedRow, TrackedRun } from '../sink.ts';
import type { MetricsRow } from '../values.ts';
import { EventFile } from './event_file.ts';
import { valuesEvent, versionEvent } from './events.ts';

export function tensorboardFolder(root: string): string {
  return join(root, 'tensorboard');
}

export async function makeTensorboardSink(run: TrackedRun, options: SinkOptions): Promise<Sink> {
  return new TensorboardSink(run, options.path ?? tensorboardFolder(run.root));
}

class TensorboardSink implements Sink {
  readonly name = 'tensorboard';
  readonly place: string;
  lastTime: number | undefined;
  readonly #run: TrackedRun;
  #rows: EventFile | undefined;
  #load: { file: EventFile; startedAt: number; last: number } | undefined;
  #last = -1;
  /** Texts of the row before: they are written when they change. */
  #texts = new Map<string, string>();

  constructor(run: TrackedRun, folder: string) {
    this.#run = run;
    this.place = folder;
  }

  async open(lastStep: number): Promise<number> {
    await this.close();
    const { file, kept } = await EventFile.open(await eventPath(this.place), lastStep);
    this.#rows = file;
    this.#last = kept.last > 0 ? kept.last : -1;
    this.lastTime = kept.lastTime;
    if (kept.last === 0) await this.#begin();
    return this.#last;
  }

  async write(rows: readonly TrackedRow[]): Promise<void> {
    const texts = new Map(this.#texts);
    const events = rows.map(({ time, step, values }) => valuesEvent(time, step, changed(values, texts)));
    await this.#opened().append(events);
    this.#texts = texts;
    this.#last = rows.at(-1)?.step ?? this.#last;
  }

  async hardware(rows: readonly MetricsRow[]): Promise<void> {
    const timed = rows.flatMap(({ time, ...values }) => (typeof time === 'number' ? [{ time, values }] : []));
    if (timed.length === 0) return;
    this.#load ??= await this.#openLoad(timed[0]!.time);
    let { last } = this.#load;
    const events = timed.map(({ time, values }) => {
      // A clock that is set back takes no step back, for the file would be cut there when it is opened again.
      last = Math.max(last, Math.round(time - this.#load!.startedAt));
      return valuesEvent(time, last, values);
    });
    await this.#load.file.append(events);
    this.#load.last = last;
  }

  async summary(values: Readonly<Record<string, unknown>>): Promise<void> {
    const text = stringify(values).trimEnd();
    const event = valuesEvent(Date.now() / 1000, Math.max(0, this.#last), { 'run/summary': text });
    await this.#opened().append([event]);
  }

  async finish(_ending: Ending): Promise<void> {
    await this.#rows?.sync();
    await this.#load?.file.sync();
  }

  async close(): Promise<void> {
    const files = [this.#rows, this.#load?.file];
    [this.#rows, this.#load] = [undefined, undefined];
    for (const file of files) await file?.close();
  }

  /** A file without rows is begun anew. */
  async #begin(): Promise<void> {
    const now = Date.now() / 1000;
    const config = stringify(this.#run.config).trimEnd();
    const file = this.#opened();
    await file.restart([versionEvent(now), valuesEvent(now, 0, { 'run/config': config })]);
  }

  async #openLoad(time: number): Promise<{ file: EventFile; startedAt: number; last: number }> {
    const path = await eventPath(join(this.place, LOAD_FOLDER));
    const { file, kept } = await EventFile.open(path, Number.POSITIVE_INFINITY);
    if (kept.startedAt === undefined) await file.restart([versionEvent(time)]);
    return { file, startedAt: kept.startedAt ?? time, last: kept.last };
  }

  #opened(): EventFile {
    if (this.#rows === undefined) throw new Error('the sink is not open');
    return this.#rows;
  }
}

const FILE_PREFIX = 'events.out.tfevents.';
const LOAD_FOLDER = 'hardware';

/** Whether a name in a folder of TensorBoard is one that this sink gives. */
export function isTensorboardName(name: string): boolean {
  return name.startsWith(FILE_PREFIX) || name === LOAD_FOLDER;
}

/** The event file of a folder; its name tells when and where it was begun. */
async function eventPath(folder: string): Promise<string> {
  await makeFolder(folder);
  const names = (await readdir(folder)).filter((name) => name.startsWith(FILE_PREFIX));
  const name = names.sort()[0] ?? `${FILE_PREFIX}${Math.floor(Date.now() / 1000)}.${hostname()}`;
  return join(folder, name);
}

/** The values without texts that are as they were. */
function changed(values: MetricsRow, texts: Map<string, string>): MetricsRow {
  return Object.fromEntries(
    Object.entries(values).filter(([name, value]) => {
      if (typeof value !== 'string') return true;
      const isNew = texts.get(name) !== value;
      texts.set(name, value);
      return isNew;
    }),
  );
}
