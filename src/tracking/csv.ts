/**
 * The rows of a run as one table (RFC 4180), a line a step, for spreadsheets, pandas and R. A column stands for a name; one that
 * comes late (a validation, stage two) is added on the right, for which the file is rewritten: that happens once for each
 * kind of row, and every line keeps as many cells as the header. Media have no place in a table and are left out. Empty:
 * not measured in this step; `NaN`: not finite. Line breaks in texts are written `\n`, so that a line is a row.
 */

import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { appendWhole, makeFolder, writeFileAtomic } from '../io/files.ts';
import { completeLines } from '../io/lines.ts';
import type { Ending, Sink, SinkOptions, TrackedRow, TrackedRun } from './sink.ts';
import { isMedia, type MetricsRow, type MetricValue } from './values.ts';

/** These are in every row. */
const FIRST_COLUMNS = ['step', 'time/unix_s'];

export function csvPath(root: string): string {
  return join(root, 'csv', 'metrics.csv');
}

export async function makeCsvSink(run: TrackedRun, options: SinkOptions): Promise<Sink> {
  return new CsvSink(options.path ?? csvPath(run.root));
}

class CsvSink implements Sink {
  readonly name = 'csv';
  readonly place: string;
  lastTime: number | undefined;
  #handle: FileHandle | undefined;
  #columns: string[] = [];
  #size = 0;

  constructor(path: string) {
    this.place = path;
  }

  async open(lastStep: number): Promise<number> {
    await this.close();
    await makeFolder(dirname(this.place));
    const kept = await measure(this.place, lastStep);
    if (kept.columns === undefined) await rm(this.place, { force: true });
    this.#columns = kept.columns ?? [];
    this.#size = kept.size;
    this.lastTime = kept.lastTime;
    this.#handle = await open(this.place, kept.columns === undefined ? 'w' : 'r+');
    await this.#handle.truncate(this.#size);
    return kept.last;
  }

  async write(rows: readonly TrackedRow[]): Promise<void> {
    const flat = rows.map(({ step, time, values }) => ({ step, 'time/unix_s': time, ...numbersAndTexts(values) }));
    const missing = [...new Set([...FIRST_COLUMNS, ...flat.flatMap(Object.keys)])].filter(
      (name) => !this.#columns.includes(name),
    );
    if (missing.length > 0) await this.#widen(missing);
    await this.#append(flat.map((row) => lineOf(row, this.#columns)).join(''));
  }

  async finish(_ending: Ending): Promise<void> {
    await this.#handle?.sync();
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  /** Rewrites the file with more columns, empty in the lines that are there. */
  async #widen(names: readonly string[]): Promise<void> {
    const columns = [...this.#columns, ...names];
    const header = Buffer.from(`${columns.map(cell).join(',')}\n`);
    const cells = Buffer.from(`${','.repeat(names.length)}\n`);
    let size = 0;
    const { place } = this;
    const lines = async function* (): AsyncGenerator<Uint8Array> {
      let part: Uint8Array[] = [header];
      let isHeader = true;
      for await (const { bytes } of completeLines(place)) {
        if (!isHeader) part.push(bytes, cells);
        isHeader = false;
        if (part.length < 1024) continue;
        yield counted(part);
        part = [];
      }
      yield counted(part);
    };
    const counted = (part: Uint8Array[]): Buffer => {
      const bytes = Buffer.concat(part);
      size += bytes.length;
      return bytes;
    };
    await writeFileAtomic(place, lines());
    [this.#columns, this.#size] = [columns, size];
    await this.close();
  }

  /** Adds lines, all of them or none. */
  async #append(text: string): Promise<void> {
    this.#handle ??= await open(this.place, 'r+');
    const bytes = Buffer.from(text);
    await appendWhole(this.#handle, bytes, this.#size, this.place);
    this.#size += bytes.length;
  }
}

function numbersAndTexts(values: MetricsRow): MetricsRow {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => !isMedia(value)));
}

function lineOf(row: MetricsRow, columns: readonly string[]): string {
  return `${columns.map((name) => (name in row ? cell(row[name]!) : '')).join(',')}\n`;
}

function cell(value: MetricValue): string {
  if (value === null) return 'NaN';
  const text = String(value).replace(/\r\n|\r|\n/g, '\\n');
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The cells of a line as written here, unquoted; undefined when a quote is not closed. */
function cellsOf(line: string): string[] | undefined {
  const cells: string[] = [];
  for (let at = 0; ; at += 1) {
    const quoted = /"((?:[^"]|"")*)"(?=,|$)/y;
    quoted.lastIndex = at;
    const found = quoted.exec(line);
    if (found === null && line[at] === '"') return undefined;
    const comma = line.indexOf(',', at);
    const end = found ? quoted.lastIndex : comma < 0 ? line.length : comma;
    cells.push(found ? found[1]!.replaceAll('""', '"') : line.slice(at, end));
    if (end === line.length) return cells;
    at = end;
  }
}

interface Measured {
  /** Absent when the file is none of ours. */
  columns?: string[];
  last: number;
  lastTime?: number;
  size: number;
}

/** The header and the lines up to `lastStep`, at the latest up to one that is not whole. */
async function measure(path: string, lastStep: number): Promise<Measured> {
  const found: Measured = { last: -1, size: 0 };
  for await (const { bytes, end } of completeLines(path)) {
    const line = bytes.toString('utf8');
    if (found.columns === undefined) {
      const columns = cellsOf(line);
      if (FIRST_COLUMNS.some((name, i) => columns?.[i] !== name)) return found;
      found.columns = columns;
    } else {
      const [, step, time] = /^(\d+),([^,]*)/.exec(line) ?? [];
      if (step === undefined || cellsOf(line)?.length !== found.columns.length) break;
      if (Number(step) <= found.last || Number(step) > lastStep) break;
      [found.last, found.lastTime] = [Number(step), Number(time)];
    }
    found.size = end;
  }
  return found;
}
