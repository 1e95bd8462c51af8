import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  checkpointName,
  checkpointStates,
  latestCheckpoint,
  listCheckpoints,
  loadCheckpoint,
  removeAfter,
  retain,
  saveCheckpoint,
  verifyCheckpoint,
} from '../../src/checkpoint/checkpoint.ts';
import { weightsHash } from '../../src/checkpoint/safetensors.ts';
import { UserError } from '../../src/errors.ts';
import { cleanLeftovers } from '../../src/io/files.ts';
import { diskFullFrom, killedBefore } from '../io/faults.ts';
import { content } from './content.ts';

let root: string;
let folder: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'memory3-checkpoint-'));
  folder = join(root, 'checkpoints');
});
afterEach(() => rm(root, { recursive: true }));

const save = (step: number, value = step) => saveCheckpoint(folder, step, content(value));
const at = (step: number) => join(folder, checkpointName(step));
const steps = async () => (await listCheckpoints(folder)).map(({ step }) => step);

async function errorOf(action: Promise<unknown>): Promise<UserError> {
  const error = await action.catch((thrown: unknown) => thrown);
  if (!(error instanceof UserError)) throw new Error(`no user error: ${error}`);
  return error;
}

/** What a valid checkpoint was made of, or undefined when there is none. */
async function valueAt(step: number): Promise<number | undefined> {
  if (!existsSync(at(step))) return undefined;
  const { parameters, optimizer, state } = await loadCheckpoint(at(step));
  const value = parameters.get('model.norm.weight')?.data[0];
  expect(optimizer.get('m.model.norm.weight')?.data[0]).toBe(value);
  expect(state.tokensSeen).toBe(value);
  return value;
}

describe('save and load', () => {
  test('give back the same bits', async () => {
    const saved = content(7);
    const { path, state } = await saveCheckpoint(folder, 7, saved);
    expect(path).toBe(at(7));
    expect(readdirSync(path).sort()).toEqual(['model.safetensors', 'optimizer.safetensors', 'state.json']);
    const loaded = await loadCheckpoint(path);
    expect(loaded).toEqual({ path, parameters: saved.parameters, optimizer: saved.optimizer, state });
    expect(state).toEqual({ ...saved.state, version: 1, step: 7, weightsHash: weightsHash(saved.parameters) });
  });

  test('the optimiser can be left out', async () => {
    await save(1);
    rmSync(join(at(1), 'optimizer.safetensors'));
    expect((await errorOf(loadCheckpoint(at(1)))).code).toBe('artefact_missing');
    await save(1);
    const loaded = await loadCheckpoint(at(1), { optimizer: false });
    expect(loaded.optimizer.size).toBe(0);
    expect(loaded.parameters).toEqual(content(1).parameters);
  });

  test('a state that could not be loaded is not saved', async () => {
    const { state, ...tensors } = content(1);
    const bad = { ...state, bestValidation: { step: 1, loss: Number.NaN } };
    await expect(saveCheckpoint(folder, 1, { ...tensors, state: bad })).rejects.toThrow();
    expect(await steps()).toEqual([]);
  });

  test('stage two says where it comes from', async () => {
    const { state, ...tensors } = content(1);
    const second = {
      ...state,
      stage: 'continual' as const,
      parent: 'b'.repeat(64),
      bankVersion: 3,
      bankWriters: ['b'.repeat(64)],
    };
    await saveCheckpoint(folder, 1, { ...tensors, state: second });
    expect((await loadCheckpoint(at(1))).state).toMatchObject(second);
  });
});

