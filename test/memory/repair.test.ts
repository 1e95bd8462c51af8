import { cp, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bank } from '../../src/memory/bank.ts';
import type { RetrievalEncoder } from '../../src/memory/encoders/encoder.ts';
import { keptCount, rowLength } from '../../src/memory/layout.ts';
import { bankProblems, type RepairSources, repairBank } from '../../src/memory/repair.ts';
import { batch, filesOf, IDENTITY, LAYOUT, memory, range, temporaryFolder } from './fixtures.ts';

/** The memory that is written from these tokens. */
function writtenFrom(tokens: Int32Array) {
  const number = range(0, 50).find((n) => String(memory(n).record.tokens) === String(tokens));
  return memory(number ?? 0);
}

const ENCODER = {
  encodeReferences: async ({ tokens }) => Float32Array.from(tokens.flatMap((text) => [...writtenFrom(text).vector])),
} as Partial<RetrievalEncoder> as RetrievalEncoder;

/** As if the checkpoint of weights w1 were at hand, and no other. */
const SOURCES: RepairSources = {
  encoderState: async () => IDENTITY.encoder.state,
  codecs: async () => undefined,
  encoder: async () => ENCODER,
  rewriter: async (writer) => {
    if (writer !== 'w1') return undefined;
    return async (tokens) => {
      const memories = tokens.map(writtenFrom);
      const rows = new Float32Array(tokens.length * rowLength(LAYOUT));
      const kept = new Int32Array(tokens.length * keptCount(LAYOUT));
      memories.forEach(({ row, record }, i) => {
        rows.set(row, i * row.length);
        kept.set(record.kept, i * record.kept.length);
      });
      return { rows, kept, keptLengths: memories.map(({ record }) => record.keptLength) };
    };
  },
};
const WITHOUT_MODEL: RepairSources = {
  ...SOURCES,
  rewriter: async () => undefined,
  encoderState: async () => undefined,
};

/** Two segments, three versions, one memory deleted. */
async function smallBank(writer = 'w1'): Promise<string> {
  const folder = join(await temporaryFolder(), 'bank');
  const bank = await Bank.create(folder, IDENTITY, { segmentMemories: 4 });
  await bank.append([batch(range(0, 7))], writer);
  await bank.delete(['m1']);
  return folder;
}

async function flip(path: string, at: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[at < 0 ? bytes.length + at : at]! ^= 255;
  await writeFile(path, bytes);
}

/** Path of a file of segment number `segment`, in the order of the current version. */
async function fileOf(folder: string, segment: number, name: string): Promise<string> {
  const manifests = (await readdir(folder)).filter((file) => file.startsWith('manifest-'));
  const { segments } = JSON.parse(await readFile(join(folder, manifests.sort().at(-1)!), 'utf8'));
  return join(folder, `segment-${segments[segment].id}`, name);
}

async function idsOf(folder: string): Promise<string[]> {
  const bank = await Bank.open(folder);
  await bank.verify();
  const ids = bank.ids();
  await bank.close();
  return ids;
}

describe('bankProblems', () => {
  it('finds nothing in a whole bank, and names every damaged file of every version', async () => {
    const folder = await smallBank();
    expect(await bankProblems(folder)).toEqual([]);
    const rows = await fileOf(folder, 0, 'rows.bin');
    const index = await fileOf(folder, 1, 'index.bin');
    await flip(rows, 5);
    await rm(index);
    await writeFile(join(folder, 'manifest-0.json'), '{}');
    const problems = await bankProblems(folder);
    expect(problems.map(({ where }) => where).sort()).toEqual([join(folder, 'manifest-0.json'), rows, index].sort());
    for (const { action } of problems) expect(action).toContain('bank verify --repair');
    await expect(bankProblems(`${folder}-not`)).rejects.toMatchObject({ code: 'artefact_missing' });
  });
});

