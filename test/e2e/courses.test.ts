/** Runs that take another course than from their begin to their end: every sink shows the rows that count, each once. */

import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { readFolder } from '../tracking/tensorboard/reader.ts';
import { historyOf, readFile } from '../tracking/wandb/reader.ts';
import { checkpoints, Playground, steps, succeed } from './support.ts';

let playground: Playground;
beforeAll(() => {
  playground = new Playground({
    warmup: { steps: 8, checkpointEvery: 3, keepCheckpoints: 9 },
    continual: { steps: 6, checkpointEvery: 2, keepCheckpoints: 9 },
    tracking: { sinks: ['tensorboard', 'csv', 'wandb'] },
  });
});
afterAll(() => playground.remove());

/** The losses of the run by its own files. */
function lossesOf(run: string): number[] {
  return ['warmup', 'continual'].flatMap((stage) => {
    const path = join(run, 'metrics', `${stage}.jsonl`);
    const lines = existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : [];
    return lines.map((line) => (JSON.parse(line) as Record<string, number>)['train/loss']!);
  });
}

function expectShown(name: string, count: number): void {
  const run = playground.path(name);
  const losses = lossesOf(run);
  expect(losses).toHaveLength(count);
  const [header, ...table] = readFileSync(join(run, 'csv', 'metrics.csv'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.split(','));
  expect(table.map(([step]) => Number(step))).toEqual(steps(count));
  expect(table.map((cells) => Number(cells[header!.indexOf('train/loss')]))).toEqual(losses);
  const events = readFolder(join(run, 'tensorboard')).flatMap(({ step, values }) =>
    values.flatMap(({ tag, number }) => (tag === 'train/loss' ? [[step, number]] : [])),
  );
  expect(events).toEqual(losses.map((loss, i) => [i + 1, Math.fround(loss)]));
  const [folder, ...others] = readdirSync(join(run, 'wandb'));
  expect(others).toEqual([]);
  const history = historyOf(readFile(join(run, 'wandb', folder!, `run-${folder!.split('-').at(-1)}.wandb`)));
  expect(history.map(({ step, values }) => [step, Number(values['train/loss'])])).toEqual(
    losses.map((loss, i) => [i + 1, loss]),
  );
}

it('without a first stage', async () => {
  const args = playground.args('plain', 'warmup.steps=0');
  for (let i = 0; i < 2; i++) {
    await succeed('run', ...args);
    expectShown('plain', 6);
  }
});

it('begun anew after its checkpoints were deleted, then gone on with from earlier ones', async () => {
  const args = playground.args('anew');
  const run = playground.path('anew');
  await succeed('run', ...args);
  for (const stage of ['warmup', 'continual']) rmSync(join(run, stage, 'checkpoints'), { recursive: true });
  await succeed('warmup', ...args);
  expectShown('anew', 8);
  await succeed('run', ...args);
  expectShown('anew', 14);
  await succeed('continual', ...args, '--resume', checkpoints(run, 'continual')[0]!);
  expectShown('anew', 14);
});

it('with a longer first stage after the second is finished', async () => {
  await succeed('run', ...playground.args('longer'));
  const args = playground.args('longer', 'warmup.steps=11');
  await succeed('warmup', ...args, '--accept-changes');
  await succeed('run', ...args);
  expectShown('longer', 17);
});

it('with a sink that is left out while the run goes back to a checkpoint, and taken in again', async () => {
  const args = playground.args('left');
  const run = playground.path('left');
  await succeed('run', ...args);
  const first = checkpoints(run, 'continual')[0]!;
  // Another learning rate gives the steps that are made again other losses.
  const changed = [...playground.args('left', 'continual.learningRate.peak=0.02'), '--accept-changes'];
  const before = lossesOf(run);
  await succeed('continual', ...changed, '--set', 'tracking.sinks=[]', '--resume', first);
  expect(lossesOf(run)).not.toEqual(before);
  await succeed('run', ...changed);
  expectShown('left', 14);
});
