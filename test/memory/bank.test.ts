import { cp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Bank } from '../../src/memory/bank.ts';
import { RowCache } from '../../src/memory/row_cache.ts';
import { batch, filesOf, IDENTITY, memory, range, temporaryFolder } from './fixtures.ts';

const SMALL = { segmentMemories: 4 };
const READER = { modelKey: IDENTITY.modelKey, tokenizerHash: IDENTITY.tokenizerHash, writers: ['w1', 'w2'] };

async function bankFolder(): Promise<string> {
  return join(await temporaryFolder(), 'bank');
}

/** Everything a reader can see must be memories `numbers` in this order, written as `variant` says. */
async function expectHolds(bank: Bank, numbers: readonly number[], variant = (_: number): number => 0): Promise<void> {
  const expected = numbers.map((number) => memory(number, variant(number)));
  expect(bank.size).toBe(numbers.length);
  expect(bank.ids()).toEqual(expected.map(({ record }) => record.id));
  const records = [];
  for await (const record of bank.list()) records.push(record);
  expect(records).toEqual(expected.map(({ record }) => record));
  const rows = await bank.readRows(bank.ids());
  expect(rows).toEqual(Float32Array.from(expected.flatMap(({ row }) => [...row])));
  const seen: { ids: string[]; vectors: number[] } = { ids: [], vectors: [] };
  for await (const { ids, vectors } of bank.vectors()) {
    seen.ids.push(...ids);
    seen.vectors.push(...vectors);
  }
  expect(seen).toEqual({ ids: bank.ids(), vectors: expected.flatMap(({ vector }) => [...vector]) });
  for (const { record } of expected) {
    expect(bank.tokens(record.id)).toEqual(record.tokens);
    expect(bank.keptLength(record.id)).toBe(record.keptLength);
    expect(await bank.get(record.id)).toEqual(record);
  }
}

