/** Every row of a run as a table, read and written a part at a time, as fast as it is taken. */

import { STAGES } from '../io/run_folder.ts';
import { type MetricValue, rowOf } from '../tracking/values.ts';
import { damaged } from './refused.ts';
import { LONGEST_LINE, linesIn, numberIn } from './rows.ts';
import { RunFile } from './run_file.ts';
import type { Run } from './runs.ts';

const READ_BYTES = 2 ** 18;

/** Columns `step` of the whole run, `stage`, `time` in seconds since 1970, then `keys`; a missing value is empty. */
export async function* csvOf(run: Run, keys: readonly string[]): AsyncGenerator<Uint8Array> {
  const text = new TextEncoder();
  yield text.encode(`${['step', 'stage', 'time', ...keys].map(field).join(',')}\n`);
  let before = 0;
  for (const stage of STAGES) {
    const file = RunFile.open(run.folder.metricsFile(stage), run.within);
    if (file === undefined) continue;
    let last = 0;
    try {
      for (const lines of portions(file)) {
        const rows = lines.map((line) => {
          const row = rowOf(line);
          if (row === undefined) throw damaged(`${stage}.jsonl has a line that is not a row of metrics`);
          last = numberIn(row, 'step') ?? last;
          return [before + last, stage, row['time/unix_s'] ?? null, ...keys.map((key) => row[key] ?? null)];
        });
        yield text.encode(`${rows.map((row) => row.map(field).join(',')).join('\n')}\n`);
      }
    } finally {
      file.close();
    }
    before += last;
  }
}

function* portions(file: RunFile): Generator<string[]> {
  let length = READ_BYTES;
  for (let at = 0; at < file.size; ) {
    const bytes = file.read(at, length);
    const lines = [...linesIn(bytes)];
    const end = lines.at(-1)?.end;
    if (end === undefined) {
      if (at + bytes.length >= file.size) return;
      length *= 4;
      if (length > 4 * LONGEST_LINE) throw damaged('a line is too long');
      continue;
    }
    yield lines.map((line) => bytes.toString('utf8', line.start, line.end));
    at += end + 1;
    length = READ_BYTES;
  }
}

function field(value: MetricValue): string {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value !== 'string') return '';
  // A table program takes such a text for a formula.
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
