import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.ts';
import { makeCsvSink } from '../../src/tracking/csv.ts';
import type { Sink, TrackedRow } from '../../src/tracking/sink.ts';
import { histogramOf } from '../../src/tracking/values.ts';
import { trackedRow } from './runs.ts';

const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {} });

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'memory3-csv-'));
});
afterEach(() => rm(root, { recursive: true }));

const path = () => join(root, 'csv', 'metrics.csv');
const text = () => readFileSync(path(), 'utf8');
const make = (): Promise<Sink> => makeCsvSink({ root, config }, {});

async function deliver(lastStep: number, rows: (from: number) => TrackedRow[]): Promise<number> {
  const sink = await make();
  const from = await sink.open(lastStep);
  const wanted = rows(from);
  if (wanted.length > 0) await sink.write(wanted);
  await sink.finish('finished');
  await sink.close();
  return from;
}

/** Reads a table character by character (RFC 4180). */
function parse(csv: string): string[][] {
  const table: string[][] = [];
  let [row, cell, isQuoted] = [[] as string[], '', false];
  for (let i = 0; i < csv.length; i++) {
    const isEnd = !isQuoted && (csv[i] === ',' || csv[i] === '\n');
    if (isQuoted && csv[i] === '"' && csv[i + 1] === '"') cell += csv[++i];
    else if (csv[i] === '"') isQuoted = !isQuoted;
    else if (!isEnd) cell += csv[i];
    if (!isEnd) continue;
    row.push(cell);
    cell = '';
    if (csv[i] === ',') continue;
    table.push(row);
    row = [];
  }
  expect([row, cell, isQuoted]).toEqual([[], '', false]);
  return table;
}

test('a table with a line a step; late columns come on the right, and every line has all cells', async () => {
  const sink = await make();
  await sink.open(-1);
  await sink.write([trackedRow(1), trackedRow(2)]);
  await sink.write([trackedRow(3, { 'train/loss': 0.5, 'validation/loss': null, h: histogramOf([1]) })]);
  await sink.write([trackedRow(4)]);
  await sink.close();
  expect(text()).toBe(
    'step,time/unix_s,train/loss,validation/loss\n' +
      '1,1700000001,1,\n2,1700000002,0.5,\n3,1700000003,0.5,NaN\n4,1700000004,0.25,\n',
  );
});

test('any names and texts come back, a row a line', async () => {
  const name = fc.string({ unit: 'binary' }).filter((text) => !/^step$|^time\/unix_s$|[\r\n]/.test(text));
  const value = fc.oneof(fc.double({ noNaN: true }), fc.string({ unit: 'binary' }), fc.boolean(), fc.constant(null));
  await fc.assert(
    fc.asyncProperty(fc.array(fc.dictionary(name, value), { minLength: 1, maxLength: 5 }), async (values) => {
      await rm(path(), { force: true });
      const rows = values.map((row, i) => trackedRow(i + 1, row));
      const half = Math.floor(rows.length / 2);
      await deliver(-1, () => rows.slice(0, half));
      expect(await deliver(half, () => rows.slice(half))).toBe(half === 0 ? -1 : half);
      const [header, ...lines] = parse(text());
      expect(text().split('\n')).toHaveLength(rows.length + 2);
      expect(lines.map((line) => line.length)).toEqual(rows.map(() => header!.length));
      for (const [i, row] of values.entries()) {
        for (const [name, value] of Object.entries(row)) {
          const expected = value === null ? 'NaN' : String(value).replace(/\r\n|\r|\n/g, '\\n');
          expect(lines[i]![header!.indexOf(name)]).toBe(expected);
        }
      }
    }),
    { numRuns: 40 },
  );
});

describe('opened again', () => {
  const rows = [1, 2, 3, 4, 5].map((step) =>
    trackedRow(step, { 'train/loss': 1 / step, note: `a, "${step}"`, ...(step > 2 && { 'validation/loss': step }) }),
  );
  const rest = (from: number) => rows.filter(({ step }) => step > from);

  test('at any step that the run has, the file becomes that of a run that was never stopped', async () => {
    await deliver(-1, rest);
    const whole = text();
    for (let lastStep = 5; lastStep >= -1; lastStep--) {
      expect(await deliver(lastStep, rest)).toBe(lastStep > 0 ? lastStep : -1);
      expect(text()).toBe(whole);
    }
  });

  test('cut at any byte, it goes on after the last whole line', async () => {
    await deliver(-1, rest);
    const whole = text();
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(path(), whole.slice(0, length));
      const from = await deliver(5, rest);
      expect(from).toBe(whole.slice(0, length).split('\n').length - 2 || -1);
      expect(text(), `cut at ${length}`).toBe(whole);
    }
  });

  test.each(['\0\0\0\0\n', '6\n', '6,1,2,"x,4\n', 'nonsense\n', '5,1,2,3,4\n', '6,1,2,3,4,5\n', '\n'])(
    'a line %j is not one of ours',
    async (line) => {
      await deliver(-1, rest);
      const whole = text();
      appendFileSync(path(), line);
      expect(await deliver(9, () => [])).toBe(5);
      expect(text()).toBe(whole);
    },
  );

  test('a table of another kind is begun anew', async () => {
    await deliver(-1, rest);
    const whole = text();
    writeFileSync(path(), 'name,value\na,1\n');
    expect(await deliver(5, rest)).toBe(-1);
    expect(text()).toBe(whole);
  });
});

test('many rows are widened without loss', async () => {
  const rows = Array.from({ length: 20_000 }, (_, i) => trackedRow(i + 1));
  const sink = await make();
  await sink.open(-1);
  await sink.write(rows);
  await sink.write([trackedRow(20_001, { other: 1 })]);
  await sink.write([trackedRow(20_002, { another: 2 })]);
  await sink.close();
  const [header, ...lines] = parse(text());
  expect(header).toEqual(['step', 'time/unix_s', 'train/loss', 'other', 'another']);
  expect(lines.map(([step]) => Number(step))).toEqual(Array.from({ length: 20_002 }, (_, i) => i + 1));
  expect(lines.every((line) => line.length === 5)).toBe(true);
});