describe('Bank', () => {
  it('gives back what was appended, over several segments and batches', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    expect(writer.version).toBe(0);
    expect(await writer.append([batch(range(0, 3)), batch(range(3, 10))], 'w1')).toBe(1);
    expect(await writer.append([batch(range(10, 11))], 'w2')).toBe(2);
    expect(await writer.append([], 'w2')).toBe(2);
    const bank = await Bank.open(folder, { identity: READER });
    await expectHolds(bank, range(0, 11));
    expect(bank.writers).toEqual(['w1', 'w2']);
    expect(bank.writer('m10')).toBe('w2');
    expect(bank.identity).toEqual(IDENTITY);
    await bank.verify();
    await bank.close();
  });

  it('behaves like a list under any sequence of changes, and keeps every version', async () => {
    const command = fc.record({
      remove: fc.array(fc.nat(20), { maxLength: 4 }),
      add: fc.array(fc.nat(20), { maxLength: 6 }),
      all: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(command, { maxLength: 5 }), async (commands) => {
        const folder = await bankFolder();
        const writer = await Bank.create(folder, IDENTITY, SMALL);
        const versions = new Map<number, number[]>([[0, []]]);
        let model: number[] = [];
        for (const { remove, add, all } of commands) {
          const gone = [...new Set(remove)].filter((number) => model.includes(number));
          const stay = all ? [] : model.filter((number) => !gone.includes(number));
          const added = [...new Set(add)].filter((number) => !stay.includes(number));
          model = [...stay, ...added];
          const version = all
            ? await writer.replaceAll([batch(added)], 'w1')
            : await writer.edit(
                gone.map((number) => `m${number}`),
                [batch(added)],
                'w1',
              );
          versions.set(version, model);
          expect(writer.size).toBe(model.length);
        }
        for (const [version, numbers] of versions) {
          const bank = await Bank.open(folder, { version });
          await expectHolds(bank, numbers);
          await bank.close();
        }
        await rm(folder, { recursive: true });
      }),
      { numRuns: 8 },
    );
  });

  it('keeps the version a reader opened, even after later changes and pruning', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    await writer.append([batch(range(0, 9))], 'w1');
    const before = await Bank.open(folder);
    await writer.delete(['m2', 'm8']);
    await writer.replaceAll([batch(range(0, 3), 5)], 'w2');
    await writer.prune([]);
    expect((await readdir(folder)).filter((name) => name.startsWith('segment-'))).toHaveLength(1);
    await expectHolds(before, range(0, 9));
    const after = await Bank.open(folder);
    await expectHolds(after, range(0, 3), () => 5);
    await Promise.all([before.close(), after.close()]);
  });

  it('edits in one version', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    await writer.append([batch(range(0, 5))], 'w1');
    expect(await writer.edit(['m1'], [batch([1], 8)], 'w1')).toBe(2);
    const bank = await Bank.open(folder);
    await expectHolds(bank, [0, 2, 3, 4, 1], (number) => (number === 1 ? 8 : 0));
    await bank.close();
  });

  it('compacts segments with deleted memories, each under its own writer, without changing the list', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    await writer.append([batch(range(0, 8))], 'w1');
    await writer.append([batch(range(8, 11))], 'w2');
    await writer.delete(['m1', 'm2', 'm9']);
    expect(await writer.compact()).toBe(4);
    expect(await writer.compact()).toBe(4);
    await writer.prune([]);
    const bank = await Bank.open(folder);
    await expectHolds(bank, [0, 3, 4, 5, 6, 7, 8, 10]);
    expect([bank.writer('m3'), bank.writer('m8')]).toEqual(['w1', 'w2']);
    expect((await readdir(folder)).filter((name) => name.startsWith('segment-'))).toHaveLength(3);
    await bank.close();
    await writer.delete(['m3', 'm8']);
    const after = await Bank.open(folder);
    await expectHolds(after, [0, 4, 5, 6, 7, 10]);
    await after.close();
  });

  it('compacts small segments of the same weights into as few as they fit in', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    for (const number of range(0, 6)) await writer.append([batch([number])], number === 4 ? 'w2' : 'w1');
    await writer.append([batch(range(6, 9))], 'w1');
    await writer.compact();
    const bank = await Bank.open(folder);
    await bank.verify();
    expect(bank.segments.map(({ memories, writer }) => `${memories} ${writer}`)).toEqual(['4 w1', '1 w2', '4 w1']);
    await expectHolds(bank, range(0, 9));
    await bank.close();
    expect(await writer.compact()).toBe(bank.version);
    expect(await writer.delete(['m0', 'm5'])).toBe(bank.version + 1);
  });

  it('prunes what no kept version names and nothing else', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    await writer.append([batch(range(0, 4))], 'w1');
    await writer.append([batch(range(4, 8))], 'w1');
    await writer.replaceAll([batch(range(0, 8), 1)], 'w2');
    await writer.replaceAll([batch(range(0, 8), 2)], 'w2');
    await writer.prune([1]);
    const old = await Bank.open(folder, { version: 1 });
    await expectHolds(old, range(0, 4));
    await old.close();
    await expect(Bank.open(folder, { version: 2 })).rejects.toThrow(
      /version 2 of the bank is not there; there are 1, 4/,
    );
    expect((await readdir(folder)).filter((name) => name.startsWith('segment-'))).toHaveLength(3);
  });

  it('refuses ids that are there, ids that are not, and numbers that are not finite, and stays as it was', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    await writer.append([batch(range(0, 5))], 'w1');
    const files = await filesOf(folder);
    await expect(writer.append([batch([7]), batch([3])], 'w1')).rejects.toMatchObject({ code: 'input_invalid' });
    await expect(writer.append([batch([7, 7])], 'w1')).rejects.toThrow(/m7 is there already/);
    await expect(writer.delete(['m1', 'm9'])).rejects.toMatchObject({ code: 'memory_unknown' });
    const poisoned = batch([8, 9]);
    poisoned.rows[poisoned.rows.length - 1] = Number.NaN;
    await expect(writer.append([poisoned], 'w1')).rejects.toThrow(/m9 holds a value that is not finite/);
    await expect(writer.append([{ ...batch([8]), rows: new Float32Array(3) }], 'w1')).rejects.toThrow(RangeError);
    expect(await filesOf(folder)).toEqual(files);
    expect(writer.version).toBe(1);
    const bank = await Bank.open(folder);
    expect(() => bank.tokens('m7')).toThrow(/version 1 holds no memory m7/);
    await expect(bank.readRows(['m0', 'x'])).rejects.toMatchObject({ code: 'memory_unknown' });
    await bank.close();
  });

  it('passes on an error of the source of memories and leaves nothing behind', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    const files = await filesOf(folder);
    async function* failing() {
      yield batch(range(0, 2));
      throw new Error('the model failed');
    }
    await expect(writer.append(failing(), 'w1')).rejects.toThrow('the model failed');
    expect(await filesOf(folder)).toEqual(files);
  });
});

