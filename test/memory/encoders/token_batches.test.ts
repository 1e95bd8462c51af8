import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pooled, tokenBatches } from '../../../src/memory/encoders/token_batches.ts';

const PAD = 99;
const LIMIT = 24;

describe('tokenBatches', () => {
  it('holds every text once, padded at the end, and no batch is larger than allowed', () => {
    const texts = fc.array(fc.array(fc.nat(50), { maxLength: 40 }), { maxLength: 20 });
    fc.assert(
      fc.property(texts, (given) => {
        const batches = tokenBatches(given, PAD, LIMIT);
        expect(batches.flatMap((batch) => batch.texts).sort((a, b) => a - b)).toEqual(given.map((_, i) => i));
        for (const { texts, lengths, shape, ids, mask } of batches) {
          const [count, longest] = shape;
          expect(count === 1 || count * longest <= LIMIT).toBe(true);
          expect([texts.length, ids.length, mask.length]).toEqual([count, count * longest, count * longest]);
          texts.forEach((text, row) => {
            const padding = longest - given[text]!.length;
            const [from, until] = [row * longest, (row + 1) * longest];
            expect(lengths[row]).toBe(given[text]!.length);
            expect([...ids.slice(from, until)]).toEqual([...given[text]!, ...Array(padding).fill(PAD)]);
            expect([...mask.slice(from, until)]).toEqual([...given[text]!.map(() => 1), ...Array(padding).fill(0)]);
          });
        }
      }),
    );
  });

  it('puts texts of similar length together', () => {
    const batches = tokenBatches([[1], [1, 2, 3, 4, 5, 6], [2], [3, 4, 5, 6, 7, 8]], PAD, 12);
    expect(batches.map(({ texts }) => texts)).toEqual([
      [0, 2],
      [1, 3],
    ]);
  });
});

describe('pooled', () => {
  // Two texts of at most three tokens, two dimensions; what stands in padding is not looked at.
  const hidden = Float32Array.of(1, 10, 3, 30, 777, 777, 5, 50, 7, 70, 9, 120);
  const batch = { lengths: [2, 3], shape: [2, 3] as [number, number] };

  it('takes the first token, or the mean over the real ones', () => {
    expect([...pooled(hidden, batch, 'cls')]).toEqual([1, 10, 5, 50]);
    expect([...pooled(hidden, batch, 'mean')]).toEqual([2, 20, 7, 80]);
  });

  it('gives zeros for a text without tokens', () => {
    for (const pooling of ['cls', 'mean'] as const) {
      expect([...pooled(hidden, { ...batch, lengths: [0, 1] }, pooling)]).toEqual([0, 0, 5, 50]);
    }
  });
});
