/** Runs that are stopped or killed and go on end with the bits of a run that was never disturbed. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PURPOSE, randomUniform } from '../../src/random.ts';
import { checkpoints, fingerprint, memory3, Playground, Running, rows, steps, succeed } from './support.ts';

/** More steps than one signal takes to arrive, and checkpoints that fall on none of the steps it arrives at. */
const STAGE = { steps: 24, validateEvery: 5, checkpointEvery: 9, keepCheckpoints: 1 };
const CHANGES = {
  warmup: STAGE,
  continual: {
    ...STAGE,
    plainShare: 0.2,
    refreshEvery: 8,
    refreshShare: 0.6,
    refreshBelow: 0.9999,
    growth: { initialShare: 0.25, every: 5, share: 0.25 },
  },
};

let playground: Playground;
let whole: Record<string, unknown>;
let seconds: number;
beforeAll(async () => {
  playground = new Playground(CHANGES);
  const started = performance.now();
  await succeed('run', ...playground.args('whole'));
  seconds = (performance.now() - started) / 1000;
  whole = fingerprint(playground.path('whole'));
});
afterAll(() => playground.remove());

/** Starts the run, sends the signal when the messages match, and waits for the end. */
async function interrupted(args: string[], pattern: RegExp, signal: NodeJS.Signals) {
  const process = new Running(['run', ...args]);
  await process.until(pattern);
  process.kill(signal);
  return await process.outcome;
}

it.concurrent('SIGINT saves a checkpoint in each stage; the resumed run ends with the same bits', async () => {
  const args = playground.args('stopped');
  const run = playground.path('stopped');
  for (const stage of ['warmup', 'continual'] as const) {
    const { code, stderr } = await interrupted(args, new RegExp(`${stage} step 10: validation`), 'SIGINT');
    expect(code, stderr).toBe(130);
    expect(stderr).toContain('SIGINT: stopping at the next safe point, in training after this step with a checkpoint');
    const saved = Number(/step-(\d+)$/.exec(checkpoints(run, stage).at(-1) ?? '')?.[1]);
    expect(saved).toBeGreaterThanOrEqual(10);
    expect(saved).toBeLessThan(STAGE.steps);
    expect(rows(run, stage).map(({ step }) => step)).toEqual(steps(saved));
  }
  await succeed('run', ...args);
  expect(rows(run, 'continual').map(({ step }) => step)).toEqual(steps(STAGE.steps));
  expect(fingerprint(run)).toEqual(whole);
});

describe.concurrent('SIGKILL', () => {
  const KILLS = 3;

  it('at random moments loses nothing but time', async () => {
    const seed = Date.now() % 2 ** 31;
    const args = playground.args('killed');
    const moments: string[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      const process = new Running(['run', ...args]);
      const delay = 1000 * (0.3 + randomUniform(seed, PURPOSE.test, 0, kill)) * Math.min(seconds / KILLS, 2);
      await new Promise((next) => setTimeout(next, delay));
      process.kill('SIGKILL');
      const { stderr } = await process.outcome;
      moments.push(`${Math.round(delay)} ms: ${stderr.trimEnd().split('\n').at(-1)}`);
    }
    const { code, stderr } = await memory3('run', ...args);
    const story = `seed ${seed}\n${moments.join('\n')}\n${stderr}`;
    expect(code, story).toBe(0);
    expect(fingerprint(playground.path('killed')), story).toEqual(whole);
    expect(readdirSync(playground.path('killed')).filter((name) => /\.tmp$|\.old$/.test(name))).toEqual([]);
  });

  it('inside both stages leaves a run that goes on from the last checkpoint', async () => {
    const args = playground.args('killed-late');
    for (const stage of ['warmup', 'continual'] as const) {
      const { signal } = await interrupted(args, new RegExp(`${stage} step 15: validation`), 'SIGKILL');
      expect(signal).toBe('SIGKILL');
    }
    const { stderr } = await succeed('run', ...args);
    expect(stderr).toMatch(/continual: going on from step (9|18) of 24/);
    expect(fingerprint(playground.path('killed-late'))).toEqual(whole);
  });
});

it.concurrent('online mode resumes with the same bits', async () => {
  const online = ['continual.memories=online', 'warmup.steps=3', 'continual.steps=12'];
  const args = playground.args('online-stopped', ...online);
  const { code } = await interrupted(args, /continual step 5: validation/, 'SIGINT');
  expect(code).toBe(130);
  await Promise.all([succeed('run', ...args), succeed('run', ...playground.args('online-whole', ...online))]);
  expect(fingerprint(playground.path('online-stopped'))).toEqual(fingerprint(playground.path('online-whole')));
});

it.concurrent('--resume takes a checkpoint by path, and never refuses a run that has begun', async () => {
  const args = playground.args('whole');
  const never = await memory3('run', ...args, '--resume', 'never');
  expect(never.code).toBe(3);
  expect(never.stderr).toContain('the warmup stage of this run has begun already');
  const [last = ''] = checkpoints(playground.path('whole'), 'warmup');
  const foreign = await memory3('continual', ...args, '--resume', last);
  expect(foreign.code).toBe(5);
  expect(foreign.stderr).toContain('a checkpoint of the warmup stage, not of continual');
  const missing = await memory3('warmup', ...args, '--resume', join(playground.folder, 'nowhere'));
  expect(missing.code, missing.stderr).toBe(5);
});