describe('Bank identity', () => {
  it('refuses another model, tokenizer or writer, naming both sides and the command', async () => {
    const folder = await bankFolder();
    await (await Bank.create(folder, IDENTITY)).append([batch([1])], 'w3');
    const cases = [
      [{ ...READER, modelKey: 'layers=9' }, /model layers=4\/2 hidden=16, .*model layers=9\n.*memory3 compile/],
      [{ ...READER, tokenizerHash: 'b' }, /tokenizer a+, .*tokenizer b\n.*memory3 compile/],
      [READER, /weights w3, .*weights w1 or w2\n.*memory3 compile/],
    ] as const;
    for (const [identity, message] of cases) {
      await expect(Bank.open(folder, { identity })).rejects.toMatchObject({ code: 'artefact_mismatch' });
      await expect(Bank.open(folder, { identity })).rejects.toThrow(message);
    }
  });

  it('refuses to create over a bank and to open where none is', async () => {
    const folder = await bankFolder();
    await expect(Bank.open(folder)).rejects.toMatchObject({ code: 'artefact_missing' });
    await expect(Bank.openForWriting(folder)).rejects.toThrow(/memory3 compile/);
    await Bank.create(folder, IDENTITY);
    await expect(Bank.create(folder, IDENTITY)).rejects.toMatchObject({ code: 'input_invalid' });
  });
});

describe('Bank.openForWriting', () => {
  it('goes back to a version, and doing the same again gives the same bytes', async () => {
    const folder = await bankFolder();
    const first = await Bank.create(folder, IDENTITY, SMALL);
    await first.append([batch(range(0, 6))], 'w1');
    const continueFrom = async (writer: typeof first): Promise<void> => {
      await writer.append([batch(range(6, 9))], 'w1');
      await writer.edit(['m0', 'm7'], [batch([20])], 'w1');
      await writer.replaceAll([batch(range(0, 9), 3)], 'w2');
    };
    await continueFrom(first);
    const { contentHash } = first;
    const files = await filesOf(folder);

    const again = await Bank.openForWriting(folder, { version: 1, ...SMALL });
    expect(again.version).toBe(1);
    expect((await readdir(folder)).filter((name) => name.startsWith('manifest-')).sort()).toEqual([
      'manifest-0.json',
      'manifest-1.json',
    ]);
    const bank = await Bank.open(folder);
    await expectHolds(bank, range(0, 6));
    await bank.close();
    await continueFrom(again);
    expect(again.version).toBe(4);
    expect(again.contentHash).toBe(contentHash);
    expect(await filesOf(folder)).toEqual(files);
  });

  it('refuses a version that is not there and changes nothing', async () => {
    const folder = await bankFolder();
    await (await Bank.create(folder, IDENTITY)).append([batch([1])], 'w1');
    const files = await filesOf(folder);
    await expect(Bank.openForWriting(folder, { version: 5 })).rejects.toThrow(/version 5 .* there are 0, 1/);
    expect(await filesOf(folder)).toEqual(files);
  });

  it('removes what a killed writer left: temporary files, segments and versions that CURRENT does not name', async () => {
    const folder = await bankFolder();
    const writer = await Bank.create(folder, IDENTITY, SMALL);
    await writer.append([batch(range(0, 6))], 'w1');
    const files = await filesOf(folder);
    const copy = `${folder}-later`;
    await cp(folder, copy, { recursive: true });
    await (await Bank.openForWriting(copy, SMALL)).append([batch(range(6, 9))], 'w1');
    await rm(join(copy, 'CURRENT'));
    await cp(join(folder, 'CURRENT'), join(copy, 'CURRENT'));
    await writeFile(join(copy, '.segment.123.tmp'), 'half');

    const reader = await Bank.open(copy);
    expect(reader.version).toBe(1);
    await reader.close();
    const reopened = await Bank.openForWriting(copy, SMALL);
    expect(await filesOf(copy)).toEqual(files);
    await reopened.append([batch(range(6, 7))], 'w1');
    expect(reopened.version).toBe(2);
  });

  it('finishes a creation that was killed before CURRENT was written', async () => {
    const folder = await bankFolder();
    await Bank.create(folder, IDENTITY);
    await rm(join(folder, 'CURRENT'));
    const other = { ...IDENTITY, modelKey: 'another' };
    expect((await Bank.create(folder, other)).identity).toEqual(other);
  });
});

