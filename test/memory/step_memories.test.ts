import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bank } from '../../src/memory/bank.ts';
import { stepMemories } from '../../src/memory/step_memories.ts';
import { batch, IDENTITY, memory, range, temporaryFolder } from './fixtures.ts';

async function openBank(): Promise<Bank> {
  const folder = join(await temporaryFolder(), 'bank');
  await (await Bank.create(folder, IDENTITY, { segmentMemories: 3 })).append([batch(range(0, 8))], 'w1');
  return Bank.open(folder);
}

describe('stepMemories', () => {
  it('reads each memory once and says which slot reads which', async () => {
    const bank = await openBank();
    const step = await stepMemories(
      bank,
      [
        [[], ['m5']],
        [
          ['m2', 'm5'],
          ['m0', 'm2'],
        ],
      ],
      { memoriesPerChunk: 2, padTo: 4 },
    );
    expect(step.ids).toEqual(['m5', 'm2', 'm0']);
    expect(step.count).toBe(4);
    expect([...step.index]).toEqual([-1, -1, 0, -1, 1, 0, 2, 1]);
    expect([...step.lengths]).toEqual([1, 3, 1, 0]);
    expect(step.type).toBe('float32');
    const numbers = [5, 2, 0].flatMap((number) => [...memory(number).row]);
    const empty = Array.from(memory(0).row, () => 0);
    expect(Array.from(new Float32Array(step.rows.buffer))).toEqual([...numbers, ...empty]);
    expect(bank.cacheStats).toMatchObject({ hits: 0, misses: 3 });
    await bank.close();
  });

  it('has at least one, empty, memory when no chunk reads any', async () => {
    const bank = await openBank();
    const step = await stepMemories(bank, [[[], []]], { memoriesPerChunk: 2 });
    expect(step).toMatchObject({ ids: [], count: 1 });
    expect([...step.lengths]).toEqual([0]);
    expect([...step.index]).toEqual([-1, -1, -1, -1]);
    expect(step.rows).toEqual(new Int32Array(memory(0).row.length));
    await bank.close();
  });

  it('refuses unknown memories, ragged batches and too many memories', async () => {
    const bank = await openBank();
    const options = { memoriesPerChunk: 1 };
    await expect(stepMemories(bank, [[['m99']]], options)).rejects.toMatchObject({ code: 'memory_unknown' });
    await expect(stepMemories(bank, [[['m1', 'm2']]], options)).rejects.toThrow(/2 memories, there are 1 slots/);
    await expect(stepMemories(bank, [[[]], [[], []]], options)).rejects.toThrow(/different numbers of chunks/);
    await bank.close();
  });
});
