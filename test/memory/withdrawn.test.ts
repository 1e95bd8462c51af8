import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bank } from '../../src/memory/bank.ts';
import { bankProblems, repairBank } from '../../src/memory/repair.ts';
import { readmit, readWithdrawn, withdraw } from '../../src/memory/withdrawn.ts';
import { batch, filesOf, IDENTITY, range, temporaryFolder } from './fixtures.ts';

const there = { folder: '', has: (id: string): boolean => id !== 'nowhere' };

describe('withdrawn memories', () => {
  it('are kept, without repetitions, until they are readmitted', async () => {
    const folder = await temporaryFolder();
    expect(await readWithdrawn(folder)).toEqual(new Set());
    await withdraw({ ...there, folder }, ['m2', 'm1']);
    await withdraw({ ...there, folder }, ['m2', 'm3']);
    expect([...(await readWithdrawn(folder))]).toEqual(['m1', 'm2', 'm3']);
    await readmit(folder, ['m1', 'm3', 'other']);
    expect([...(await readWithdrawn(folder))]).toEqual(['m2']);
  });

  it('stay as they were when one of several is not there, and nothing is written without need', async () => {
    const folder = await temporaryFolder();
    await withdraw({ ...there, folder }, ['m1', 'nowhere']);
    await withdraw({ ...there, folder }, []);
    await readmit(folder, ['m1']);
    expect(await filesOf(folder)).toEqual(new Map());
  });

  it('outlive a compaction', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(folder, IDENTITY);
    await writer.append([batch(range(0, 3))], 'w1');
    await withdraw(writer, ['m1']);
    await writer.delete(['m1']);
    await writer.compact();
    await writer.prune([]);
    expect([...(await readWithdrawn(folder))]).toEqual(['m1']);
  });

  it('are refused when the file is damaged, and said to be when the bank is verified', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(folder, IDENTITY);
    await writer.append([batch(range(0, 3))], 'w1');
    await withdraw(writer, ['m1']);
    const path = join(folder, 'withdrawn.json');
    const text = await readFile(path, 'utf8');
    for (const damaged of [text.replace('m1', 'm2'), text.slice(1), '{"formatVersion":1}']) {
      await writeFile(path, damaged);
      await expect(readWithdrawn(folder)).rejects.toMatchObject({ code: 'file_corrupt', where: path });
      expect(await bankProblems(folder)).toMatchObject([{ where: path }]);
    }
    const sources = {
      encoder: () => Promise.reject(),
      encoderState: async () => undefined,
      codecs: async () => undefined,
      rewriter: async () => undefined,
    };
    expect(await repairBank(folder, sources)).toMatchObject({ done: [], left: [{ where: path }] });
    await writeFile(path, text.replace('"formatVersion": 1', '"formatVersion": 2'));
    await expect(readWithdrawn(folder)).rejects.toMatchObject({ code: 'version_unsupported' });
  });
});
