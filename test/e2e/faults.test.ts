/** What goes wrong is named with the file and what to do; what was saved stays usable. */

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  checkpoints,
  fail,
  filesBelow,
  fingerprint,
  flipBit,
  halve,
  memory3,
  Playground,
  Running,
  sha256,
  succeed,
} from './support.ts';

let playground: Playground;
let original: Record<string, unknown>;
beforeAll(async () => {
  playground = new Playground();
  await succeed('run', ...playground.args('original'));
  original = fingerprint(playground.path('original'));
});
afterAll(() => playground.remove());

/** A copy of the finished run under another name, as if it had been trained so. */
function copy(name: string): { args: string[]; run: string } {
  const run = playground.path(name);
  cpSync(playground.path('original'), run, { recursive: true, preserveTimestamps: true });
  const config = join(run, 'config.yaml');
  writeFileSync(config, readFileSync(config, 'utf8').replace('name: original', `name: ${name}`));
  return { args: playground.args(name), run };
}

describe.concurrent('the configuration', () => {
  it('with five errors gives five lines, each with its place', async () => {
    const path = playground.write('wrong.yaml', {
      extends: playground.config,
      name: 'a b',
      model: { numHeads: 3, kvHeads: 2, numLayrs: 2 },
      warmup: { steps: 'many' },
      data: { validationShare: 2 },
    });
    const message = await fail('config_invalid', 2, 'run', '-c', path);
    const lines = message.split('\n').filter((line) => line.includes('wrong.yaml:'));
    expect(lines, message).toHaveLength(5);
    expect(lines[0]).toMatch(/wrong\.yaml:\d+:\d+ /);
    expect(message).toContain('did you mean "numLayers"?');
    expect(message).toContain('2 does not divide model.numHeads (3)');
  });

  it('that differs from the one the run began with is refused, unless the change is accepted', async () => {
    const { args, run } = copy('changed');
    const more = [...args, '--set', 'warmup.steps=7', '--set', 'seed=5'];
    const message = await fail('config_invalid', 2, 'warmup', ...more);
    expect(message).toMatch(/other values of: .*warmup\.steps/);
    expect(message).toContain('seed');
    expect(message).toContain('--accept-changes');
    expect(checkpoints(run, 'warmup').at(-1)).toMatch(/step-0*6$/);
    await succeed('warmup', ...args, '--set', 'warmup.steps=7', '--accept-changes');
    expect(checkpoints(run, 'warmup').at(-1)).toMatch(/step-0*7$/);
    // The accepted values are the run's own from now on; what decides nothing may differ at any time.
    await succeed('warmup', ...args, '--set', 'warmup.steps=7', '--set', 'generate.maxTokens=3');
  });

  it('of an engine that is not here is refused', async () => {
    await fail(
      'engine_unavailable',
      6,
      'warmup',
      ...copy('engine').args,
      '--set',
      'engine=tensorflow',
      '--accept-changes',
    );
  });

  it('with unusable questions is refused before the training', async () => {
    const missing = join(playground.folder, 'nothing.jsonl');
    const message = await fail(
      'input_missing',
      3,
      'run',
      ...playground.args('early', `evaluation.questions=${missing}`),
    );
    expect(message).toContain(missing);
    await fail('input_invalid', 3, 'run', ...playground.args('early', `evaluation.questions=${playground.folder}`));
    expect(checkpoints(playground.path('early'), 'warmup')).toEqual([]);
  });
});

it.concurrent('a second process is refused while the first uses the run folder', async () => {
  const args = playground.args('busy', 'warmup.steps=500');
  await succeed('data', 'build', ...args);
  const first = new Running(['warmup', ...args]);
  await first.until(/warmup step 3: validation/);
  const message = await fail('run_locked', 7, 'warmup', ...args);
  expect(message).toContain('in use by process');
  first.kill('SIGINT');
  expect((await first.outcome).code).toBe(130);
  await succeed('data', 'build', ...args);
});

describe.concurrent('damaged checkpoints', () => {
  it('are named and passed over; the older ones lead to the same bits', async () => {
    const { args, run } = copy('damaged');
    const cut = join(checkpoints(run, 'warmup').at(-1)!, 'model.safetensors');
    const flipped = join(checkpoints(run, 'continual').at(-1)!, 'optimizer.safetensors');
    halve(cut);
    flipBit(flipped, 5000);
    const { stderr } = await succeed('run', ...args);
    expect(stderr).toContain(`passed over a damaged checkpoint: ${cut}`);
    expect(stderr).toContain(`passed over a damaged checkpoint: ${flipped}`);
    expect(stderr).toContain('continual: going on from step 3 of 6');
    expect(fingerprint(run)).toEqual(original);
  });

  it('are refused when they are named, or when none is whole', async () => {
    const { args, run } = copy('all-damaged');
    for (const path of checkpoints(run, 'warmup')) flipBit(join(path, 'model.safetensors'), 40_000);
    const [first = ''] = checkpoints(run, 'warmup');
    expect(await fail('file_corrupt', 4, 'warmup', ...args, '--resume', first)).toContain(first);
    const message = await fail('file_corrupt', 4, 'warmup', ...args);
    expect(message).toContain('every checkpoint of the warmup stage is damaged');
    expect(checkpoints(run, 'warmup')).toHaveLength(2);
  });
});

