/** What a run shows in its sinks is what its files say, however it was disturbed. */

import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { BEAT, judgeState, readStatus } from '../../src/tracking/status.ts';
import { readFolder } from '../tracking/tensorboard/reader.ts';
import { fail, memory3, Playground, Running, rows, steps, succeed } from './support.ts';

const STAGE = { steps: 24, validateEvery: 5, checkpointEvery: 9, keepCheckpoints: 1 };
const CHANGES = {
  warmup: STAGE,
  continual: { ...STAGE, growth: { initialShare: 0.25, every: 5, share: 0.25 } },
  tracking: { sinks: ['tensorboard', 'csv'], hardwareEvery: 0.2, histogramsEvery: 10, attentionEvery: 5 },
};

let playground: Playground;
beforeAll(() => {
  playground = new Playground(CHANGES);
});
afterAll(() => playground.remove());

/** The rows of the run as its files have them, with steps of the whole run. */
function truth(run: string): Record<string, unknown>[] {
  return (['warmup', 'continual'] as const).flatMap((stage, i) =>
    rows(run, stage).map(({ step, ...values }) => ({
      step: step + i * STAGE.steps,
      'train/stage': stage,
      'train/step': step,
      ...values,
    })),
  );
}

/** The same out of the event file, with the numbers of float32 that it holds. */
function expectShown(run: string): void {
  const expected = truth(run);
  expect(expected.map(({ step }) => step)).toEqual(steps(2 * STAGE.steps));
  const events = readFolder(join(run, 'tensorboard')).filter(
    ({ values }) => values.length > 0 && !values[0]!.tag.startsWith('run/'),
  );
  const numbers = (row: Record<string, unknown>) =>
    Object.entries(row).flatMap(([tag, value]) =>
      typeof value === 'number' && tag !== 'step' && tag !== 'time/unix_s' ? [[tag, Math.fround(value)]] : [],
    );
  expect(events.map(({ step, time }) => [step, time])).toEqual(expected.map((row) => [row.step, row['time/unix_s']]));
  expect(
    events.map(({ values }) => values.flatMap(({ tag, number }) => (number === undefined ? [] : [[tag, number]]))),
  ).toEqual(expected.map(numbers));
  const media = (row: Record<string, unknown>) => Object.keys(row).filter((tag) => typeof row[tag] === 'object');
  expect(events.flatMap(({ values }) => values.filter((value) => value.histogram || value.image)).length).toBe(
    expected.flatMap(media).filter((tag) => tag !== 'memory/retrievals').length,
  );
  expectTable(readFileSync(join(run, 'csv', 'metrics.csv'), 'utf8'), expected);
}

function expectTable(text: string, expected: Record<string, unknown>[]): void {
  const [header, ...lines] = text
    .trimEnd()
    .split('\n')
    .map((line) => line.split(','));
  const table = lines.map((cells) =>
    Object.fromEntries(header!.map((name, i) => [name, cells[i]]).filter(([, cell]) => cell !== '')),
  );
  const flat = expected.map((row) =>
    Object.fromEntries(
      Object.entries(row).flatMap(([name, value]) =>
        typeof value === 'object' && value !== null ? [] : [[name, value === null ? 'NaN' : String(value)]],
      ),
    ),
  );
  expect(table).toEqual(flat);
}

