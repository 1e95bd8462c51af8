import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { batchAt, numSamples } from '../../src/data/batches.ts';
import { newCounters } from '../../src/data/documents.ts';
import { sampleAt } from '../../src/data/sample_order.ts';
import { TokenDataset, TokenDatasetWriter } from '../../src/data/token_dataset.ts';
import { document, temporaryFolder, userErrorOf } from './support.ts';

async function countingDataset(count: number): Promise<TokenDataset> {
  const folder = temporaryFolder();
  const writer = new TokenDatasetWriter(folder, {
    tokenizerHash: 'aa',
    vocabSize: 1000,
    shardTokens: 64,
    batchTokens: 16,
  });
  await writer.append(
    'train',
    document('d', 'text'),
    Int32Array.from({ length: count }, (_, i) => i),
  );
  await writer.finish(newCounters());
  return await TokenDataset.open(folder, 'train');
}

describe('sampleAt', () => {
  it('visits every sample once an epoch, in an order of its own', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 300 }), fc.nat(5), (seed, count, epoch) => {
        const order = Array.from({ length: count }, (_, i) => sampleAt(seed, epoch * count + i, count));
        expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
      }),
      { numRuns: 60 },
    );
    const order = (seed: number, epoch: number) =>
      Array.from({ length: 50 }, (_, i) => sampleAt(seed, epoch * 50 + i, 50));
    expect(order(1, 0)).not.toEqual(order(1, 1));
    expect(order(1, 0)).not.toEqual(order(2, 0));
  });
});

describe('batchAt', () => {
  const shape = { batchSize: 3, accumulate: 2, sequenceLength: 8 };

  it('cuts samples of T tokens with the next token as target', async () => {
    const dataset = await countingDataset(100);
    const { ids, targets, samples } = await batchAt(dataset, 5, 4, 1, shape);
    expect(ids).toHaveLength(24);
    for (const [row, sample] of samples.entries()) {
      const expected = Array.from({ length: 8 }, (_, i) => sample * 8 + i);
      expect([...ids.subarray(row * 8, row * 8 + 8)]).toEqual(expected);
      expect([...targets.subarray(row * 8, row * 8 + 8)]).toEqual(expected.map((id) => id + 1));
    }
    expect(samples).toEqual([0, 1, 2].map((row) => sampleAt(5, (4 * 2 + 1) * 3 + row, 12)));
  });

  it('sees every sample once in an epoch of micro-batches', async () => {
    const dataset = await countingDataset(97);
    expect(numSamples(dataset, 8)).toBe(12);
    const seen: number[] = [];
    for (let step = 0; step < 2; step++) {
      for (let micro = 0; micro < 2; micro++) seen.push(...(await batchAt(dataset, 9, step, micro, shape)).samples);
    }
    expect(seen.sort((a, b) => a - b)).toEqual([...Array(12).keys()]);
  });

  it('refuses a dataset that does not hold one sample', async () => {
    const dataset = await countingDataset(8);
    expect(numSamples(dataset, 8)).toBe(0);
    expect(await userErrorOf(batchAt(dataset, 1, 0, 0, shape))).toMatchObject({ code: 'input_empty' });
    expect((await batchAt(await countingDataset(9), 1, 0, 0, shape)).samples).toEqual([0, 0, 0]);
  });
});
