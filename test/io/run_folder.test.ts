import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { lockRunFolder, RunFolder, type RunLock } from '../../src/io/run_folder.ts';
import { diskFullFrom, intercept } from './faults.ts';

let root: string;
let locks: RunLock[];
let children: ChildProcess[];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'memory3-run-'));
  locks = [];
  children = [];
});
afterEach(async () => {
  for (const lock of locks) lock.release();
  for (const child of children) child.kill('SIGKILL');
  await rm(root, { recursive: true });
});

async function take(folder = root): Promise<RunLock> {
  const lock = await lockRunFolder(folder);
  locks.push(lock);
  return lock;
}

async function refusal(): Promise<UserError> {
  const error = await take().catch((thrown: unknown) => thrown);
  if (!(error instanceof UserError)) throw new Error(`not refused: ${error}`);
  expect(error.code).toBe('run_locked');
  return error;
}

/** A lock file as this process writes it, with some fields changed. */
async function plantLock(changes: Record<string, unknown>): Promise<string> {
  const lock = await lockRunFolder(root);
  const owner = JSON.parse(readFileSync(lock.path, 'utf8')) as Record<string, unknown>;
  lock.release();
  writeFileSync(lock.path, JSON.stringify({ ...owner, ...changes }));
  return lock.path;
}

/** Starts `lock_child.ts` and waits for what it says first. */
async function child(what: string, at = 0): Promise<{ process: ChildProcess; said: string }> {
  const script = resolve(import.meta.dirname, 'lock_child.ts');
  const started = spawn(process.execPath, ['--import', 'tsx', script, root, what, String(at)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.push(started);
  const [said] = (await once(createInterface({ input: started.stdout }), 'line')) as [string];
  return { process: started, said };
}

/** A promise and the function that fulfils it. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((done) => {
    open = done;
  });
  return { opened, open };
}

test('the paths of a run', () => {
  const run = new RunFolder('runs/first');
  expect(run.root).toBe(resolve('runs/first'));
  expect(run.config).toBe(join(run.root, 'config.yaml'));
  expect(run.checkpoints('warmup')).toBe(join(run.root, 'warmup', 'checkpoints'));
  expect(run.metricsFile('continual')).toBe(join(run.root, 'metrics', 'continual.jsonl'));
});

describe('lockRunFolder in one process', () => {
  test('makes the folder; a second taker is refused until the release', async () => {
    const folder = join(root, 'new');
    const first = await take(folder);
    await expect(lockRunFolder(folder)).rejects.toThrow(`process ${process.pid} `);
    first.release();
    first.release();
    const second = await take(folder);
    expect(readdirSync(folder)).toEqual([basename(second.path)]);
  });

  test('cleans what a killed process left', async () => {
    mkdirSync(join(root, 'warmup'));
    writeFileSync(join(root, 'warmup', '.x.1.tmp'), '');
    expect((await take()).cleaned).toEqual([join(root, 'warmup', '.x.1.tmp')]);
  });

  test.each([
    { name: 'a process id that was re-used', changes: { start: '1' } },
    { name: 'a process id that no longer exists', changes: { pid: 2 ** 22 + 1 } },
    { name: 'a machine that was restarted', changes: { boot: 'another' } },
  ])('takes over from $name', async ({ changes }) => {
    await plantLock(changes);
    await take();
    expect((await refusal()).message).toContain(`ps -fp ${process.pid}`);
  });

  test.each([
    { name: 'another machine', changes: { machine: 'elsewhere', pid: 77 } },
    { name: 'another container', changes: { namespace: 'pid:[1]', pid: 77 } },
  ])('refuses a holder on $name, and says which file to delete', async ({ changes }) => {
    const path = await plantLock(changes);
    const { message } = await refusal();
    expect(message).toContain('process 77');
    expect(message).toContain(`delete ${path}`);
    await rm(path);
    await take();
  });

  test.each(['{"pid": 3', '[]', 'null', '{"pid": "x"}'])('refuses a lock file that holds %j', async (content) => {
    writeFileSync(join(root, '.lock-4'), content);
    expect((await refusal()).message).toContain(join(root, '.lock-4'));
  });

  test('of many takers at once exactly one wins, from nothing, a dead holder and a released lock', async () => {
    for (let round = 0; round < 12; round++) {
      if (round % 3 === 1) await plantLock({ start: '1' });
      const results = await Promise.allSettled(Array.from({ length: 6 }, () => take()));
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      for (const lock of locks.splice(0)) lock.release();
      if (round % 3 === 0) await rm(root, { recursive: true }).then(() => mkdirSync(root));
    }
  });

  test('a taker that slept while others took, released and took again does not win', async () => {
    await plantLock({ start: '1' });
    const reached = gate();
    const asleep = gate();
    let opens = 0;
    const { error } = await intercept(
      async () => {
        const slow = refusal();
        await reached.opened;
        const first = await take();
        first.release();
        const second = await take();
        asleep.open();
        await slow;
        expect(second.path).not.toBe(first.path);
        expect(readdirSync(root)).toEqual([basename(second.path)]);
      },
      // The slow one has looked at the dead holder's file and is about to write its own.
      async (operation) => {
        if (operation !== 'open' || ++opens > 1) return;
        reached.open();
        await asleep.opened;
      },
    );
    expect(error).toBeUndefined();
    await refusal();
  });

  test('a full disk is a user error and leaves no lock', async () => {
    for (let at = 1; ; at++) {
      const { full, error } = await diskFullFrom(at, () => take());
      if (!full) break;
      expect((error as UserError).code).toBe('disk_full');
      expect(readdirSync(root)).toEqual([]);
    }
    await refusal();
  });
});

describe('lockRunFolder between processes', () => {
  test('a living holder is refused by pid; killed with SIGKILL it is taken over', async () => {
    const { process: holder, said } = await child('hold');
    expect(said).toBe('held');
    expect((await refusal()).message).toContain(`process ${holder.pid} `);
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    await take();
  });

  test.each(['end', 'fail'])('a process that ends by "%s" releases', async (what) => {
    const { process: holder } = await child(what);
    if (holder.exitCode === null) await once(holder, 'exit');
    expect(holder.exitCode).toBe(what === 'fail' ? 1 : 0);
    const [file] = readdirSync(root);
    expect(readFileSync(join(root, file!), 'utf8')).toBe('');
  });

  test('of several processes that find a dead holder one wins', async () => {
    await plantLock({ start: '1' });
    const at = Date.now() + 1500;
    const results = await Promise.all([1, 2, 3].map(() => child('hold', at)));
    expect(results.map(({ said }) => said).sort()).toEqual(['held', 'refused', 'refused']);
  });
});