it('killed in both stages and resumed, each sink has one row a step, that of the files; so have exports', async () => {
  const args = playground.args('killed');
  const run = playground.path('killed');
  for (const stage of ['warmup', 'continual'] as const) {
    const process = new Running(['run', ...args]);
    await process.until(new RegExp(`${stage} step 15: validation`));
    // The sinks look once a second: they have taken rows that the checkpoint does not count.
    await new Promise((next) => setTimeout(next, 300));
    process.kill('SIGKILL');
    expect((await process.outcome).signal).toBe('SIGKILL');
    const status = (await readStatus(join(run, 'metrics', 'status.json')))!;
    expect(judgeState(status, status.beatAt + BEAT.crashedAfter + 1)).toBe('crashed');
    const { stdout } = await succeed('track', 'status', ...args);
    expect(stdout).toMatch(/^state: (running|crashed)$/m);
  }
  await succeed('run', ...args);
  expectShown(run);
  expect(readFolder(join(run, 'tensorboard', 'hardware')).length).toBeGreaterThan(2);

  const { stdout } = await succeed('track', 'status', '--run', run);
  expect(stdout).toMatch(/^state: finished$/m);
  expect(stdout).toMatch(/^sink tensorboard: up to step 48, 0 rows wait, /m);
  expect(stdout).toMatch(/^sink csv: up to step 48, 0 rows wait, /m);

  const csv = readFileSync(join(run, 'csv', 'metrics.csv'), 'utf8');
  for (const to of ['tensorboard', 'csv']) {
    rmSync(join(run, to), { recursive: true });
    expect((await succeed('track', 'export', ...args, '--to', to)).stdout).toBe(
      `48 rows: ${join(run, to, ...(to === 'csv' ? ['metrics.csv'] : []))}\n`,
    );
  }
  expectShown(run);
  // The columns come in the same order, however the rows came.
  expect(readFileSync(join(run, 'csv', 'metrics.csv'), 'utf8')).toBe(csv);
  const out = join(playground.folder, 'exports', 'run.csv');
  await succeed('track', 'export', '--run', run, '--to', 'csv', '--out', out);
  expect(readFileSync(out, 'utf8')).toBe(csv);
});

it('sinks that fail do not stop a run; the next command brings them up to date', async () => {
  const args = playground.args('hindered');
  const run = playground.path('hindered');
  mkdirSync(run, { recursive: true });
  writeFileSync(join(run, 'tensorboard'), 'a file where a folder should be');
  mkdirSync(join(run, 'csv', 'metrics.csv'), { recursive: true });
  const { stderr } = await succeed('run', ...args);
  expect(stderr).toMatch(/tensorboard: 48 rows are still to be sent \(.*EEXIST/);
  expect(stderr).toMatch(/csv: 48 rows are still to be sent \(/);
  const { stdout } = await succeed('track', 'status', ...args);
  expect(stdout).toMatch(/^sink tensorboard: no step yet, 48 rows wait, .*; failed \d+ times in a row: /m);
  for (const name of ['tensorboard', 'csv']) rmSync(join(run, name), { recursive: true });
  // As if the command had been killed before it wrote its final values.
  const summary = join(run, 'metrics', 'summary.json');
  const finals: unknown = JSON.parse(readFileSync(summary, 'utf8'));
  expect(finals).toHaveProperty(['warmup/final_loss']);
  rmSync(summary);
  await succeed('run', ...args);
  expectShown(run);
  expect(JSON.parse(readFileSync(summary, 'utf8'))).toEqual(finals);
});

it('a command that cannot record ends, and so does its thread', async () => {
  const events = playground.path('unrecorded', 'metrics/events.jsonl');
  mkdirSync(events, { recursive: true });
  const { code, stderr } = await memory3('run', ...playground.args('unrecorded'));
  expect(code).toBe(1);
  expect(stderr).toContain('EISDIR');
});

it('refuses what it cannot export, and says why', async () => {
  const [run, out] = [playground.path('killed'), join(playground.folder, 'mine')];
  mkdirSync(out);
  writeFileSync(join(out, 'precious.txt'), 'keep');
  await fail('usage_invalid', 2, 'track', 'export', '--run', run, '--to', 'tensorboard', '--out', out);
  await fail('usage_invalid', 2, 'track', 'export', '--run', run, '--to', 'csv', '--out', out);
  expect(readdirSync(out)).toEqual(['precious.txt']);
  await fail('usage_invalid', 2, 'track', 'export', '--to', 'csv');
  await fail('input_missing', 3, 'track', 'export', '--run', out, '--to', 'csv');
  await fail('artefact_missing', 5, 'track', 'export', ...playground.args('never'), '--to', 'csv');
  const { code, stderr } = await memory3('track', 'export', '--run', run, '--to', 'excel');
  expect(code, stderr).toBe(2);
});