describe.concurrent('damaged data', () => {
  const shard = (run: string): string =>
    filesBelow(join(run, 'data/tokens/train')).find((path) => path.endsWith('.arrow'))!;
  const more = ['--set', 'warmup.steps=9', '--accept-changes'];

  it('a truncated shard is named, and `run` builds it anew', async () => {
    const { args, run } = copy('short-shard');
    const before = sha256(shard(run));
    halve(shard(run));
    const message = await fail('file_truncated', 4, 'warmup', ...args);
    expect(message).toContain(shard(run));
    expect(message).toContain('memory3 data build');
    await succeed('data', 'build', ...args);
    expect(sha256(shard(run))).toBe(before);
    await succeed('warmup', ...args);
  });

  it('a flipped bit in a shard is found by `data verify`', async () => {
    const { args, run } = copy('flipped-shard');
    flipBit(shard(run), Math.floor(statSync(shard(run)).size / 2));
    expect(await fail('file_corrupt', 4, 'data', 'verify', ...args)).toContain(shard(run));
  });

  it('a missing tokenizer is named', async () => {
    const { args, run } = copy('no-tokenizer');
    const tokenizer = join(run, 'data/tokenizer.json');
    rmSync(tokenizer);
    for (const command of [
      ['warmup', ...args, ...more],
      ['ask', 'bada has color', ...args],
    ]) {
      const { code, stderr } = await memory3(...command);
      expect(stderr).toContain(tokenizer);
      expect(stderr).toContain('→');
      expect(code, stderr).toBe(5);
    }
  });

  it('a corpus that is missing is named', async () => {
    const path = join(playground.folder, 'elsewhere.jsonl');
    const message = await fail(
      'input_missing',
      3,
      'run',
      ...playground.args('nowhere', `data.sources=[{path: ${path}}]`),
    );
    expect(message).toContain(path);
  });
});

describe.concurrent('a damaged bank', () => {
  it.each(['rows.bin', 'index.bin', 'memories.arrow'])('a flipped bit in %s is named', async (name) => {
    const { args, run } = copy(`bank-${name}`);
    const { version } = JSON.parse(readFileSync(join(run, 'bank/CURRENT'), 'utf8'));
    const { segments } = JSON.parse(readFileSync(join(run, `bank/manifest-${version}.json`), 'utf8'));
    const file = join(run, `bank/segment-${segments[0].id}`, name);
    flipBit(file, Math.floor(statSync(file).size / 2));
    const message = await fail('file_corrupt', 4, 'bank', 'verify', ...args);
    expect(message).toContain(file);
    expect(message).toContain('→');
    if (name === 'rows.bin') expect(await fail('file_corrupt', 4, 'eval', ...args)).toContain(file);
  });

  it('a truncated segment is named', async () => {
    const { args, run } = copy('bank-short');
    for (const path of filesBelow(join(run, 'bank'))) if (path.endsWith('rows.bin')) halve(path);
    const { code, stderr } = await memory3('ask', 'bada has color', ...args);
    expect(stderr).toContain('[file_truncated]');
    expect(stderr).toContain('rows.bin');
    expect(code).toBe(4);
  });

  it('that another checkpoint wrote is refused', async () => {
    const { args, run } = copy('foreign');
    const [warmup = ''] = checkpoints(run, 'warmup');
    const message = await fail('artefact_mismatch', 5, 'ask', 'bada has color', ...args, '--checkpoint', warmup);
    expect(message).toContain(join(run, 'bank'));
    await succeed('ask', 'bada has color', ...args, '--checkpoint', warmup, '--no-memory');
  });
});

/** Mounts a small file system; undefined where that is not possible. */
function smallDisk(path: string, size: string): (() => void) | undefined {
  mkdirSync(path, { recursive: true });
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  return () => {
    execFileSync('umount', ['-l', path]);
  };
}

it.concurrent('a full disk ends the run with its own code, and the last checkpoint leads on', async ({ skip }) => {
  const disk = join(playground.folder, 'disk');
  const unmount = smallDisk(disk, '8m');
  if (unmount === undefined) skip('mounting a small tmpfs needs root');
  try {
    const args = [...playground.args('original'), '--set', `runsFolder=${disk}`];
    const run = join(disk, 'original');
    await succeed('data', 'build', ...args);
    const filler = join(disk, 'filler');
    const { bavail, bsize } = statfsSync(disk);
    // Space for one checkpoint of about 180 kB, not for two.
    writeFileSync(filler, Buffer.alloc(bavail * bsize - 300_000));
    const message = await fail('disk_full', 8, 'run', ...args);
    expect(message).toContain(disk);
    expect(message).toContain('--resume auto');
    expect(checkpoints(run, 'warmup').map((path) => path.slice(-4))).toEqual(['0003']);
    rmSync(filler);
    const { stderr } = await succeed('run', ...args);
    expect(stderr).toContain('warmup: going on from step 3 of 6');
    expect(fingerprint(run)).toEqual(original);
  } finally {
    unmount?.();
  }
});
