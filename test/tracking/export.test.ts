import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.ts';
import { UserError } from '../../src/errors.ts';
import { RunFolder, type StageName } from '../../src/io/run_folder.ts';
import { exportRun } from '../../src/tracking/export.ts';
import { writeStatus } from '../../src/tracking/status.ts';
import { readFolder } from './tensorboard/reader.ts';

const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {} });

let folder: RunFolder;
beforeEach(async () => {
  folder = new RunFolder(await mkdtemp(join(tmpdir(), 'memory3-export-')));
  mkdirSync(folder.metrics);
});
afterEach(() => rm(folder.root, { recursive: true }));

function write(stage: StageName, first: number, last: number): void {
  for (let step = first; step <= last; step++) {
    appendFileSync(folder.metricsFile(stage), `{"step":${step},"time/unix_s":${step},"train/loss":${1 / step}}\n`);
  }
}

async function errorOf(action: Promise<unknown>): Promise<UserError> {
  const error = await action.catch((thrown: unknown) => thrown);
  if (!(error instanceof UserError)) throw new Error(`no user error: ${error}`);
  return error;
}

const running = (name: string, beatAt = Date.now() / 1000) =>
  writeStatus(folder.status, {
    ...{ version: 1, state: 'running', command: 'run', pid: 7, host: 'there', startedAt: beatAt, beatAt },
    sinks: [{ name, place: '', step: 1, waiting: 0, failures: 0 }],
  });

test('rows of both stages, load from the start and final values go into one folder', async () => {
  write('warmup', 1, 3);
  write('continual', 1, 2);
  writeFileSync(folder.hardware, '{"time":10,"hardware/cpus":2}\n{"time":20,"hardware/cpus":2}\n');
  writeFileSync(folder.summary, '{"evaluation/accuracy":1}');
  const { place, rows } = await exportRun(folder.root, config, 'tensorboard');
  expect([place, rows]).toEqual([join(folder.root, 'tensorboard'), 5]);
  const events = readFolder(place);
  expect(events.map(({ step }) => step)).toEqual([0, 0, 1, 2, 3, 4, 5, 5]);
  expect(events.at(-1)!.values[0]).toMatchObject({ tag: 'run/summary', text: '    evaluation/accuracy: 1' });
  expect(readFolder(join(place, 'hardware')).map(({ step }) => step)).toEqual([0, 0, 10]);
});

test('a row that is being written is left out, and the next export has it', async () => {
  write('warmup', 1, 2);
  appendFileSync(folder.metricsFile('warmup'), '{"step":3,"time/u');
  expect((await exportRun(folder.root, config, 'csv')).rows).toBe(2);
  appendFileSync(folder.metricsFile('warmup'), 'nix_s":3}\n');
  const { place, rows } = await exportRun(folder.root, config, 'csv');
  expect(rows).toBe(3);
  expect(readFileSync(place, 'utf8').split('\n')).toHaveLength(5);
  expect(readdirSync(join(folder.root, 'csv'))).toEqual(['metrics.csv']);
});

test('a damaged row is named, and what was exported before stays as it was', async () => {
  write('warmup', 1, 2);
  const { place } = await exportRun(folder.root, config, 'csv');
  const before = readFileSync(place, 'utf8');
  appendFileSync(folder.metricsFile('warmup'), 'x\n{"step":4}\n');
  const error = await errorOf(exportRun(folder.root, config, 'csv'));
  expect(error.code).toBe('export_failed');
  expect(error.message).toContain('warmup.jsonl:3');
  expect(readFileSync(place, 'utf8')).toBe(before);
  expect(readdirSync(join(folder.root, 'csv'))).toEqual(['metrics.csv']);
});

test('a run without rows is refused', async () => {
  expect((await errorOf(exportRun(folder.root, config, 'csv'))).code).toBe('artefact_missing');
  expect(existsSync(join(folder.root, 'csv'))).toBe(false);
});

test('the sink that a running command feeds is not replaced; another place is free', async () => {
  write('warmup', 1, 2);
  await running('csv');
  expect((await errorOf(exportRun(folder.root, config, 'csv'))).code).toBe('run_locked');
  const out = join(folder.root, 'other', 'run.csv');
  expect((await exportRun(folder.root, config, 'csv', out)).place).toBe(out);
  expect((await exportRun(folder.root, config, 'tensorboard')).rows).toBe(2);
  await running('csv', Date.now() / 1000 - 100);
  expect((await exportRun(folder.root, config, 'csv')).rows).toBe(2);
});

test('folders and files of others are not replaced', async () => {
  write('warmup', 1, 2);
  const place = join(folder.root, 'mine');
  writeFileSync(place, 'a file');
  expect((await errorOf(exportRun(folder.root, config, 'tensorboard', place))).code).toBe('usage_invalid');
  expect(readFileSync(place, 'utf8')).toBe('a file');
  rmSync(place);
  mkdirSync(place);
  expect((await exportRun(folder.root, config, 'tensorboard', place)).rows).toBe(2);
  expect((await exportRun(folder.root, config, 'tensorboard', place)).rows).toBe(2);
  writeFileSync(join(place, 'letter'), '');
  expect((await errorOf(exportRun(folder.root, config, 'tensorboard', place))).message).toContain('letter');
  expect((await errorOf(exportRun(folder.root, config, 'csv', place))).code).toBe('usage_invalid');
});

test('a place below a file is an error that says so', async () => {
  write('warmup', 1, 2);
  writeFileSync(join(folder.root, 'file'), '');
  const error = await errorOf(exportRun(folder.root, config, 'csv', join(folder.root, 'file', 'run.csv')));
  expect(error.code).toBe('export_failed');
});
