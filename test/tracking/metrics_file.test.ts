import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { MetricsFile, readMetrics } from '../../src/tracking/metrics_file.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-metrics-'));
  path = join(folder, 'metrics', 'warmup.jsonl');
});
afterEach(() => rm(folder, { recursive: true }));

const text = () => readFileSync(path, 'utf8');

async function write(rows: number, options: { rows?: number } = {}, first = 0): Promise<void> {
  const file = await MetricsFile.open(path, options);
  for (let step = first; step < first + rows; step++) file.append({ step, loss: 1 / (step + 1) });
  await file.close();
}

async function read(): Promise<MetricsRow[]> {
  const rows = [];
  for await (const row of readMetrics(path)) rows.push(row);
  return rows;
}

async function errorOf(action: Promise<unknown>): Promise<UserError> {
  const error = await action.catch((thrown: unknown) => thrown);
  if (!(error instanceof UserError)) throw new Error(`no user error: ${error}`);
  return error;
}

test('rows are one JSON object a line, there as soon as they are logged', async () => {
  const file = await MetricsFile.open(path);
  expect(file.rowCount).toBe(0);
  file.append({ step: 1, loss: 2.5, rate: 1e-3 });
  expect(text()).toBe('{"step":1,"loss":2.5,"rate":0.001}\n');
  file.append({ step: 2, note: 'über\nzwei', bad: Number.NaN });
  expect(file.rowCount).toBe(2);
  expect(await read()).toEqual([
    { step: 1, loss: 2.5, rate: 0.001 },
    { step: 2, note: 'über\nzwei', bad: null },
  ]);
  await file.close();
});

describe('resuming', () => {
  test('at every row, the file becomes that of a run that was never stopped', async () => {
    await write(12);
    const whole = text();
    for (let rows = 0; rows <= 12; rows++) {
      await write(12 - rows, { rows }, rows);
      expect(text()).toBe(whole);
    }
  });

  test('whatever half line a crash left behind', async () => {
    await write(5);
    const whole = text();
    const lastRow = whole.trimEnd().lastIndexOf('\n') + 1;
    for (let length = lastRow; length < whole.length; length++) {
      writeFileSync(path, whole.slice(0, length));
      const file = await MetricsFile.open(path);
      expect(file.rowCount).toBe(4);
      file.append({ step: 4, loss: 1 / 5 });
      await file.close();
      expect(text()).toBe(whole);
    }
  });

  test('any bytes after the rows of the checkpoint are dropped, none before', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.dictionary(fc.string(), fc.oneof(fc.double(), fc.string())), { minLength: 1, maxLength: 8 }),
        fc.uint8Array(),
        async (rows, tail) => {
          const file = await MetricsFile.open(path, { rows: 0 });
          for (const row of rows) file.append(row);
          await file.close();
          const before = readFileSync(path);
          appendFileSync(path, tail);
          const again = await MetricsFile.open(path, { rows: rows.length });
          expect(again.rowCount).toBe(rows.length);
          await again.close();
          expect(readFileSync(path)).toEqual(before);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('rows beyond one read, cut in the middle', async () => {
    const file = await MetricsFile.open(path);
    const long = 'x'.repeat(30_000);
    for (let step = 0; step < 20; step++) file.append({ step, long });
    await file.close();
    const again = await MetricsFile.open(path, { rows: 13 });
    await again.close();
    expect((await read()).map(({ step }) => step)).toEqual(Array.from({ length: 13 }, (_, i) => i));
  });

  test('a file with fewer rows than the checkpoint counts is refused and left as it is', async () => {
    await write(3);
    const before = text();
    const error = await errorOf(MetricsFile.open(path, { rows: 4 }));
    expect(error.code).toBe('file_truncated');
    expect(error.message).toMatch(/3 rows.*4/);
    expect(text()).toBe(before);
  });
});

describe('readMetrics', () => {
  test('of no file', async () => {
    expect(await read()).toEqual([]);
    expect(existsSync(path)).toBe(false);
  });

  test('leaves out a row that is being written', async () => {
    await write(2);
    appendFileSync(path, '{"step":2,"lo');
    expect(await read()).toHaveLength(2);
  });

  test.each(['7', '[]', '{"step":', 'null', ''])('names the line that holds %j', async (line) => {
    await write(2);
    appendFileSync(path, `${line}\n{"step":4}\n`);
    const error = await errorOf(read());
    expect(error.code).toBe('file_corrupt');
    expect(error.where).toBe(`${path}:3`);
  });
});

test.runIf(existsSync('/dev/full'))('a full disk is a user error', async () => {
  const file = await MetricsFile.open(path);
  // The file's own descriptor, turned to a device that has no space.
  const { open } = await import('node:fs/promises');
  const full = await open('/dev/full', 'r+');
  Object.assign(file, { handle: full });
  expect(() => file.append({ step: 1, loss: 1 })).toThrow(UserError);
  expect(file.rowCount).toBe(0);
  await full.close();
});