describe('repairBank', () => {
  it('leaves a whole bank as it is but for what nobody names', async () => {
    const folder = await smallBank();
    const before = await filesOf(folder);
    await mkdir(join(folder, '.segment.77.tmp'));
    await mkdir(join(folder, 'segment-0123456789abcdef'));
    await cp(join(folder, 'manifest-2.json'), join(folder, 'manifest-3.json'));
    const report = await repairBank(folder, SOURCES);
    expect(report).toMatchObject({ version: 2, dropped: [], left: [] });
    expect(await filesOf(folder)).toEqual(before);
  });

  const exactly: [string, (folder: string) => Promise<void>][] = [
    ['a vector', async (folder) => flip(await fileOf(folder, 0, 'index.bin'), 3)],
    ['all vectors', async (folder) => rm(await fileOf(folder, 1, 'index.bin'))],
    ['a row', async (folder) => flip(await fileOf(folder, 0, 'rows.bin'), -1)],
    ['half the rows', async (folder) => truncate(await fileOf(folder, 0, 'rows.bin'), 300)],
    [
      'rows and vectors',
      async (folder) => {
        await rm(await fileOf(folder, 0, 'rows.bin'));
        await truncate(await fileOf(folder, 0, 'index.bin'), 0);
      },
    ],
    ['a description', async (folder) => flip(await fileOf(folder, 1, 'segment.json'), 40)],
    ['a missing description', async (folder) => rm(await fileOf(folder, 0, 'segment.json'))],
    ['bank.json', async (folder) => flip(join(folder, 'bank.json'), 60)],
    [
      'a value in bank.json',
      async (folder) => {
        const path = join(folder, 'bank.json');
        await writeFile(path, (await readFile(path, 'utf8')).replace('layers=4', 'layers=5'));
      },
    ],
    ['encoder.bin', async (folder) => flip(join(folder, 'encoder.bin'), 0)],
    [
      'bank.json and encoder.bin',
      async (folder) => {
        await rm(join(folder, 'bank.json'));
        await rm(join(folder, 'encoder.bin'));
      },
    ],
    ['CURRENT', async (folder) => truncate(join(folder, 'CURRENT'), 9)],
    ['a missing CURRENT', async (folder) => rm(join(folder, 'CURRENT'))],
    [
      'everything that can be',
      async (folder) => {
        for (const name of ['bank.json', 'encoder.bin', 'CURRENT']) await truncate(join(folder, name), 1);
        await flip(await fileOf(folder, 0, 'index.bin'), 0);
        await flip(await fileOf(folder, 1, 'rows.bin'), 0);
      },
    ],
  ];
  it.each(exactly)('makes %s again, the same byte by byte', async (_, damage) => {
    const folder = await smallBank();
    const before = await filesOf(folder);
    await damage(folder);
    expect(await bankProblems(folder)).not.toEqual([]);
    const report = await repairBank(folder, SOURCES);
    expect(report).toMatchObject({ version: 2, dropped: [], left: [] });
    expect(report.done).not.toEqual([]);
    expect(await filesOf(folder)).toEqual(before);
  });

  it('keeps rows that cannot be written again until it is told to drop them, and tells which', async () => {
    const folder = await smallBank();
    await truncate(await fileOf(folder, 0, 'rows.bin'), 0);
    const damaged = await filesOf(folder);
    const report = await repairBank(folder, WITHOUT_MODEL);
    expect(report.left).toHaveLength(1);
    expect(report.left[0]!.message).toMatch(/m0, m2, m3 are lost, .*\n.*--drop-damaged/);
    expect(await filesOf(folder)).toEqual(damaged);

    const dropped = await repairBank(folder, WITHOUT_MODEL, { dropDamaged: true });
    expect(dropped).toMatchObject({ version: 3, left: [] });
    expect(dropped.dropped).toEqual([0, 2, 3].map((n) => ({ id: `m${n}`, text: memory(n).record.text })));
    expect(await idsOf(folder)).toEqual(['m4', 'm5', 'm6']);
    expect(await bankProblems(folder)).toEqual([]);
  });

  it('loses only the memories in a damaged block, and nothing with one that was deleted', async () => {
    // Each row is larger than a block of the usual size, so that it has one of its own.
    const layout = { ...LAYOUT, headDim: 12_000 };
    const width = rowLength(layout);
    const folder = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(folder, { ...IDENTITY, layout });
    const { records, vectors } = batch(range(0, 4));
    const rows = Float32Array.from({ length: 4 * width }, (_, i) => Math.floor(i / width));
    await writer.append([{ records, rows, vectors }], 'w1');
    await writer.delete(['m1']);
    const path = await fileOf(folder, 0, 'rows.bin');
    await flip(path, 4 * width);
    const first = await repairBank(folder, WITHOUT_MODEL);
    expect(first).toMatchObject({ version: 3, dropped: [], left: [] });
    expect(await idsOf(folder)).toEqual(['m0', 'm2', 'm3']);

    await flip(await fileOf(folder, 0, 'rows.bin'), 2 * 4 * width + 5);
    const second = await repairBank(folder, WITHOUT_MODEL, { dropDamaged: true });
    expect(second).toMatchObject({ version: 4, dropped: [{ id: 'm3' }], left: [] });
    const bank = await Bank.open(folder);
    expect(bank.ids()).toEqual(['m0', 'm2']);
    expect([...(await bank.readRows(['m2', 'm0'])).subarray(width - 1, width + 1)]).toEqual([2, 0]);
    await bank.close();
  });

  it('tells as far as it can what is lost with the records', async () => {
    const folder = await smallBank();
    const path = await fileOf(folder, 1, 'memories.arrow');
    const at = (await readFile(path)).indexOf('text of 5');
    await flip(path, at);
    const report = await repairBank(folder, SOURCES);
    expect(report.left[0]!.message).toMatch(/records of 3 memories are lost \(memories\.arrow\)/);
    const { dropped, left } = await repairBank(folder, SOURCES, { dropDamaged: true });
    expect(left).toEqual([]);
    expect(dropped.map(({ id }) => id)).toEqual(['m4', 'm5', 'm6']);
    expect(dropped[0]!.text).toBe(memory(4).record.text);
    expect(await idsOf(folder)).toEqual(['m0', 'm2', 'm3']);
  });

  it('goes back to an older version, in which deleted memories are there, only when told to', async () => {
    const folder = await smallBank();
    await truncate(join(folder, 'manifest-2.json'), 20);
    const report = await repairBank(folder, SOURCES);
    expect(report.version).toBeUndefined();
    expect(report.left[0]!.message).toMatch(/Version 1 is whole; later changes, deletions too, would be lost/);
    const back = await repairBank(folder, SOURCES, { dropDamaged: true });
    expect(back).toMatchObject({ version: 1, left: [] });
    expect(await idsOf(folder)).toHaveLength(7);
    expect(await bankProblems(folder)).toEqual([]);
  });

  it('removes older versions that cannot be read any more', async () => {
    const folder = await smallBank();
    const writer = await Bank.openForWriting(folder);
    await writer.replaceAll([batch([20, 21])], 'w1');
    await truncate(join(folder, 'manifest-1.json'), 20);
    const report = await repairBank(folder, SOURCES);
    expect(report).toMatchObject({ version: 3, left: [] });
    expect(report.done.join()).toContain('removed version 1');
    expect(await bankProblems(folder)).toEqual([]);
    expect(await idsOf(folder)).toEqual(['m20', 'm21']);
  });

  it('says so when nothing is left to make bank.json from', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    await Bank.create(folder, IDENTITY);
    await truncate(join(folder, 'bank.json'), 0);
    const { left } = await repairBank(folder, SOURCES);
    expect(left[0]!.message).toMatch(/nothing is left that it could be made from\n.*memory3 compile/);
  });
});
