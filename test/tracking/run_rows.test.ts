import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { RunFolder, type StageName } from '../../src/io/run_folder.ts';
import { LineTail, lastRow, lastStep, RunRows } from '../../src/tracking/run_rows.ts';

let folder: RunFolder;
let path: string;
beforeEach(async () => {
  folder = new RunFolder(await mkdtemp(join(tmpdir(), 'memory3-rows-')));
  mkdirSync(folder.metrics);
  path = join(folder.metrics, 'lines');
});
afterEach(() => rm(folder.root, { recursive: true }));

/** Writes rows of steps from `first` to `last` of a stage. */
function write(stage: StageName, first: number, last: number): void {
  for (let step = first; step <= last; step++) {
    appendFileSync(folder.metricsFile(stage), `${JSON.stringify({ step, 'time/unix_s': step, 'train/loss': 1 })}\n`);
  }
}

async function all(rows: RunRows) {
  const found = [];
  for (let part = await rows.next(); part.length > 0; part = await rows.next()) found.push(...part);
  return found;
}

describe('LineTail', () => {
  const drain = async (tail: LineTail) => {
    const lines = [];
    for (let part = await tail.next(); part.length > 0; part = await tail.next()) lines.push(...part);
    return lines;
  };

  test('a file that is not there yet, then grows by any pieces, is read line by line', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\n', 'ü'))),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        async (lines, cuts) => {
          await rm(path, { force: true });
          const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
          const tail = new LineTail(path);
          const found = await drain(tail);
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const length = cuts[i % cuts.length]!;
            appendFileSync(path, bytes.subarray(at, at + length));
            at += length;
            found.push(...(await drain(tail)));
          }
          expect(found).toEqual(lines.map((line) => Buffer.from(line).toString()));
          expect(tail.count).toBe(lines.length);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('a line longer than what is read at once', async () => {
    const lines = ['a', 'ü'.repeat(700_000), 'b'];
    writeFileSync(path, lines.map((line) => `${line}\n`).join(''));
    expect(await drain(new LineTail(path))).toEqual(lines);
  });

  test('goes back to a place', async () => {
    writeFileSync(path, 'a\nb\n');
    const tail = new LineTail(path);
    const place = tail.mark();
    await tail.next();
    tail.back(place);
    expect([tail.count, await tail.next()]).toEqual([0, ['a', 'b']]);
  });

  test.each(['', 'a\n', 'a\nb', `a\n${'b'.repeat(600_000)}`, 'c'.repeat(600_000)])(
    'from the end of a file on, with the line that is being written (%#)',
    async (before) => {
      writeFileSync(path, before);
      const tail = await LineTail.atEnd(path);
      expect(await tail.next()).toEqual([]);
      appendFileSync(path, 'x\ny\n');
      expect(await drain(tail)).toEqual([`${before.slice(before.lastIndexOf('\n') + 1)}x`, 'y']);
    },
  );

  test('from the end of a file that is not there', async () => {
    const tail = await LineTail.atEnd(path);
    writeFileSync(path, 'x\n');
    expect(await tail.next()).toEqual(['x']);
  });
});

describe('RunRows', () => {
  test('both stages are one sequence; the second goes on with the steps', async () => {
    write('warmup', 1, 3);
    write('continual', 1, 2);
    const rows = await all(new RunRows(folder));
    expect(rows.map(({ step, stage }) => [step, stage])).toEqual([
      [1, 'warmup'],
      [2, 'warmup'],
      [3, 'warmup'],
      [4, 'continual'],
      [5, 'continual'],
    ]);
    expect(rows[4]).toEqual({
      step: 5,
      stage: 'continual',
      time: 2,
      values: { 'train/stage': 'continual', 'train/step': 2, 'train/loss': 1 },
    });
  });

  test('rows that come are given, of a second stage when it is said to have begun', async () => {
    const rows = new RunRows(folder, ['warmup']);
    expect(await rows.next()).toEqual([]);
    write('warmup', 1, 2);
    expect((await all(rows)).map(({ step }) => step)).toEqual([1, 2]);
    write('continual', 1, 1);
    expect(await rows.next()).toEqual([]);
    write('warmup', 3, 3);
    rows.extend(['warmup', 'continual']);
    expect((await all(rows)).map(({ step }) => step)).toEqual([3, 4]);
  });

  test('after any step', async () => {
    write('warmup', 1, 4);
    write('continual', 1, 4);
    for (let after = -1; after <= 8; after++) {
      const rows = new RunRows(folder, ['warmup', 'continual'], after);
      const expected = Array.from({ length: 8 }, (_, i) => i + 1).filter((step) => step > after);
      expect((await all(rows)).map(({ step }) => step)).toEqual(expected);
    }
  });

  test('a run of which only stage two is there', async () => {
    write('continual', 1, 2);
    expect((await all(new RunRows(folder))).map(({ step }) => step)).toEqual([1, 2]);
  });

  test.each(['nonsense', '{"loss":1}', '{"step":"a"}', '{"step":1.5}', '[]'])(
    'the damaged row %s is named each time, and no row beside it is lost',
    async (line) => {
      write('warmup', 1, 2);
      appendFileSync(folder.metricsFile('warmup'), `${line}\n`);
      write('warmup', 4, 5);
      const rows = new RunRows(folder, ['warmup']);
      for (let i = 0; i < 2; i++) {
        const error = await rows.next().catch((thrown: unknown) => thrown);
        expect((error as UserError).where).toBe(`${folder.metricsFile('warmup')}:3`);
        expect(error).toBeInstanceOf(UserError);
      }
      rmLine(3);
      expect((await all(rows)).map(({ step }) => step)).toEqual([1, 2, 4, 5]);
    },
  );

  function rmLine(number: number): void {
    const file = folder.metricsFile('warmup');
    writeFileSync(file, '');
    for (const [first, last] of [
      [1, number - 1],
      [number + 1, 5],
    ] as const)
      write('warmup', first, last);
  }
});

describe('the last row', () => {
  test('is the last complete one, however long the rows are', async () => {
    const file = folder.metricsFile('warmup');
    expect(await lastRow(file)).toBeUndefined();
    writeFileSync(file, '{"step":1}');
    expect(await lastRow(file)).toBeUndefined();
    for (const length of [1, 70_000, 300_000]) {
      const rows = [1, 2].map((step) => `${JSON.stringify({ step, text: 'x'.repeat(length) })}\n`);
      writeFileSync(file, rows.join(''));
      expect((await lastRow(file))!.step).toBe(2);
      appendFileSync(file, '{"step":3,"te');
      expect((await lastRow(file))!.step).toBe(2);
    }
  });

  test('gives the last step of the run', async () => {
    expect(await lastStep(folder)).toBe(-1);
    write('warmup', 1, 3);
    expect(await lastStep(folder)).toBe(3);
    write('continual', 1, 2);
    expect(await lastStep(folder)).toBe(5);
    expect(await lastStep(folder, ['warmup'])).toBe(3);
  });
});

test('rows that come while the next stage begins are not passed over', async () => {
  write('warmup', 1, 3);
  const rows = new RunRows(folder, ['warmup']);
  expect((await rows.next()).map(({ step }) => step)).toEqual([1, 2, 3]);
  // Reading the end of the first stage, which may grow until the next one has begun.
  const reading = rows.next();
  rows.extend(['warmup', 'continual']);
  write('continual', 1, 2);
  expect(await reading).toEqual([]);
  write('warmup', 4, 4);
  expect((await all(rows)).map(({ step }) => step)).toEqual([4, 5, 6]);
});
