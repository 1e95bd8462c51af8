import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.ts';
import { Bank } from '../../src/memory/bank.ts';
import type { BankWriter } from '../../src/memory/bank_writer.ts';
import { rowLength } from '../../src/memory/layout.ts';
import { RowCache } from '../../src/memory/row_cache.ts';
import { diskFullFrom, intercept } from '../io/faults.ts';
import { batch, filesOf, IDENTITY, LAYOUT, memory, range, temporaryFolder } from './fixtures.ts';

const SMALL = { segmentMemories: 4 };

async function bankOf(count: number): Promise<{ folder: string; writer: BankWriter }> {
  const folder = join(await temporaryFolder(), 'bank');
  const writer = await Bank.create(folder, IDENTITY, SMALL);
  await writer.append([batch(range(0, count))], 'w1');
  return { folder, writer };
}

const bytesOf = (numbers: Float32Array | Uint16Array): string =>
  Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength).toString('hex');

describe('forgetting', () => {
  it('takes deleted rows out of a cache that versions share', async () => {
    const { folder, writer } = await bankOf(6);
    const cache = new RowCache(2 ** 20);
    const rowBytes = 4 * rowLength(LAYOUT);
    const before = await Bank.open(folder, { cache });
    await before.readRows(before.ids());
    await before.close();
    expect(cache.stats.bytes).toBe(6 * rowBytes);
    await writer.edit(['m1', 'm4'], [batch([9])], 'w1');
    const after = await Bank.open(folder, { cache });
    expect(cache.stats.bytes).toBe(4 * rowBytes);
    const { hits } = cache.stats;
    await after.readRows(['m0', 'm2', 'm3', 'm5']);
    expect(cache.stats.hits).toBe(hits + 4);
    await after.close();
    await writer.compact();
    await (await Bank.open(folder, { cache })).close();
    expect(cache.stats.bytes).toBe(0);
  });

  it('leaves nothing of a deleted memory in any byte once compacted and pruned', async () => {
    const { folder, writer } = await bankOf(12);
    const gone = [4, 9, 10];
    const traces = gone.flatMap((number) => {
      const { record, row, vector } = memory(number);
      // One token of a thousand may be found by chance; four bytes of a row are not.
      const tokens = record.tokens.length > 1 ? [bytesOf(Uint16Array.from(record.tokens))] : [];
      return [
        Buffer.from(record.text).toString('hex'),
        bytesOf(row),
        bytesOf(row.subarray(3, 5)),
        bytesOf(vector),
        ...tokens,
      ];
    });
    const found = async (): Promise<number> => {
      const files = [...(await filesOf(folder)).values()];
      return traces.filter((trace) => files.some((bytes) => bytes.includes(trace))).length;
    };
    await writer.delete(gone.map((number) => `m${number}`));
    expect(await found()).toBe(traces.length);
    await writer.compact();
    await writer.prune([]);
    expect(await found()).toBe(0);
    const bank = await Bank.open(folder);
    expect(bank.ids()).toEqual([0, 1, 2, 3, 5, 6, 7, 8, 11].map((number) => `m${number}`));
    await bank.close();
  });
});

describe('a disk that fills up', () => {
  const changes: [string, (writer: BankWriter) => Promise<unknown>][] = [
    ['adding', (writer) => writer.append([batch(range(10, 15))], 'w1')],
    ['editing', (writer) => writer.edit(['m1'], [batch([1], 3)], 'w1')],
    ['deleting', (writer) => writer.delete(['m2'])],
    ['compacting', (writer) => writer.compact()],
  ];

  it.each(changes)('while %s leaves a whole bank, and the change can be made afterwards', async (_, change) => {
    const { folder, writer: first } = await bankOf(9);
    const version = await first.delete(['m3']);
    const before = await filesOf(folder);
    await change(await Bank.openForWriting(folder, SMALL));
    const after = await filesOf(folder);
    await (await Bank.openForWriting(folder, { version, ...SMALL })).prune([0, 1]);
    expect(await filesOf(folder)).toEqual(before);
    for (let at = 1, full = true; full; at += 3) {
      const trial = `${folder}-${at}`;
      await cp(folder, trial, { recursive: true });
      const writer = await Bank.openForWriting(trial, SMALL);
      const outcome = await diskFullFrom(at, () => change(writer));
      full = outcome.full;
      if (full) {
        expect(outcome.error).toBeInstanceOf(UserError);
        expect(outcome.error).toMatchObject({ code: 'disk_full' });
      }
      const bank = await Bank.open(trial);
      // What fails after CURRENT was replaced has been done, and the writer knows.
      expect(bank.version).toBe(writer.version);
      await bank.verify();
      await bank.close();
      // The same writer goes on, once there is space, as a new one would.
      if (writer.version === version) await change(writer);
      await Bank.openForWriting(trial, SMALL);
      expect(await filesOf(trial)).toEqual(after);
      expect(at).toBeLessThan(100);
    }
  });

  it('gets its space back', async () => {
    const { folder, writer } = await bankOf(9);
    const before = await filesOf(folder);
    let writes = 0;
    const { error } = await intercept(
      () => writer.append([batch(range(10, 30))], 'w1'),
      (operation) => {
        if (operation !== 'write' && operation !== 'writeFile') return;
        if (++writes > 12) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      },
    );
    expect(error).toMatchObject({ code: 'disk_full' });
    expect(await filesOf(folder)).toEqual(before);
  });
});
