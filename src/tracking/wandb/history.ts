/** A row of the run in the form of Weights & Biases' history: values in JSON, media as files that the row names. */

import { createHash } from 'node:crypto';
import { heatMapPng } from '../png.ts';
import type { TrackedRow } from '../sink.ts';
import { type Image, isMedia, type MetricsRow, type MetricValue, type Retrievals } from '../values.ts';
import type { Item } from './records.ts';

/** A file that a row names, by its path among the files of the run. */
export interface MediaFile {
  path: string;
  type: string;
  bytes: Buffer;
}

export interface HistoryRow {
  step: number;
  /** Value by name in JSON; a medium is an object of several. */
  values: Map<string, string | Record<string, string>>;
  files: MediaFile[];
}

/** The service refuses longer lines of the history. */
const MOST_LINE_BYTES = 10 * 2 ** 20 - 100 * 2 ** 10;

/**
 * A row with the names that the service gives a meaning: `_step`, `_timestamp` (seconds since 1970), `_runtime` (seconds).
 * A row too long for the service goes without its media and texts.
 * @param startedAt begin of the run in seconds since 1970
 */
export function historyRow({ step, time, values }: TrackedRow, startedAt: number): HistoryRow {
  const own = { _step: step, _timestamp: time, _runtime: Math.max(0, time - startedAt) };
  const row = rowOf(step, { ...values, ...own });
  if (mayFit(row) || Buffer.byteLength(historyLine(row)) <= MOST_LINE_BYTES) return row;
  const plain = Object.entries(values).filter(([, value]) => !isMedia(value) && typeof value !== 'string');
  return rowOf(step, { ...Object.fromEntries(plain), ...own });
}

function rowOf(step: number, values: MetricsRow): HistoryRow {
  const row: HistoryRow = { step, values: new Map(), files: [] };
  for (const [name, value] of Object.entries(values)) row.values.set(name, convert(row, name, value));
  return row;
}

/** True when the line is short enough however its characters are written, which is told without making it. */
function mayFit({ values }: HistoryRow): boolean {
  // A name's character takes six bytes at most (an escape), one of a value, which is JSON already, three.
  const bytes = (name: string, json: string): number => 6 * name.length + 3 * json.length + 6;
  let most = 2;
  for (const [name, value] of values) {
    most += bytes(name, typeof value === 'string' ? value : '');
    if (typeof value === 'string') continue;
    for (const [inner, json] of Object.entries(value)) most += bytes(inner, json);
  }
  return most <= MOST_LINE_BYTES;
}

/** The row as one line of JSON; a number that is not finite is `NaN`, which the service reads. */
export function historyLine({ values }: HistoryRow): string {
  return jsonObject([...values].map(([name, value]) => [name, typeof value === 'string' ? value : valueObject(value)]));
}

/** The row as items, a medium as one item for each of its values. */
export function historyValues({ values }: HistoryRow): Item[] {
  return [...values].flatMap(([name, value]): Item[] =>
    typeof value === 'string'
      ? [[[name], value]]
      : Object.entries(value).map(([inner, json]): Item => [[name, inner], json]),
  );
}

/** An object of values that are JSON already. */
export function jsonObject(entries: Iterable<readonly [string, string]>): string {
  return `{${[...entries].map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`;
}

export function valueObject(value: Record<string, string>): string {
  return jsonObject(Object.entries(value));
}

/** A value in JSON. Rows hold null where a number was not finite. */
export function valueJson(value: unknown): string {
  return value === null || value === undefined ? 'NaN' : JSON.stringify(value);
}

function convert(row: HistoryRow, name: string, value: MetricValue): string | Record<string, string> {
  if (!isMedia(value)) return valueJson(value);
  switch (value.type) {
    case 'text':
      return JSON.stringify(value.text);
    case 'histogram':
      return object({ _type: 'histogram', values: value.counts, bins: value.edges });
    case 'image':
      return imageValue(row, name, value);
    case 'retrievals':
      return tableValue(row, name, value);
  }
}

function imageValue(row: HistoryRow, name: string, image: Image): Record<string, string> {
  const { png, width, height } = heatMapPng(image);
  const file = addFile(row, { name, folder: 'images', suffix: 'png', type: 'image/png', bytes: png });
  return object({ _type: 'image-file', format: 'png', width, height, ...file });
}

function tableValue(row: HistoryRow, name: string, { chunks }: Retrievals): Record<string, string> {
  const columns = ['chunk', 'rank', 'memory', 'score'];
  const data = chunks.flatMap(({ text, memories }) =>
    memories.map(({ id, score }, rank) => [text, rank + 1, id, score ?? null]),
  );
  const bytes = Buffer.from(JSON.stringify({ columns, data }));
  const file = addFile(row, { name, folder: 'table', suffix: 'table.json', type: 'application/json', bytes });
  return object({ _type: 'table-file', ncols: columns.length, nrows: data.length, ...file });
}

/** The name holds step and hash, so that two steps never share a file. */
function addFile(
  row: HistoryRow,
  { name, folder, suffix, type, bytes }: { name: string; folder: string; suffix: string } & Omit<MediaFile, 'path'>,
): { path: string; sha256: string; size: number } {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const path = `media/${folder}/${pathOf(name)}_${row.step}_${sha256.slice(0, 20)}.${suffix}`;
  row.files.push({ path, type, bytes });
  return { path, sha256, size: bytes.byteLength };
}

/** A name as a path that stays below its folder. */
function pathOf(name: string): string {
  const parts = name.split('/').map((part) => part.replace(/[^\w.-]/g, '_').replace(/^\.+/, '_'));
  return parts.map((part) => part || '_').join('/');
}

function object(values: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, valueJson(value)]));
}
