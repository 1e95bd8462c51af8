import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bank } from '../../src/memory/bank.ts';
import { readDraft } from '../../src/memory/draft.ts';
import type { MemoryBatch } from '../../src/memory/layout.ts';
import { segmentFolder } from '../../src/memory/segment.ts';
import { batch, filesOf, IDENTITY, range, temporaryFolder } from './fixtures.ts';

const ALL = 23;
const UNIT = 2;
const OPTIONS = { segmentMemories: 4 };

/** The memories from `first` on; an error comes instead of memory `until`. */
function* memories(first: number, until = ALL): Generator<MemoryBatch> {
  for (let number = first; number < ALL; number++) {
    if (number === until) throw new Error('killed');
    yield batch([number]);
  }
}

async function folderOf(): Promise<string> {
  return join(await temporaryFolder(), 'bank');
}

/** A bank whose compilation ended before memory `until`. */
async function stopped(until: number): Promise<string> {
  const folder = await folderOf();
  const writer = await Bank.create(folder, IDENTITY, OPTIONS);
  await expect(writer.compile('key', (first) => memories(first, until), 'w', UNIT)).rejects.toThrow('killed');
  expect((await Bank.open(folder)).size).toBe(0);
  return folder;
}

/** Compiles to the end. @returns the number of the first memory that was asked for, and all files */
async function goOn(folder: string, key = 'key'): Promise<{ first: number; files: Map<string, string> }> {
  const writer = await Bank.openForWriting(folder, OPTIONS);
  let asked = -1;
  const from = (first: number): Generator<MemoryBatch> => {
    asked = first;
    return memories(first);
  };
  expect(await writer.compile(key, from, 'w', UNIT)).toBe(1);
  await writer.prune([]);
  expect(await readDraft(folder)).toBeUndefined();
  const files = await filesOf(folder);
  files.delete('manifest-0.json');
  return { first: asked, files };
}

describe('a compilation', () => {
  it('goes on after the last whole segment and gives the same bytes', async () => {
    const once = await folderOf();
    await Bank.create(once, IDENTITY, OPTIONS);
    const { first, files } = await goOn(once);
    expect(first).toBe(0);
    for (const until of [0, 3, 4, 5, 15, 22]) {
      const again = await goOn(await stopped(until));
      expect(again.first, `stopped at ${until}`).toBe(4 * Math.floor(until / 4));
      expect(again.files).toEqual(files);
    }
  });

  it('of something else begins anew and leaves nothing of the other', async () => {
    const once = await folderOf();
    await Bank.create(once, IDENTITY, OPTIONS);
    const { files } = await goOn(once);
    const other = await goOn(await stopped(15), 'another key');
    expect(other.first).toBe(0);
    expect(other.files).toEqual(files);
  });

  it('writes again what was damaged since', async () => {
    const folder = await stopped(15);
    const { segments } = (await readDraft(folder))!;
    const path = join(segmentFolder(folder, segments[1]!.id), 'rows.bin');
    const bytes = await readFile(path);
    bytes[7]! ^= 1;
    await writeFile(path, bytes);
    expect((await goOn(folder)).first).toBe(4);
    await (await Bank.open(folder)).verify();
  });

  it('is given up when the bank is compacted', async () => {
    const folder = await stopped(15);
    const writer = await Bank.openForWriting(folder, OPTIONS);
    await writer.append([batch(range(0, 3))], 'w');
    await writer.compact();
    await writer.prune([]);
    expect(await readDraft(folder)).toBeUndefined();
    expect([...(await filesOf(folder)).keys()].filter((path) => path.endsWith('segment.json'))).toHaveLength(1);
  });
});
