import { describe, expect, it } from 'vitest';
import { batchAt } from '../../src/data/batches.ts';
import { SampleOrder } from '../../src/data/sample_order.ts';
import { TokenDataset } from '../../src/data/token_dataset.ts';
import { userErrorOf, writeTokens } from './support.ts';

async function countingDataset(count: number): Promise<TokenDataset> {
  const folder = await writeTokens({ all: [Array.from({ length: count }, (_, i) => i)] });
  return await TokenDataset.open(folder, 'train');
}

describe('batchAt', () => {
  const shape = { batchSize: 3, accumulate: 2 };
  const orderOf = (dataset: TokenDataset) => new SampleOrder(dataset.segments, 8);

  it('cuts samples of T tokens with the next token as target', async () => {
    const dataset = await countingDataset(100);
    const order = orderOf(dataset);
    const { ids, targets, starts } = await batchAt(dataset, order, 5, 4, 1, shape);
    expect(ids).toHaveLength(24);
    for (const [row, start] of starts.entries()) {
      const expected = Array.from({ length: 8 }, (_, i) => start + i);
      expect([...ids.subarray(row * 8, row * 8 + 8)]).toEqual(expected);
      expect([...targets.subarray(row * 8, row * 8 + 8)]).toEqual(expected.map((id) => id + 1));
    }
    expect(starts).toEqual([0, 1, 2].map((row) => order.startAt(5, (4 * 2 + 1) * 3 + row)));
  });

  it('teaches the end of a document that is filled up, and no padding', async () => {
    const [bos, pad] = [0, 4];
    const folder = await writeTokens(
      {
        all: [
          [bos, 7, 8, pad, pad, pad],
          [bos, 9, 5],
        ],
      },
      { pad },
    );
    const dataset = await TokenDataset.open(folder, 'train');
    const { ids, targets } = await batchAt(dataset, orderOf(dataset), 1, 0, 0, { batchSize: 1, accumulate: 1 });
    expect([...ids]).toEqual([bos, 7, 8, pad, pad, pad, bos, 9]);
    expect([...targets]).toEqual([7, 8, bos, -1, -1, bos, 9, 5]);
  });

  it('sees every sample once in an epoch of micro-batches', async () => {
    const dataset = await countingDataset(97);
    const order = orderOf(dataset);
    expect(order.numSamples).toBe(12);
    const seen: number[] = [];
    for (let step = 0; step < 2; step++) {
      for (let micro = 0; micro < 2; micro++) {
        seen.push(...(await batchAt(dataset, order, 9, step, micro, shape)).starts);
      }
    }
    expect(seen.sort((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, i) => 8 * i));
  });

  it('refuses a dataset that does not hold one sample', async () => {
    const dataset = await countingDataset(8);
    expect(await userErrorOf(batchAt(dataset, orderOf(dataset), 1, 0, 0, shape))).toMatchObject({
      code: 'input_empty',
    });
    const whole = await countingDataset(9);
    expect((await batchAt(whole, orderOf(whole), 1, 0, 0, shape)).starts).toEqual([0, 0, 0]);
  });
});