describe('interrupted at any point', () => {
  test('a first checkpoint is there, whole, or not at all', async () => {
    const seen = new Set<number | undefined>();
    for (let point = 1; ; point++) {
      rmSync(folder, { recursive: true, force: true });
      const { killed } = await killedBefore(point, () => save(5));
      await cleanLeftovers(root);
      seen.add(await valueAt(5));
      if (existsSync(folder)) expect(readdirSync(folder).every((name) => name.startsWith('step-'))).toBe(true);
      if (!killed) break;
    }
    expect([...seen]).toEqual([undefined, 5]);
  });

  test('one of the same step is the old one or the new one, and the one before is untouched', async () => {
    const seen = new Set<number | undefined>();
    for (let point = 1; ; point++) {
      await save(4);
      await save(5, 50);
      const { killed } = await killedBefore(point, () => save(5, 51));
      await cleanLeftovers(root);
      seen.add(await valueAt(5));
      expect(await valueAt(4)).toBe(4);
      expect(readdirSync(folder)).toHaveLength(2);
      if (!killed) break;
    }
    expect([...seen]).toEqual([50, 51]);
  });

  test('deletion leaves each checkpoint whole or gone', async () => {
    for (let point = 1; ; point++) {
      for (const step of [1, 2, 3]) await save(step);
      const { killed } = await killedBefore(point, () => retain(folder, 1));
      await cleanLeftovers(root);
      for (const step of await steps()) expect(await valueAt(step)).toBe(step);
      expect((await steps())[0]).toBe(3);
      if (!killed) break;
    }
    expect(await steps()).toEqual([3]);
  });

  test('a full disk is a user error; older checkpoints stay and nothing is left over', async () => {
    await save(4);
    await save(5, 50);
    let points = 0;
    for (let point = 1; ; point++) {
      const { full, error } = await diskFullFrom(point, () => save(5, 51));
      if (!full) break;
      points += 1;
      expect((error as UserError).code).toBe('disk_full');
      expect(readdirSync(folder).sort()).toEqual([checkpointName(4), checkpointName(5)]);
      expect(await valueAt(4)).toBe(4);
      expect([50, 51]).toContain(await valueAt(5));
    }
    expect(points).toBeGreaterThan(10);
    expect(await valueAt(5)).toBe(51);
  });

  test('by SIGKILL, at moments of chance', async () => {
    const script = resolve(import.meta.dirname, 'save_child.ts');
    for (const delay of [3, 70]) {
      const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', script, folder], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(child.stdout!, 'data');
      await sleep(delay);
      child.kill('SIGKILL');
      await once(child, 'exit');
      await cleanLeftovers(root);
      const { newest, invalid } = await latestCheckpoint(folder);
      expect(invalid).toEqual([]);
      expect(newest).toBeDefined();
      for (const { path } of await listCheckpoints(folder)) await loadCheckpoint(path);
      expect(readdirSync(folder).every((name) => name.startsWith('step-'))).toBe(true);
    }
  }, 20_000);
});

