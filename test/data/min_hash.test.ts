import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  banding,
  bandKeys,
  estimatedSimilarity,
  exactHash,
  MinHash,
  SIGNATURE_VALUES,
} from '../../src/data/min_hash.ts';
import { sha256 } from '../../src/io/files.ts';
import { asText, changed, jaccard, LANGUAGES, randomWords, shingles } from './random_texts.ts';
import { anyCharacter } from './support.ts';

const minHash = new MinHash();
const sign = (text: string) => minHash.sign(text) ?? expect.fail('no words');

describe('exactHash', () => {
  it('is the beginning of the sha256 of the text with its white space folded', () => {
    const hash = exactHash('  one\n\ttwo ');
    expect(Buffer.from(hash.buffer).toString('hex')).toBe(sha256('one two').slice(0, 32));
    expect(exactHash('one two')).toEqual(hash);
    expect(exactHash('One two')).not.toEqual(hash);
    expect(exactHash('onetwo')).not.toEqual(hash);
  });
});

describe('MinHash', () => {
  it('agrees in each place with the probability of the Jaccard similarity, for every length', () => {
    for (const language of LANGUAGES) {
      for (const length of [12, 60, 400, 3000]) {
        let [error, squares, variance] = [0, 0, 0];
        const pairs = length > 1000 ? 25 : 120;
        for (let pair = 0; pair < pairs; pair++) {
          const a = randomWords(language, pair * 7 + length, length);
          const b = changed(language, a, pair, (pair % 12) / 100);
          const true_ = jaccard(shingles(a), shingles(b));
          const difference = estimatedSimilarity(sign(asText(language, a)), sign(asText(language, b))) - true_;
          error += difference;
          squares += difference ** 2;
          variance += (true_ * (1 - true_)) / SIGNATURE_VALUES;
        }
        // Four standard deviations of the mean error; a fifth more than the variance of independent places, and noise.
        expect(Math.abs(error), `${language.name} ${length}`).toBeLessThan(4 * Math.sqrt(variance));
        expect(squares, `${language.name} ${length}`).toBeLessThan(1.2 * variance * (1 + 4 * Math.sqrt(2 / pairs)));
      }
    }
  });

  it('sees words only: neither case, punctuation nor white space', () => {
    const text = 'The river Arel rises in the mountains, and flows north.';
    expect(sign(text.toUpperCase().replaceAll(' ', '\n').replace(',', ' –'))).toEqual(sign(text));
    expect(estimatedSimilarity(sign(text), sign('The river Boru rises in the hills, and flows south.'))).toBeLessThan(
      0.2,
    );
    expect(minHash.sign('… ?!')).toBeUndefined();
    expect(minHash.sign('')).toBeUndefined();
  });

  it('takes fewer than five words as one shingle', () => {
    expect(estimatedSimilarity(sign('one two'), sign('one two'))).toBe(1);
    for (const other of ['two one', 'one', 'one two two', '一二']) {
      expect(estimatedSimilarity(sign('one two'), sign(other))).toBeLessThan(0.05);
    }
  });

  it('fills every place, and does not depend on what was signed before', () => {
    fc.assert(
      fc.property(fc.string({ unit: anyCharacter }), fc.string({ unit: anyCharacter }), (text, before) => {
        const signature = new MinHash().sign(text);
        minHash.sign(before);
        expect(minHash.sign(text)).toEqual(signature);
        expect(signature?.includes(0xffffffff) ?? false).toBe(false);
      }),
    );
  });

  it('counts a repeated shingle once', () => {
    const words = randomWords(LANGUAGES[0]!, 1, 50).join(' ');
    // The words around the seams make four shingles of their own.
    const [twice, often] = [2, 2000].map((times) => sign(`${words} `.repeat(times)));
    expect(often).toEqual(twice);
  });
});

describe('banding', () => {
  const probability = (j: number, { bands, rows }: ReturnType<typeof banding>) => 1 - (1 - j ** rows) ** bands;

  it('takes the most rows with which near duplicates become candidates with probability 0.99', () => {
    expect(banding(0.75)).toEqual({ bands: 16, rows: 8 });
    expect(banding(1)).toEqual({ bands: 1, rows: 128 });
    for (let threshold = 0; threshold <= 1; threshold += 0.01) {
      const { bands, rows } = banding(threshold);
      const similarity = Math.min(threshold + 0.1, (threshold + 1) / 2);
      expect(bands * rows).toBeLessThanOrEqual(SIGNATURE_VALUES);
      expect(probability(similarity, { bands, rows })).toBeGreaterThanOrEqual(0.99);
      const more = { rows: rows + 1, bands: Math.floor(SIGNATURE_VALUES / (rows + 1)) };
      if (rows < SIGNATURE_VALUES) expect(probability(similarity, more)).toBeLessThan(0.99);
    }
  });

  it('gives equal bands equal keys and others different ones', () => {
    const [a, b] = [sign('a text of several words in one line'), sign('a text of several words in one place')];
    const [keysA, keysB] = [new Uint32Array(16), new Uint32Array(16)];
    bandKeys(a, { bands: 16, rows: 8 }, keysA);
    bandKeys(b, { bands: 16, rows: 8 }, keysB);
    for (let band = 0; band < 16; band++) {
      const rows = (signature: Uint32Array) => signature.slice(band * 8, band * 8 + 8).join();
      expect(keysA[band] === keysB[band]).toBe(rows(a) === rows(b));
    }
    // The same values in another band are another key.
    bandKeys(new Uint32Array(128).fill(7), { bands: 16, rows: 8 }, keysA);
    expect(new Set(keysA).size).toBe(16);
  });
});
