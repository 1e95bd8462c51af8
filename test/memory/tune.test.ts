import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { faissAvailable } from '../../src/engine/native/faiss.ts';
import { Bank } from '../../src/memory/bank.ts';
import { LexicalEncoder } from '../../src/memory/encoders/lexical.ts';
import { tuneIndex } from '../../src/memory/tune.ts';
import { batch, IDENTITY, memory, range, temporaryFolder } from './fixtures.ts';

beforeAll(() => openEngine('cpu', 1));

describe.runIf(faissAvailable().ok)('tuneIndex', () => {
  it('measures each way until it finds enough, exact search first', async () => {
    const numbers = range(0, 300);
    const tokens = numbers.map((number) => memory(number).record.tokens);
    const encoder = await LexicalEncoder.fit(tokens, IDENTITY.encoder.dimensions);
    const folder = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(folder, IDENTITY);
    await writer.append([{ ...batch(numbers), vectors: await encoder.encodeReferences({ tokens }) }], 'w');
    const bank = await Bank.open(folder);
    const options = { factories: ['HNSW8', 'IVF4,Flat', 'Flat'], k: 5, recall: 0.95, queries: 30 };
    const { trials, best } = await tuneIndex(bank, encoder, options);
    expect(trials[0]).toMatchObject({ factory: 'exact', recall: 1 });
    for (const factory of options.factories) {
      const own = trials.filter((trial) => trial.factory === factory);
      expect(own.slice(0, -1).every(({ recall }) => recall < 0.95)).toBe(true);
      expect(own.at(-1)!.recall).toBeGreaterThanOrEqual(0.95);
    }
    expect(trials.find(({ factory }) => factory === 'Flat')!.recall).toBe(1);
    const fastest = trials.filter(({ recall }) => recall >= 0.95).sort((a, b) => a.milliseconds - b.milliseconds)[0]!;
    expect(best?.spec.factory ?? 'exact').toBe(fastest.factory);
    await best?.close();
    await bank.close();
  });

  it('has nothing to measure in an empty bank', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    await Bank.create(folder, IDENTITY);
    const bank = await Bank.open(folder);
    const encoder = await LexicalEncoder.fit([], IDENTITY.encoder.dimensions);
    await expect(tuneIndex(bank, encoder, { factories: [], k: 5, recall: 0.9 })).rejects.toMatchObject({
      code: 'input_empty',
    });
    await bank.close();
  });
});
