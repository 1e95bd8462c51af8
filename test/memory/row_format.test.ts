import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bank } from '../../src/memory/bank.ts';
import { rowLength } from '../../src/memory/layout.ts';
import { rowFormat } from '../../src/memory/row_format.ts';
import { segmentFolder } from '../../src/memory/segment.ts';
import { packHalf, unpackHalf } from '../../src/ops/index.ts';
import { batch, IDENTITY, LAYOUT, memory, range, temporaryFolder } from './fixtures.ts';

describe.each(['float16', 'bfloat16'] as const)('a bank of %s memories', (storage) => {
  const asStored = (number: number): Float32Array => unpackHalf(packHalf(memory(number).row, storage), storage);

  it('stores two bytes a number and gives them back rounded, also after compaction', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(folder, { ...IDENTITY, storage }, { segmentMemories: 4 });
    await writer.append([batch(range(0, 7))], 'w1');
    await writer.delete(['m1', 'm5']);
    for (const compacted of [false, true]) {
      if (compacted) await writer.compact();
      const bank = await Bank.open(folder);
      expect(bank.identity.storage).toBe(storage);
      const expected = [0, 2, 3, 4, 6].flatMap((number) => [...asStored(number)]);
      expect(Array.from(await bank.readRows(bank.ids()))).toEqual(expected);
      await bank.verify();
      await bank.close();
    }
  });

  it('has exactly the bytes of the formula', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    await (await Bank.create(folder, { ...IDENTITY, storage })).append([batch(range(0, 7))], 'w1');
    const manifest = JSON.parse(await readFile(join(folder, 'manifest-1.json'), 'utf8'));
    const { size } = await stat(join(segmentFolder(folder, manifest.segments[0].id), 'rows.bin'));
    const { memoryLayers, kvHeads, keptTokens, headDim } = LAYOUT;
    expect(size).toBe(7 * 2 * memoryLayers * kvHeads * keptTokens * headDim * 2);
  });
});

it('refuses numbers that float16 cannot hold, naming one and what to do', async () => {
  const folder = join(await temporaryFolder(), 'bank');
  const writer = await Bank.create(folder, { ...IDENTITY, storage: 'float16' });
  const tooLarge = batch([0, 1]);
  tooLarge.rows[5] = 70_000;
  await expect(writer.append([tooLarge], 'w1')).rejects.toMatchObject({
    code: 'input_invalid',
    message: expect.stringMatching(/70000.*float16/),
  });
  expect(writer.version).toBe(0);
  await writer.append([batch([0, 1])], 'w1');
});

it('says how many bytes a memory of the paper takes', () => {
  const paper = { memoryLayers: 22, kvHeads: 8, keptTokens: 8, headDim: 80 };
  expect(rowLength(paper)).toBe(225_280);
  expect(rowFormat({ layout: paper, storage: 'bfloat16' }).rowBytes).toBe(450_560);
});
