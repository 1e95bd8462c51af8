/** The records of a run in Weights & Biases' file: those fields of `wandb_internal.proto` that a run of ours has. */

import type { Ending } from '../sink.ts';
import { encodeMessage, type Field, visitFields } from './protobuf.ts';

/** Numbers of the fields of `Record`. */
const NUM = 1;
const HISTORY = 2;
const SUMMARY = 3;
const CONFIG = 5;
const FILES = 6;
const STATS = 7;
const OUTPUT_RAW = 13;
const RUN = 17;
const EXIT = 18;
const HEADER = 21;

/** What the service shows of a run that ended so; 255 is what the official client says of one that was interrupted. */
export const EXIT_CODES: Record<Ending, number> = { finished: 0, stopped: 255, failed: 1 };

/** A record without its number, which the file gives it. */
export type RecordBody = readonly [kind: number, message: Buffer];

/** A value in JSON under a name, or a name within a name. */
export type Item = readonly [path: readonly string[], json: string];

export interface RunAbout {
  id: string;
  entity: string | undefined;
  project: string;
  /** Name → value in JSON. */
  config: Record<string, string>;
  group: string | undefined;
  displayName: string;
  notes: string;
  tags: readonly string[];
  host: string;
  /** Such as `linux-x64`. */
  platform: string;
  /** Seconds since 1970. */
  startedAt: number;
}

export function encodeRecord(number: number, [kind, message]: RecordBody): Buffer {
  return encodeMessage([
    [NUM, number],
    [kind, message],
  ]);
}

export function headerRecord(producer: string): RecordBody {
  return [HEADER, encodeMessage([[1, encodeMessage([[1, producer]])]])];
}

export function runRecord(run: RunAbout): RecordBody {
  return [
    RUN,
    encodeMessage([
      [1, run.id],
      ...optional(2, run.entity),
      [3, run.project],
      [4, encodeMessage(items(1, configItems(run.config)))],
      ...optional(6, run.group),
      [8, run.displayName],
      ...optional(9, run.notes),
      ...run.tags.map((tag): Field => [10, tag]),
      [13, run.host],
      [17, timestamp(run.startedAt)],
      [19, encodeMessage([[13, run.platform]])],
    ]),
  ];
}

export function configRecord(config: Record<string, string>): RecordBody {
  return [CONFIG, encodeMessage(items(1, configItems(config)))];
}

export function historyRecord(step: number, values: readonly Item[]): RecordBody {
  return [HISTORY, encodeMessage([...items(1, values), [2, encodeMessage([[1, step]])]])];
}

export function summaryRecord(values: readonly Item[]): RecordBody {
  return [SUMMARY, encodeMessage(items(1, values))];
}

/** @param time seconds since 1970 */
export function statsRecord(time: number, values: Readonly<Record<string, number>>): RecordBody {
  const fields = Object.entries(values).map(([name, value]): Field => [3, item([name], JSON.stringify(value))]);
  return [STATS, encodeMessage([[2, timestamp(time)], ...fields])];
}

/** Text that the program wrote to its standard output. @param time seconds since 1970 */
export function outputRecord(time: number, line: string): RecordBody {
  const STDOUT = 1;
  return [
    OUTPUT_RAW,
    encodeMessage([
      [1, STDOUT],
      [2, timestamp(time)],
      [3, `${line}\n`],
    ]),
  ];
}

/** Media files to be uploaded, by their paths in the folder `files`. */
export function filesRecord(paths: readonly string[]): RecordBody {
  const MEDIA = 2;
  const file = (path: string): Field => [
    1,
    encodeMessage([
      [1, path],
      [3, MEDIA],
    ]),
  ];
  return [FILES, encodeMessage(paths.map(file))];
}

/** @param runtime seconds */
export function exitRecord(exitCode: number, runtime: number): RecordBody {
  return [
    EXIT,
    encodeMessage([
      [1, exitCode],
      [2, Math.round(runtime)],
    ]),
  ];
}

/** What of a record decides where a run goes on. */
export interface ReadRecord {
  number: number;
  kind: 'history' | 'summary' | 'exit' | 'other';
  /** Of a row of the history. */
  step: number;
  /** The record's message. */
  message: Buffer;
}

/** @throws RangeError when the bytes are no record */
export function readRecord(bytes: Buffer): ReadRecord {
  const record: ReadRecord = { number: 0, kind: 'other', step: -1, message: Buffer.alloc(0) };
  visitFields(bytes, (field, value) => {
    if (field === NUM && typeof value === 'number') record.number = value;
    if (typeof value === 'number') return;
    const kind = KINDS.get(field);
    if (kind === undefined) return;
    record.kind = kind;
    record.message = value;
    if (kind === 'history') record.step = stepOf(value);
  });
  return record;
}

const KINDS = new Map<number, ReadRecord['kind']>([
  [HISTORY, 'history'],
  [SUMMARY, 'summary'],
  [EXIT, 'exit'],
]);

function stepOf(history: Buffer): number {
  // The step is a message that is empty for 0.
  let step = -1;
  visitFields(history, (field, value) => {
    if (field !== 2 || typeof value === 'number') return;
    step = 0;
    visitFields(value, (inner, number) => {
      if (inner === 1 && typeof number === 'number') step = number;
    });
  });
  return step;
}

/** The values of a row of the history. @throws RangeError when the bytes are no such message */
export function historyItems(history: Buffer): Item[] {
  const found: Item[] = [];
  visitFields(history, (field, value) => {
    if (field !== 1 || typeof value === 'number') return;
    const path: string[] = [];
    let json = '';
    visitFields(value, (inner, text) => {
      if (typeof text === 'number') return;
      if (inner === 1 || inner === 2) path.push(text.toString());
      if (inner === 16) json = text.toString();
    });
    found.push([path, json]);
  });
  return found;
}

function items(field: number, values: readonly Item[]): Field[] {
  return values.map(([path, json]): Field => [field, item(path, json)]);
}

function item(path: readonly string[], json: string): Buffer {
  const [name] = path;
  const names: Field[] = path.length === 1 ? [[1, name!]] : path.map((part) => [2, part]);
  return encodeMessage([...names, [16, json]]);
}

function configItems(config: Record<string, string>): Item[] {
  return Object.entries(config).map(([name, json]) => [[name], json]);
}

function timestamp(seconds: number): Buffer {
  const whole = Math.floor(seconds);
  return encodeMessage([
    [1, whole],
    [2, Math.floor((seconds - whole) * 1e9)],
  ]);
}

function optional(field: number, value: string | undefined): Field[] {
  return value === undefined || value === '' ? [] : [[field, value]];
}
