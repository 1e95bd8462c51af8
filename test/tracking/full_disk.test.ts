/** Sinks on a disk that fills up while they write. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import { Follower } from '../../src/tracking/follower.ts';
import { makeSink } from '../../src/tracking/sinks.ts';
import { readFolder } from './tensorboard/reader.ts';

const ROWS = 3000;
const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {} });

let root: string;
let disk: string;
let isMounted = false;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'memory3-full-'));
  disk = join(root, 'disk');
  mkdirSync(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], { stdio: 'ignore' });
    isMounted = true;
  } catch {
    isMounted = false;
  }
});
afterEach(async () => {
  if (isMounted) execFileSync('umount', ['-l', disk]);
  await rm(root, { recursive: true });
});

const csvSteps = (path: string) =>
  readFileSync(path, 'utf8')
    .split('\n')
    .slice(1, -1)
    .map((line) => Number(line.split(',')[0]));
const eventSteps = (path: string) =>
  readFolder(path)
    .slice(2)
    .map(({ step }) => step);

test.for([
  ['csv', csvSteps],
  ['tensorboard', eventSteps],
] as const)(
  '%s fails as it must, and has every row once when there is space again',
  async ([name, stepsIn], { skip }) => {
    if (!isMounted) skip('mounting a small tmpfs needs root');
    const folder = new RunFolder(join(root, 'run'));
    mkdirSync(folder.metrics, { recursive: true });
    const values = Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`train/value_${i}`, i]));
    const rows = Array.from({ length: ROWS }, (_, i) => JSON.stringify({ step: i + 1, 'time/unix_s': i, ...values }));
    writeFileSync(folder.metricsFile('warmup'), `${rows.join('\n')}\n`);
    const filler = join(disk, 'filler');
    writeFileSync(filler, Buffer.alloc(950_000));

    const sink = await makeSink(name, { root: folder.root, config }, { path: join(disk, 'sink') });
    const follower = new Follower(sink, folder);
    follower.begin(['warmup'], 0);
    expect(await follower.pump()).toBe(false);
    expect(follower.trouble.error).toContain('no space left on the device');
    follower.hurry();
    expect(await follower.pump()).toBe(false);
    rmSync(filler);
    expect(await follower.finish('finished')).toBe(true);
    expect(stepsIn(join(disk, 'sink'))).toEqual(rows.map((_, i) => i + 1));
  },
);
