import { describe, expect, it } from 'vitest';
import { runSchema, sourceSchema } from '../../src/config/schema.ts';
import { openText, TextBatches } from '../../src/train/text_batches.ts';
import { writeTokens } from '../data/support.ts';

const BOS = 0;

async function batchesOf(sources: Record<string, number[][]>, data: object): Promise<TextBatches> {
  const folder = await writeTokens(sources);
  const list = Object.keys(sources).map((name) => ({ path: name, name }));
  const config = runSchema.parse({
    name: 'text',
    data: { sources: list, sequenceLength: 8, ...data },
    warmup: { batchSize: 1 },
  });
  const text = await openText(
    folder,
    config.data.sources.map((source) => sourceSchema.parse(source)),
  );
  return new TextBatches(config, config.warmup, text);
}

describe('TextBatches', () => {
  const document = (length: number) => [BOS, ...Array.from({ length: length - 1 }, (_, i) => i + 1)];

  it('keeps documents apart when it is asked to, and only then', async () => {
    const documents = { all: [document(3), document(6)] };
    const apart = await batchesOf(documents, { separateDocuments: true });
    const { input } = apart.plain(await apart.training(1, 0), 0);
    expect([...input.ids]).toEqual([0, 1, 2, 0, 1, 2, 3, 4]);
    expect([...input.firstVisible!]).toEqual([0, 0, 0, 3, 3, 3, 3, 3]);
    // Behind a prefix that begins like a document, the first document of a row sees it.
    expect([...apart.firstVisible(Int32Array.of(BOS, 9, 2, BOS, 1), 5)!]).toEqual([0, 0, 0, 3, 3]);
    const together = await batchesOf(documents, {});
    expect(together.plain(await together.training(1, 0), 0).input.firstVisible).toBeUndefined();
  });

  it('mixes sources by weight, and validates on all of what is held out', async () => {
    const sources = { few: [document(17)], many: Array.from({ length: 9 }, () => document(16)) };
    const weights = (few: number, many: number) => ({
      sources: [
        { path: 'few', name: 'few', weight: few },
        { path: 'many', name: 'many', weight: many },
      ],
    });
    const batches = await batchesOf(sources, weights(3, 1));
    const steps = await Promise.all(Array.from({ length: 19 }, (_, i) => batches.training(i + 1, 0)));
    // 2 + 17 sequences in an epoch, three quarters of them of the two that `few` has: 14.25.
    expect(steps.filter(({ starts }) => starts[0]! < 17)).toHaveLength(14);
    expect(batches.validationCount).toBe(0);
  });
});
