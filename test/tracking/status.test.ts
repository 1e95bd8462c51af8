import { readdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import {
  BEAT,
  describeStatus,
  judgeState,
  type RunStatus,
  readStatus,
  writeStatus,
} from '../../src/tracking/status.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-status-'));
});
afterEach(() => rm(folder, { recursive: true }));

const status: RunStatus = {
  version: 1,
  state: 'running',
  command: 'run',
  pid: 7,
  host: 'here',
  startedAt: 1_700_000_000,
  beatAt: 1_700_000_100,
  sinks: [
    { name: 'csv', place: '/x/metrics.csv', step: 5, waiting: 0, failures: 0 },
    { name: 'wandb', place: '', step: -1, waiting: 9, failures: 3, error: 'no network' },
  ],
};

test('is read as it was written, and nothing is left beside it', async () => {
  const path = join(folder, 'status.json');
  expect(await readStatus(path)).toBeUndefined();
  await writeStatus(path, status);
  await writeStatus(path, { ...status, pid: 8 });
  expect(await readStatus(path)).toEqual({ ...status, pid: 8 });
  expect(readdirSync(folder)).toEqual(['status.json']);
});

test.each(['', '{', '{"version":2}', '[]'])('the file %j is damaged', async (text) => {
  const path = join(folder, 'status.json');
  writeFileSync(path, text);
  const error = await readStatus(path).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).code).toBe('file_corrupt');
});

test('a run that says it goes on but no longer beats has crashed', () => {
  const at = (seconds: number, state = status.state) => judgeState({ ...status, state }, status.beatAt + seconds);
  expect(judgeState(undefined)).toBe('unknown');
  expect(at(0)).toBe('running');
  expect(at(BEAT.crashedAfter)).toBe('running');
  expect(at(BEAT.crashedAfter + 1)).toBe('crashed');
  expect(at(1e9, 'finished')).toBe('finished');
  expect(at(1e9, 'stopped')).toBe('stopped');
  expect(at(1e9, 'failed')).toBe('failed');
});

test('in words', () => {
  expect(describeStatus(undefined)).toBe('state: unknown, no command has worked on the run yet');
  expect(describeStatus(status, status.beatAt + 60)).toBe(
    [
      'state: crashed',
      'command: memory3 run, process 7 on here, since 2023-11-14T22:13:20.000Z',
      'last beat: 60 s ago',
      'sink csv: up to step 5, 0 rows wait, /x/metrics.csv',
      'sink wandb: no step yet, 9 rows wait; failed 3 times in a row: no network',
    ].join('\n'),
  );
  expect(describeStatus({ ...status, sinks: [] }, status.beatAt)).toMatch(
    /^state: running\n.*\nlast beat: 0 s ago\nsinks: none$/,
  );
});
