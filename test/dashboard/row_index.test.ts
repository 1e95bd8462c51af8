import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK, columnFile, RECORD, readNumbers, rowsOfRecord } from '../../src/dashboard/row_index.ts';
import { advance } from '../../src/dashboard/row_index_writer.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';
import { linesOf, rowsOf, temporaryFolder } from './support.ts';

function setUp(rows: MetricsRow[]) {
  const within = temporaryFolder();
  const path = join(within, 'warmup.jsonl');
  writeFileSync(path, linesOf(rows));
  const folder = join(temporaryFolder(), 'index');
  const all = (bytes = 2 ** 30) => advance({ path, within, folder, bytes });
  return { path, folder, all };
}

/** What a record must hold, from the rows themselves. */
function recordOf(rows: MetricsRow[], key: string, level: number, record: number): number[] {
  const width = rowsOfRecord(level);
  const values = rows
    .slice(record * width, (record + 1) * width)
    .flatMap((row) => (row[key] as number | undefined) ?? []);
  if (values.length === 0) return [0, 0, 0, 0];
  return [Math.min(...values), Math.max(...values), values.reduce((sum, value) => sum + value, 0), values.length];
}

function expectRecords(folder: string, keys: string[], rows: MetricsRow[], key: string): void {
  for (let level = 0; level < 4; level++) {
    const count = Math.floor(rows.length / rowsOfRecord(level));
    const records = readNumbers(columnFile(folder, keys.indexOf(key), level), 0, count * RECORD);
    for (let i = 0; i < count; i++) {
      const expected = recordOf(rows, key, level, i);
      const found = [...records.subarray(i * RECORD, (i + 1) * RECORD)];
      expect(found.map((value) => value.toFixed(6))).toEqual(expected.map((value) => value.toFixed(6)));
    }
  }
}

describe('the index of rows', () => {
  it('holds least, greatest, sum and count of every block at every level', () => {
    const rows = rowsOf(1100);
    const { folder, all } = setUp(rows);
    const state = all();
    expect(state.rows).toBe(Math.floor(1100 / BLOCK) * BLOCK);
    expectRecords(folder, state.keys, rows, 'train/loss');
    expectRecords(folder, state.keys, rows, 'validation/loss');
  });

  it('is the same whether it was made at once or in parts while the file grew', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 9000 }),
        (parts, bytes) => {
          const rows = rowsOf(parts.reduce((sum, part) => sum + part, 0));
          const { path, folder, all } = setUp([]);
          let written = 0;
          for (const part of parts) {
            written += part;
            writeFileSync(path, linesOf(rows.slice(0, written)));
            all(bytes);
          }
          while (all(bytes).rows < Math.floor(rows.length / BLOCK) * BLOCK);
          const state = all();
          expectRecords(folder, state.keys, rows.slice(0, state.rows), 'train/loss');
          expectRecords(folder, state.keys, rows.slice(0, state.rows), 'validation/loss');
        },
      ),
      { numRuns: 20 },
    );
  });

  it('follows a file that a resumed run cut back and wrote anew', () => {
    const { path, folder, all } = setUp(rowsOf(3000));
    all();
    const anew = [...rowsOf(2000), ...rowsOf(1500, { first: 2001, salt: 3 })];
    writeFileSync(path, linesOf(anew));
    const state = all();
    expect(state.rows).toBe(3496);
    expectRecords(folder, state.keys, anew.slice(0, 3496), 'train/loss');
  });

  it('is made anew from a file that has become another', () => {
    const { path, folder, all } = setUp(rowsOf(3000));
    all();
    const other = rowsOf(100, { start: 5000, salt: 1 });
    writeFileSync(path, linesOf(other));
    const state = all();
    expect(state.rows).toBe(96);
    expectRecords(folder, state.keys, other, 'train/loss');
  });

  it('leaves out half a row at the end and takes it once it is whole', () => {
    const rows = rowsOf(16);
    const { path, all } = setUp(rows.slice(0, 15));
    const text = linesOf(rows);
    writeFileSync(path, text.slice(0, -10));
    expect(all().rows).toBe(8);
    writeFileSync(path, text);
    expect(all().rows).toBe(16);
  });

  it.each([
    [
      'a state that was changed',
      (folder: string) =>
        writeFileSync(
          join(folder, 'meta.json'),
          readFileSync(join(folder, 'meta.json'), 'utf8').replace('"rows":3000', '"rows":2000'),
        ),
    ],
    ['a column that is too short', (folder: string) => truncateSync(columnFile(folder, 2, 0), 100)],
    ['no marks', (folder: string) => truncateSync(join(folder, 'marks'), 0)],
    ['a folder that is none', (folder: string) => mkdirSync(join(folder, 'meta.json.d'))],
  ])('is made anew over %s', (_, damage) => {
    const rows = rowsOf(3000);
    const { folder, all } = setUp(rows);
    all();
    damage(folder);
    const state = all();
    expect(state.rows).toBe(3000);
    expectRecords(folder, state.keys, rows, 'train/loss');
  });

  it.each([
    ['no JSON', 'x'],
    ['no row', '[1]'],
    ['no step', '{"train/loss":1}'],
  ])('ends before a line with %s and names it', (_, line) => {
    const { path, all } = setUp([]);
    writeFileSync(path, `${linesOf(rowsOf(20))}${line}\n${linesOf(rowsOf(20, { first: 21 }))}`);
    expect(all()).toMatchObject({ rows: 16, problem: 'line 21 is not a row of metrics' });
  });

  it('takes values that are no finite numbers for missing', () => {
    const { path, folder, all } = setUp([]);
    const text = linesOf(rowsOf(8)).replaceAll(/"train\/loss":[^,]+/g, '"train/loss":1e999');
    writeFileSync(
      path,
      text.replace('"train/loss":1e999', '"train/loss":2').replace('"train/loss":1e999', '"train/loss":"x"'),
    );
    const { keys } = all();
    expect([...readNumbers(columnFile(folder, keys.indexOf('train/loss'), 0), 0, RECORD)]).toEqual([2, 2, 2, 1]);
  });
});
