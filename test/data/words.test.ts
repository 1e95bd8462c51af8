import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HashCounts, WordScanner } from '../../src/data/words.ts';
import { anyCharacter } from './support.ts';

const UNSPACED =
  '(?=[\\p{L}\\p{Nl}])[\\p{scx=Hani}\\p{scx=Hira}\\p{scx=Kana}\\p{scx=Thai}\\p{scx=Laoo}\\p{scx=Khmr}\\p{scx=Mymr}]';
const LETTER = `(?:(?!${UNSPACED})[\\p{L}\\p{N}]|\\p{M})`;
const WORD = new RegExp(`${UNSPACED}\\p{M}*|${LETTER}+`, 'gu');

function hashes(text: string): number[] {
  const scanner = new WordScanner();
  const all: number[] = [];
  scanner.start(text);
  for (let words = scanner.next(); words > 0; words = scanner.next()) all.push(...scanner.hashes.subarray(0, words));
  return all;
}

/** Texts in which words of several scripts meet without a space. */
const text = fc
  .array(
    fc.oneof(anyCharacter, fc.constantFrom('a', 'B', 'é', 'e\u0301', ' ', '\n', '中', '文', 'カ', 'ไ', 'ที่', '7', '𠀀')),
  )
  .map((parts) => parts.join(''));

describe('WordScanner', () => {
  it('finds the words that a pattern finds', () => {
    fc.assert(
      fc.property(text, (text) => {
        const words = text.match(WORD) ?? [];
        expect(hashes(text)).toEqual(words.flatMap((word) => hashes(word)));
        expect(words.flatMap((word) => hashes(word))).toHaveLength(words.length);
      }),
      { numRuns: 500 },
    );
  });

  it('takes runs of letters and digits as words, without regard to case, and single letters where none are separated', () => {
    expect(hashes('Hello, WORLD 42nd')).toEqual([...hashes('hello'), ...hashes('world'), ...hashes('42ND')]);
    expect(hashes('ÉTÉ')).toEqual(hashes('été'));
    expect(hashes('中文字')).toEqual(['中', '文', '字'].flatMap(hashes));
    expect(hashes('GPT是模型')).toHaveLength(4);
    expect(hashes('ひらがな カタカナー')).toHaveLength(9);
    expect(hashes('한국어 단어')).toHaveLength(2);
    expect(hashes('… — !? 🙂')).toEqual([]);
  });

  it('gives different words different hashes', () => {
    const words = Array.from({ length: 20_000 }, (_, i) => i.toString(36));
    // Among 20,000 values of 32 bits 0.05 collisions are expected.
    expect(new Set(words.flatMap(hashes)).size).toBeGreaterThan(19_997);
  });

  it('hands out a long text in blocks, and counts its characters', () => {
    const one = 'The café of 42 中文… ';
    const scanner = new WordScanner();
    scanner.start(one.repeat(3000));
    let [words, blocks] = [0, 0];
    for (let count = scanner.next(); count > 0; count = scanner.next()) [words, blocks] = [words + count, blocks + 1];
    expect({ words, blocks }).toEqual({ words: 18_000, blocks: 5 });
    expect(hashes(one.repeat(3000))).toEqual(Array.from({ length: 3000 }, () => hashes(one)).flat());
    const { visible, alphabetic, unspacedWords, spacedWords, spacedCharacters } = scanner;
    expect({ visible, alphabetic, unspacedWords, spacedWords, spacedCharacters }).toEqual({
      visible: 14 * 3000,
      alphabetic: 11 * 3000,
      unspacedWords: 2 * 3000,
      spacedWords: 4 * 3000,
      spacedCharacters: 11 * 3000,
    });
  });
});

describe('HashCounts', () => {
  it('counts as a Map does, also after it was cleared', () => {
    const table = new HashCounts();
    const hash = fc.oneof(fc.nat(30), fc.integer({ min: 0, max: 0xffffffff }));
    fc.assert(
      fc.property(fc.array(hash, { maxLength: 1200, size: 'max' }), (values) => {
        table.clear();
        const counts = new Map<number, number>();
        for (const value of values) {
          counts.set(value, (counts.get(value) ?? 0) + 1);
          expect(table.add(value)).toBe(counts.get(value));
        }
        const found = new Map<number, number>();
        table.forEach((count, value) => void found.set(value, count));
        expect(found).toEqual(counts);
        expect(table.size).toBe(counts.size);
      }),
      { numRuns: 30 },
    );
  });
});