describe('damage', () => {
  const files = ['model.safetensors', 'optimizer.safetensors', 'state.json'];

  test.each(files)('a flipped bit of %s is noticed wherever it is', async (name) => {
    await save(1);
    const path = join(at(1), name);
    const original = readFileSync(path);
    const stride = Math.max(1, Math.floor(original.byteLength / 60));
    for (let byte = 0; byte < original.byteLength; byte += stride) {
      const flipped = Buffer.from(original);
      flipped[byte]! ^= 1 << (byte % 7);
      // White space around JSON carries nothing.
      if (name === 'state.json' && isSameJson(flipped, original)) continue;
      writeFileSync(path, flipped);
      for (const check of [loadCheckpoint, verifyCheckpoint]) {
        const error = await errorOf(check(at(1)));
        expect(error.message).toContain(at(1));
        expect(error.action).toBeDefined();
      }
    }
  });

  test.each(files)('%s truncated or missing', async (name) => {
    await save(1);
    truncateSync(join(at(1), name), 20);
    for (const check of [loadCheckpoint, verifyCheckpoint]) {
      expect((await errorOf(check(at(1)))).code).toBe(name === 'state.json' ? 'file_corrupt' : 'file_truncated');
    }
    rmSync(join(at(1), name));
    expect((await errorOf(verifyCheckpoint(at(1)))).code).toBe('artefact_missing');
  });

  test('a file that grew, or of another checkpoint', async () => {
    await save(1);
    await save(2);
    writeFileSync(join(at(1), 'model.safetensors'), 'x', { flag: 'a' });
    expect((await errorOf(loadCheckpoint(at(1)))).code).toBe('file_corrupt');
    cpSync(join(at(2), 'model.safetensors'), join(at(1), 'model.safetensors'));
    expect((await errorOf(loadCheckpoint(at(1)))).code).toBe('file_corrupt');
  });

  test('another version, another kind of file, nothing at all', async () => {
    await save(1);
    const path = join(at(1), 'state.json');
    const document = JSON.parse(readFileSync(path, 'utf8')) as { state: { version: number } };
    document.state.version = 2;
    writeFileSync(path, JSON.stringify(document));
    expect((await errorOf(loadCheckpoint(at(1)))).code).toBe('version_unsupported');
    for (const foreign of ['[]', 'null', '{}', '{"state": {}}', '7']) {
      writeFileSync(path, foreign);
      expect((await errorOf(loadCheckpoint(at(1)))).code).toBe('file_corrupt');
    }
    expect((await errorOf(loadCheckpoint(at(9)))).code).toBe('artefact_missing');
  });
});

describe('latestCheckpoint', () => {
  test('of nothing', async () => {
    expect(await latestCheckpoint(folder)).toEqual({ invalid: [] });
  });

  test('passes over damaged ones and reports them; other names are none of its business', async () => {
    for (const step of [9, 10, 100, 200]) await save(step);
    truncateSync(join(at(200), 'model.safetensors'), 100);
    rmSync(join(at(100), 'state.json'));
    mkdirSync(join(folder, '.step-00000999.1.tmp'));
    mkdirSync(join(folder, 'step-final'));
    const { newest, invalid } = await latestCheckpoint(folder);
    expect(newest?.path).toBe(at(10));
    expect(newest?.state.step).toBe(10);
    expect(invalid.map(({ path, error }) => [path, error.code])).toEqual([
      [at(200), 'file_truncated'],
      [at(100), 'artefact_missing'],
    ]);
  });
});

describe('checkpointStates', () => {
  test('lists the whole ones, newest first, and passes over the others', async () => {
    for (const step of [1, 2, 3]) await save(step);
    truncateSync(join(at(2), 'model.safetensors'), 10);
    expect((await checkpointStates(folder)).map(({ step }) => step)).toEqual([3, 1]);
    expect(await checkpointStates(join(root, 'nothing'))).toEqual([]);
  });
});

describe('retention', () => {
  test('keeps the newest and the best', async () => {
    for (const step of [1, 2, 3, 4, 5]) await save(step);
    expect(await retain(folder, 2, 2)).toEqual([at(3), at(1)]);
    expect(await steps()).toEqual([5, 4, 2]);
    expect(await retain(folder, 2, 5)).toEqual([at(2)]);
    expect(await retain(folder, 3)).toEqual([]);
  });

  test('a damaged one does not count as kept', async () => {
    for (const step of [1, 2, 3]) await save(step);
    truncateSync(join(at(3), 'model.safetensors'), 0);
    await retain(folder, 1);
    expect(await steps()).toEqual([3, 2]);
    expect((await latestCheckpoint(folder)).newest?.path).toBe(at(2));
  });

  test('removeAfter drops an abandoned course', async () => {
    for (const step of [1, 2, 3]) await save(step);
    expect(await removeAfter(folder, 1)).toEqual([at(3), at(2)]);
    expect(await steps()).toEqual([1]);
  });
});

function isSameJson(a: Buffer, b: Buffer): boolean {
  try {
    return JSON.stringify(JSON.parse(a.toString('utf8'))) === JSON.stringify(JSON.parse(b.toString('utf8')));
  } catch {
    return false;
  }
}
