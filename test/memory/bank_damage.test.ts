import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { Bank } from '../../src/memory/bank.ts';
import { BlockFile, BlockFileWriter, blockBytesFor } from '../../src/memory/block_file.ts';
import { batch, filesOf, IDENTITY, range, temporaryFolder } from './fixtures.ts';

async function smallBank(): Promise<string> {
  const folder = join(await temporaryFolder(), 'bank');
  const writer = await Bank.create(folder, IDENTITY, { segmentMemories: 4 });
  await writer.append([batch(range(0, 6))], 'w1');
  return folder;
}

/** Opens the bank and reads everything, as a long run would. */
async function readAll(folder: string): Promise<void> {
  const bank = await Bank.open(folder);
  try {
    await bank.readRows(bank.ids());
    for await (const { ids } of bank.vectors()) expect(ids.length).toBeGreaterThan(0);
  } finally {
    await bank.close();
  }
}

async function expectNamed(action: Promise<unknown>, folder: string): Promise<UserError> {
  const error = await action.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).where).toContain(folder);
  expect((error as UserError).action).toMatch(/memory3 compile/);
  return error as UserError;
}

describe('a damaged bank', () => {
  it('is refused by name when any bit of any file is flipped, and is left as it is', async () => {
    const folder = await smallBank();
    const names = [...(await filesOf(folder)).keys()];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.double({ min: 0, max: 0.999999, noNaN: true }),
        fc.nat(7),
        async (name, at, bit) => {
          // An old version is not read by those who open the current one.
          if (name === 'manifest-0.json') return;
          const path = join(folder, name);
          const good = await readFile(path);
          const bad = Buffer.from(good);
          const position = Math.floor(at * bad.length);
          bad[position] = bad[position]! ^ (1 << bit);
          await writeFile(path, bad);
          const damaged = await filesOf(folder);
          // A flipped bit of white space in CURRENT may change nothing that is read.
          if (name !== 'CURRENT') await expectNamed(readAll(folder), folder);
          expect(await filesOf(folder)).toEqual(damaged);
          await writeFile(path, good);
        },
      ),
      { numRuns: 60 },
    );
    await readAll(folder);
  });

  it('is refused by name when a file is shortened or missing', async () => {
    const folder = await smallBank();
    for (const [name, hex] of await filesOf(folder)) {
      if (name === 'manifest-0.json') continue;
      const path = join(folder, name);
      const good = Buffer.from(hex, 'hex');
      for (const length of [0, 1, good.length - 2, good.length - 1]) {
        await truncate(path, length);
        // The line feed at the end of these two means nothing.
        const harmless = /^(CURRENT|manifest-1.json)$/.test(name) && length === good.length - 1;
        if (!harmless) await expectNamed(readAll(folder), folder);
        await writeFile(path, good);
      }
    }
  });

  it('names the file and the kind of damage', async () => {
    const folder = await smallBank();
    const rows = [...(await filesOf(folder)).keys()].find((name) => name.endsWith('rows.bin'))!;
    const good = await readFile(join(folder, rows));
    await truncate(join(folder, rows), good.length - 4);
    const short = await expectNamed(Bank.open(folder), folder);
    expect(short.code).toBe('file_truncated');
    expect(short.message).toContain(`${rows}: the file has ${good.length - 4} bytes, not ${good.length}`);
    good[good.length - 1]! ^= 1;
    await writeFile(join(folder, rows), good);
    const bank = await Bank.open(folder);
    const flipped = await expectNamed(bank.readRows(bank.ids()), folder);
    expect(flipped.code).toBe('file_corrupt');
    expect(flipped.message).toContain('do not match their checksum');
    await expectNamed(bank.verify(), folder);
    await bank.close();
  });

  it('of a newer format is refused as such', async () => {
    const folder = await smallBank();
    const path = join(folder, 'bank.json');
    await writeFile(path, (await readFile(path, 'utf8')).replace(/"formatVersion": \d+/, '"formatVersion": 99'));
    expect((await expectNamed(Bank.open(folder), folder)).code).toBe('version_unsupported');
  });

  it('whose old version cannot be read is not cleaned up', async () => {
    const folder = await smallBank();
    await writeFile(join(folder, 'manifest-0.json'), '{}');
    const files = await filesOf(folder);
    await expectNamed(Bank.openForWriting(folder), folder);
    expect(await filesOf(folder)).toEqual(files);
  });
});

describe('BlockFile', () => {
  it('reads any range of what was written in any pieces', async () => {
    const folder = await temporaryFolder();
    let number = 0;
    const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 6 });
    const property = async (parts: Uint8Array[], blockBytes: number, a: number, b: number): Promise<void> => {
      const path = join(folder, String(number++));
      const writer = await BlockFileWriter.create(path, blockBytes);
      for (const part of parts) await writer.write(part);
      const sums = await writer.finish();
      const all = Buffer.concat(parts);
      expect(sums.blocks).toHaveLength(Math.ceil(all.length / blockBytes));
      const file = await BlockFile.open(path, sums, 'mend it');
      const from = Math.min(a, b, all.length);
      const until = Math.min(Math.max(a, b), all.length);
      for (let twice = 0; twice < 2; twice++) {
        expect(Buffer.from(await file.read(from, until - from))).toEqual(all.subarray(from, until));
      }
      await file.verify();
      await file.close();
    };
    const place = fc.nat(200);
    await fc.assert(fc.asyncProperty(pieces, fc.integer({ min: 1, max: 50 }), place, place, property), { numRuns: 50 });
  });

  it('has blocks of whole rows', () => {
    expect(blockBytesFor(1)).toBe(2 ** 20);
    expect(blockBytesFor(700_000)).toBe(700_000);
    expect(blockBytesFor(5_000_000)).toBe(5_000_000);
    expect(blockBytesFor(300_000)).toBe(900_000);
  });
});
