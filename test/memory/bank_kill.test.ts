import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { type Kill, torture } from '../../scripts/torture_bank/torture.ts';
import { Bank } from '../../src/memory/bank.ts';
import type { BankWriter } from '../../src/memory/bank_writer.ts';
import { batch, filesOf, IDENTITY, range, temporaryFolder } from './fixtures.ts';

/** Calls of the file system that change something and may still succeed; the process is "dead" at 0. */
const life = vi.hoisted(() => ({ left: Number.POSITIVE_INFINITY }));

vi.mock('node:fs/promises', async (importOriginal) => {
  const { mortalFiles } = await import('./mortal_files.ts');
  return mortalFiles(await importOriginal(), life);
});

const SMALL = { segmentMemories: 3 };

/** Changes of every kind, each one version. */
const CHANGES: ((writer: BankWriter) => Promise<unknown>)[] = [
  (writer) => writer.append([batch(range(0, 4))], 'w1'),
  (writer) => writer.edit(['m1', 'm3'], [batch([1, 9], 2)], 'w1'),
  (writer) => writer.prune([]),
];

async function contents(folder: string): Promise<{ version: number; rows: string }> {
  const bank = await Bank.open(folder);
  await bank.verify();
  const rows = Buffer.from((await bank.readRows(bank.ids())).buffer).toString('base64');
  await bank.close();
  return { version: bank.version, rows };
}

describe('a writer that is killed', () => {
  it('before any change of the file system leaves the old version or the new one, and can be repeated', async () => {
    const root = await temporaryFolder();
    const folder = join(root, 'bank');
    const trial = join(root, 'trial');
    await Bank.create(folder, IDENTITY);
    for (const change of CHANGES) {
      const before = await contents(folder);
      const start = join(root, 'start');
      await cp(folder, start, { recursive: true });
      await change(await Bank.openForWriting(folder, SMALL));
      const after = await contents(folder);
      const files = await filesOf(folder);

      let finished = false;
      for (let calls = 0; !finished; calls++) {
        await cp(start, trial, { recursive: true });
        const writer = await Bank.openForWriting(trial, SMALL);
        life.left = calls;
        finished = await change(writer).then(
          () => true,
          () => false,
        );
        life.left = Number.POSITIVE_INFINITY;
        const found = await contents(trial);
        expect([before, after]).toContainEqual(found);
        const again = await Bank.openForWriting(trial, SMALL);
        if (found.version === before.version) await change(again);
        expect(await filesOf(trial)).toEqual(files);
        await rm(trial, { recursive: true });
        expect(calls).toBeLessThan(200);
      }
      await rm(start, { recursive: true });
    }
  }, 60_000);

  it('by SIGKILL at any moment leaves every change that was completed, and nothing of another', async () => {
    const kills: Kill[] = [];
    await torture(await temporaryFolder(), 4, 3, (kill) => kills.push(kill));
    expect(kills).toHaveLength(4);
    expect(kills.reduce((sum, { changes }) => sum + changes, 0)).toBeGreaterThan(0);
  }, 60_000);
});
