import fc from 'fast-check';
import { BPE, byteLevelPreTokenizer, Tokenizer } from 'tokenizers';
import { describe, expect, it } from 'vitest';
import { countNativeWords, countWords, type WordCounts, WordTable } from '../../src/data/bpe/words.ts';
import { anyCharacter } from './support.ts';

function asMap({ bytes, ends, counts }: WordCounts): Map<string, number> {
  return new Map(
    [...ends].map((end, i) => [Buffer.from(bytes.subarray(ends[i - 1] ?? 0, end)).toString('latin1'), counts[i]!]),
  );
}

const words = fc.array(fc.tuple(fc.string({ maxLength: 6, minLength: 1 }), fc.integer({ min: 1, max: 9 })), {
  maxLength: 40,
});

function counted(pairs: [string, number][]): WordCounts {
  const spelled = pairs.map(([word]) => Buffer.from(word));
  let end = 0;
  return {
    bytes: new Uint8Array(Buffer.concat(spelled)),
    ends: Int32Array.from(spelled, ({ length }) => {
      end += length;
      return end;
    }),
    counts: Float64Array.from(pairs, ([, count]) => count),
  };
}

describe('countWords', () => {
  it('cuts words as the pre-tokenizer of `tokenizers` does', () => {
    const native = new Tokenizer(BPE.empty());
    native.setPreTokenizer(byteLevelPreTokenizer(false, true));
    const unit = fc.oneof(anyCharacter, fc.constantFrom("'s", "'ll", "'", ' ', '  ', '\n', '\t', '東京', 'word', '12'));
    // Where Node's Unicode (17) and that of `tokenizers` 0.23 differ: letters and numbers that are newer than the library.
    const NEWER = /[\u0870-\u08ff\u0c5c\u0cdc\ua7c0-\ua7ff\u{10900}-\u{1e7ff}\u{2b700}-\u{3ffff}]/u;
    const known = fc.string({ unit, maxLength: 30 }).filter((text) => !NEWER.test(text));
    fc.assert(
      fc.property(fc.array(known, { maxLength: 5 }), (texts) => {
        expect(asMap(countWords(texts))).toEqual(asMap(countNativeWords(texts, native)));
      }),
      { numRuns: 200 },
    );
  });
});

describe('WordTable', () => {
  it('adds up counts', () => {
    fc.assert(
      fc.property(fc.array(words, { maxLength: 5 }), (groups) => {
        const table = new WordTable();
        const expected = new Map<string, number>();
        for (const group of groups) {
          table.add(counted(group));
          for (const [word, count] of group) {
            const key = Buffer.from(word).toString('latin1');
            expected.set(key, (expected.get(key) ?? 0) + count);
          }
        }
        expect(table.thinned).toBe(false);
        expect(asMap(table.take())).toEqual(expected);
      }),
    );
  });

  it('keeps its bound by thinning rare words, and counts stay right on average', () => {
    const table = new WordTable(40_000);
    for (let group = 0; group < 40; group++) {
      const rare = Array.from({ length: 500 }, (_, i): [string, number] => [`rare${group * 500 + i}`, 1]);
      table.add(counted([...rare, ['frequent', 1000]]));
    }
    expect(table.thinned).toBe(true);
    const kept = table.take();
    expect(kept.bytes.length).toBeLessThanOrEqual(40_000);
    const counts = asMap(kept);
    expect(counts.get('frequent')).toBe(40_000);
    counts.delete('frequent');
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    expect(total).toBeGreaterThan(0.9 * 20_000);
    expect(total).toBeLessThan(1.1 * 20_000);
  });
});
