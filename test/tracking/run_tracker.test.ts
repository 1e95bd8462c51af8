import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { RunFolder, type StageName } from '../../src/io/run_folder.ts';
import { eventSchema } from '../../src/tracking/events.ts';
import { RunTracker, readSummary } from '../../src/tracking/run_tracker.ts';

let folder: RunFolder;
beforeEach(async () => {
  folder = new RunFolder(await mkdtemp(join(tmpdir(), 'memory3-tracker-')));
});
afterEach(() => rm(folder.root, { recursive: true }));

const jsonl = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
const rowsOf = (stage: StageName) => jsonl(folder.metricsFile(stage));

test('what is recorded of a step in many calls is one row, that begins with step and time', async () => {
  const before = Date.now() / 1000;
  const tracker = await RunTracker.open(folder);
  await tracker.beginStage('warmup', 0);
  tracker.log({ 'train/loss': 2, 'train/note': 'a' }, 1);
  tracker.histogram('parameters/a', [1, 2], 1);
  tracker.text('samples/1', 'text', 1);
  tracker.image('memory/attention', { width: 1, height: 1, values: [1], range: [0, 1], labels: ['x', 'y'] }, 1);
  tracker.retrievals('memory/retrievals', [{ text: 'a', memories: [{ id: 'm' }] }], 1);
  tracker.log({ 'train/bad': Number.NaN }, 1);
  // The row of a step ends when the next one begins.
  expect(tracker.rowCount).toBe(0);
  tracker.log({ 'train/loss': 1 }, 2);
  expect(tracker.rowCount).toBe(1);
  await tracker.close();
  const [first, second] = rowsOf('warmup');
  expect(Object.keys(first!).slice(0, 2)).toEqual(['step', 'time/unix_s']);
  expect(first).toMatchObject({
    step: 1,
    'train/loss': 2,
    'train/note': 'a',
    'train/bad': null,
    'parameters/a': { type: 'histogram' },
    'samples/1': { type: 'text', text: 'text' },
    'memory/attention': { type: 'image', values: [1] },
    'memory/retrievals': { type: 'retrievals', chunks: [{ text: 'a' }] },
  });
  expect(second).toMatchObject({ step: 2, 'train/loss': 1 });
  const time = first!['time/unix_s'] as number;
  expect(time).toBeGreaterThanOrEqual(before);
  expect(time).toBeLessThanOrEqual(Date.now() / 1000);
});

test('a committed row is in the file, and committing again adds none', async () => {
  const tracker = await RunTracker.open(folder);
  await tracker.beginStage('warmup', 0);
  tracker.log({ a: 1 }, 1);
  tracker.commit();
  tracker.commit();
  expect(rowsOf('warmup')).toHaveLength(1);
  await tracker.close();
});

test('values without a stage go nowhere, least of all into the next stage', async () => {
  const tracker = await RunTracker.open(folder);
  tracker.log({ lost: 1 }, 7);
  await tracker.beginStage('warmup', 0);
  tracker.log({ a: 1 }, 1);
  await tracker.endStage();
  tracker.log({ lost: 1 }, 8);
  await tracker.beginStage('continual', 0);
  tracker.log({ b: 1 }, 1);
  await tracker.close();
  expect([rowsOf('warmup'), rowsOf('continual')].map((rows) => rows.map(({ step }) => step))).toEqual([[1], [1]]);
});

describe('the listener', () => {
  const told: [StageName, number][] = [];
  const open = () => RunTracker.open(folder, (...args) => told.push(args));
  beforeEach(() => told.splice(0));

  test('is told of a stage with its last step after what does not count is cut off', async () => {
    const tracker = await open();
    await tracker.beginStage('warmup', 0);
    for (const step of [1, 2, 3, 4]) tracker.log({ a: 1 }, step);
    await tracker.close();
    const again = await open();
    await again.beginStage('warmup', 2);
    expect(rowsOf('warmup').map(({ step }) => step)).toEqual([1, 2]);
    expect(told).toEqual([
      ['warmup', 0],
      ['warmup', 2],
    ]);
    await again.close();
  });

  test('is told of a stage that an earlier command finished, unless a later one has begun', async () => {
    const tracker = await open();
    await tracker.beginStage('warmup', 0);
    tracker.log({ a: 1 }, 1);
    await tracker.endStage();
    await tracker.finishedStage('warmup');
    expect(told.at(-1)).toEqual(['warmup', 1]);
    await tracker.beginStage('continual', 0);
    await tracker.finishedStage('warmup');
    expect(told.at(-1)).toEqual(['continual', 0]);
    await tracker.close();
  });
});

test('events have time, kind and the stage that runs, and half a one is cut off', async () => {
  const tracker = await RunTracker.open(folder);
  tracker.event('start', 'begin');
  await tracker.beginStage('warmup', 0);
  tracker.event('validation', 'loss 1', 5);
  await tracker.close();
  appendFileSync(folder.events, '{"time":1,"ki');
  const again = await RunTracker.open(folder);
  again.event('finish', 'end');
  await again.close();
  const events = jsonl(folder.events).map((row) => eventSchema.parse(row));
  expect(events.map(({ kind, stage, step, text }) => [kind, stage, step, text])).toEqual([
    ['start', undefined, undefined, 'begin'],
    ['validation', 'warmup', 5, 'loss 1'],
    ['finish', undefined, undefined, 'end'],
  ]);
});

test('the log keeps every line behind its time; half a line stays', async () => {
  let tracker = await RunTracker.open(folder);
  tracker.line('one\ntwo');
  await tracker.close();
  appendFileSync(folder.log, 'half');
  tracker = await RunTracker.open(folder);
  tracker.line('three');
  await tracker.close();
  const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /;
  const lines = readFileSync(folder.log, 'utf8').split('\n');
  expect(lines.map((line) => line.replace(time, ''))).toEqual(['one', 'two', 'half', 'three', '']);
  expect(lines.filter((line) => time.test(line))).toHaveLength(3);
});

test('final values are kept by name; a damaged file is begun anew', async () => {
  const tracker = await RunTracker.open(folder);
  await tracker.summary({ a: 1, b: 'x' });
  await tracker.summary({ b: 'y' });
  expect(await readSummary(folder)).toEqual({ a: 1, b: 'y' });
  writeFileSync(folder.summary, '[1');
  expect(await readSummary(folder)).toEqual({});
  await tracker.summary({ c: 1 });
  expect(await readSummary(folder)).toEqual({ c: 1 });
  await tracker.close();
});

test.runIf(existsSync('/dev/full'))('a log that cannot be written ends nothing', async () => {
  const tracker = await RunTracker.open(folder);
  await rm(folder.log);
  await tracker.close();
  const { symlinkSync } = await import('node:fs');
  symlinkSync('/dev/full', folder.log);
  const again = await RunTracker.open(folder);
  again.line('x');
  await again.close();
});
