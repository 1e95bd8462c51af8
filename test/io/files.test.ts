import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, type open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UserError } from '../../src/errors.ts';
import {
  cleanLeftovers,
  diskError,
  makeFolder,
  readJson,
  replaceFolder,
  sha256,
  sha256File,
  temporaryName,
  writeAll,
  writeFileAtomic,
  writeJsonAtomic,
} from '../../src/io/files.ts';
import { diskFullFrom, killedBefore } from './faults.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-files-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function codeOf(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof UserError ? error.code : `no user error: ${error}`;
}

describe('writeFileAtomic', () => {
  test('writes text, bytes and streams, in folders that it makes', async () => {
    const path = join(folder, 'a', 'b', 'file');
    await writeFileAtomic(path, 'text');
    expect(readFileSync(path, 'utf8')).toBe('text');
    await writeFileAtomic(path, new Uint8Array([1, 2, 3]));
    expect([...readFileSync(path)]).toEqual([1, 2, 3]);
    await writeFileAtomic(path, [new Uint8Array([4]), new Uint8Array([5, 6])]);
    expect([...readFileSync(path)]).toEqual([4, 5, 6]);
    expect(readdirSync(join(folder, 'a', 'b'))).toEqual(['file']);
  });

  test('killed at any point it leaves the old file or the new one', async () => {
    const path = join(folder, 'deep', 'file');
    const outcomes = new Set<string>();
    for (let at = 1; ; at++) {
      await writeFileAtomic(path, 'old');
      const { killed } = await killedBefore(at, () => writeFileAtomic(path, [Buffer.from('ne'), Buffer.from('w')]));
      outcomes.add(readFileSync(path, 'utf8'));
      await cleanLeftovers(folder);
      expect(readdirSync(join(folder, 'deep'))).toEqual(['file']);
      if (!killed) break;
    }
    expect([...outcomes]).toEqual(['old', 'new']);
  });

  test('a source that fails leaves the old file and nothing else', async () => {
    const path = join(folder, 'file');
    await writeFileAtomic(path, 'old');
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(10);
      throw new Error('source');
    }
    await expect(writeFileAtomic(path, failing())).rejects.toThrow('source');
    expect(readFileSync(path, 'utf8')).toBe('old');
    expect(readdirSync(folder)).toEqual(['file']);
  });

  test('a full disk is a user error and leaves the old file', async () => {
    const path = join(folder, 'file');
    await writeFileAtomic(path, 'old');
    for (let at = 1; ; at++) {
      const { full, error } = await diskFullFrom(at, () => writeFileAtomic(path, [Buffer.from('new')]));
      if (!full) break;
      expect((error as UserError).code).toBe('disk_full');
      expect(readdirSync(folder)).toEqual(['file']);
    }
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  test.runIf(existsSync('/dev/full'))('the system’s own "no space left" is recognised', async () => {
    const path = join(folder, 'file');
    symlinkSync('/dev/full', temporaryName(path));
    expect(await codeOf(writeFileAtomic(path, 'text'))).toBe('disk_full');
    expect(readdirSync(folder)).toEqual([]);
  });
});

test('diskError passes other errors unchanged', () => {
  const error = Object.assign(new Error('denied'), { code: 'EACCES' });
  expect(diskError(error, 'file')).toBe(error);
});

test('writeAll goes on where a write stopped early', async () => {
  const written: number[] = [];
  const handle = {
    async write(bytes: Uint8Array, offset: number, length: number) {
      const bytesWritten = Math.min(3, length);
      written.push(...bytes.subarray(offset, offset + bytesWritten));
      return { bytesWritten };
    },
  } as unknown as Awaited<ReturnType<typeof open>>;
  await writeAll(handle, new Uint8Array([1, 2, 3, 4, 5, 6, 7]));
  expect(written).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test('makeFolder makes parents, is content with what is there, and takes relative paths', async () => {
  const path = join(folder, 'a', 'b', 'c');
  await makeFolder(path);
  await makeFolder(path);
  expect(existsSync(path)).toBe(true);
  const before = process.cwd();
  try {
    process.chdir(folder);
    await makeFolder('x/y');
  } finally {
    process.chdir(before);
  }
  expect(existsSync(join(folder, 'x', 'y'))).toBe(true);
});

describe('replaceFolder', () => {
  const make = (path: string, content: string) => {
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'content'), content);
  };
  const content = () => readFileSync(join(folder, 'target', 'content'), 'utf8');

  test.each([
    { start: 'nothing', outcomes: ['nothing', 'new'] },
    { start: 'old', outcomes: ['old', 'new'] },
    { start: 'old, and a leftover of an earlier death', outcomes: ['old', 'new'] },
  ])('from $start, killed at any point, it leaves the old folder or the new one', async ({ start, outcomes }) => {
    const target = join(folder, 'target');
    const seen = new Set<string>();
    for (let at = 1; ; at++) {
      await rm(target, { recursive: true, force: true });
      if (start !== 'nothing') make(target, 'old');
      if (start.includes('leftover')) make(join(folder, '.target.old'), 'older');
      const temporary = temporaryName(target);
      make(temporary, 'new');
      const { killed } = await killedBefore(at, () => replaceFolder(temporary, target));
      await cleanLeftovers(folder);
      seen.add(existsSync(target) ? content() : 'nothing');
      expect(readdirSync(folder).filter((name) => name !== 'target')).toEqual([]);
      if (!killed) break;
    }
    expect([...seen].sort()).toEqual([...outcomes].sort());
  });

  test('puts the old folder back when the new one cannot be moved', async () => {
    make(join(folder, 'target'), 'old');
    await expect(replaceFolder(join(folder, 'absent'), join(folder, 'target'))).rejects.toThrow('ENOENT');
    expect(content()).toBe('old');
  });
});

test('cleanLeftovers removes temporary names at any depth and nothing else', async () => {
  const paths = ['keep.tmp', '.hidden', 'sub/data', '.x.12.tmp', 'sub/.y.tmp', 'sub/.z.1.tmp/inner', '.gone.old/inner'];
  for (const path of paths) {
    mkdirSync(join(folder, path, '..'), { recursive: true });
    writeFileSync(join(folder, path), path);
  }
  const elsewhere = await mkdtemp(join(tmpdir(), 'memory3-elsewhere-'));
  writeFileSync(join(elsewhere, '.precious.tmp'), '');
  symlinkSync(elsewhere, join(folder, 'link'));
  const cleaned = await cleanLeftovers(folder);
  expect(cleaned).toHaveLength(4);
  expect(readdirSync(folder).sort()).toEqual(['.hidden', 'gone', 'keep.tmp', 'link', 'sub']);
  expect(readdirSync(join(folder, 'sub'))).toEqual(['data']);
  expect(readdirSync(elsewhere)).toEqual(['.precious.tmp']);
  await rm(elsewhere, { recursive: true });
});

describe('JSON files', () => {
  test('round trip', async () => {
    await writeJsonAtomic(join(folder, 'x.json'), { a: [1, 'ü'] });
    expect(await readJson(join(folder, 'x.json'), 'do it again')).toEqual({ a: [1, 'ü'] });
  });

  test('a file that is missing or broken names itself and what to do', async () => {
    const path = join(folder, 'x.json');
    await expect(readJson(path, 'do it again')).rejects.toThrow(/x\.json.*\n.*do it again/);
    expect(await codeOf(readJson(path, ''))).toBe('artefact_missing');
    await writeJsonAtomic(path, { a: 1 });
    truncateSync(path, 5);
    expect(await codeOf(readJson(path, ''))).toBe('file_corrupt');
  });
});

test('hashes', async () => {
  // FIPS 180-2, the vector "abc".
  const abc = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad';
  expect(sha256('abc')).toBe(abc);
  expect(sha256('a', new Uint8Array([98, 99]))).toBe(abc);
  const bytes = Buffer.alloc(200_000, 'x');
  writeFileSync(join(folder, 'big'), bytes);
  expect(await sha256File(join(folder, 'big'))).toBe(createHash('sha256').update(bytes).digest('hex'));
});