describe('reading many rows at once, by the native reader', () => {
  const NUMBERS = range(0, 40);
  const IDS = NUMBERS.map((number) => `m${number}`);

  async function opened(): Promise<{ folder: string; bank: Bank }> {
    const folder = await bankFolder();
    await (await Bank.create(folder, IDENTITY, { segmentMemories: 16 })).append([batch(NUMBERS)], 'w1');
    const bank = await Bank.open(folder, { cache: new RowCache(0) });
    await bank.readRows(IDS);
    return { folder, bank };
  }

  it('gives each its slot, repeated ones too, when all of it was checked before', async () => {
    const { bank } = await opened();
    const order = NUMBERS.map((number) => (number * 17) % 40);
    order.push(3, 3);
    expect(await bank.readRows(order.map((number) => `m${number}`))).toEqual(batch(order).rows);
    await bank.close();
  });

  it('names a file that has become shorter', async () => {
    const { folder, bank } = await opened();
    const [segment] = bank.segments;
    const path = join(folder, `segment-${segment!.id}`, 'rows.bin');
    await truncate(path, 10);
    await expect(bank.readRows(IDS)).rejects.toMatchObject({ code: 'file_truncated', where: path });
    await bank.close();
  });

  it('is not disturbed by closing the bank', async () => {
    const { bank } = await opened();
    const rows = bank.readRows(IDS);
    await bank.close();
    expect(await rows).toEqual(batch(NUMBERS).rows);
  });
});

describe('RowCache', () => {
  it('serves rows again without reading, counts, and drops the oldest', async () => {
    const folder = await bankFolder();
    await (await Bank.create(folder, IDENTITY)).append([batch(range(0, 4))], 'w1');
    const rowBytes = memory(0).row.byteLength;
    const cache = new RowCache(2 * rowBytes);
    const bank = await Bank.open(folder, { cache });
    await bank.readRows(['m0', 'm1']);
    await bank.readRows(['m1', 'm0']);
    expect(bank.cacheStats).toEqual({ hits: 2, misses: 2, hitRate: 0.5, bytes: 2 * rowBytes });
    await bank.readRows(['m2']);
    expect(await bank.readRows(['m0', 'm1'])).toEqual(batch([0, 1]).rows);
    expect(bank.cacheStats).toEqual({ hits: 3, misses: 4, hitRate: 3 / 7, bytes: 2 * rowBytes });
    const same = await Bank.open(folder, { cache });
    await same.readRows(['m0']);
    expect(cache.stats.hits).toBe(4);
    await Promise.all([bank.close(), same.close()]);
  });

  it('never holds more than its bound', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(5), fc.nat(6))), (entries) => {
        const cache = new RowCache(40);
        for (const [key, length] of entries) {
          cache.set(key, new Uint8Array(4 * length).fill(key));
          expect(cache.stats.bytes).toBeLessThanOrEqual(40);
          expect(cache.get(key)).toEqual(new Uint8Array(4 * length).fill(key));
        }
      }),
    );
    const small = new RowCache(4);
    small.set(1, new Uint8Array(8));
    expect(small.get(1)).toBeUndefined();
  });
});
