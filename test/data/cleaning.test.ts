import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CleaningConfig, cleaningSchema } from '../../src/config/schema.ts';
import {
  cleanText,
  MeasuredText,
  meanWordLength,
  nonAlphabeticShare,
  normaliseText,
  repeatedLineShare,
  unigramEntropy,
  uniqueWordShare,
  wordCount,
} from '../../src/data/cleaning.ts';
import { anyCharacter } from './support.ts';

const measured = (text: string) => new MeasuredText(text);
const droppedBy = (text: string, config: Partial<CleaningConfig>) =>
  cleanText(text, cleaningSchema.parse(config)).dropped;
const CHINESE = '四川盆地位于中国西南部，面积约二十六万平方公里。';

describe('measures', () => {
  it('count words, by letter in Chinese', () => {
    expect(wordCount(measured('One, two; three.'))).toBe(3);
    expect(wordCount(measured(CHINESE))).toBe(22);
    expect(wordCount(measured('— … !'))).toBe(0);
  });

  it('take the mean length of spaced words, and of none in a text that is mostly Chinese', () => {
    expect(meanWordLength(measured('One, three!'))).toBe(4);
    expect(meanWordLength(measured('cafe\u0301 café'))).toBe(4);
    expect(meanWordLength(measured('reads 中 text'))).toBe(4.5);
    expect(meanWordLength(measured(`${CHINESE} internationalization`))).toBeUndefined();
    expect(meanWordLength(measured('!?'))).toBeUndefined();
  });

  it('take Chinese for letters, digits and signs not', () => {
    expect(nonAlphabeticShare(measured('ab 1!'))).toBe(0.5);
    expect(nonAlphabeticShare(measured('四川，'))).toBeCloseTo(1 / 3);
    expect(nonAlphabeticShare(measured('ไทย कि'))).toBe(0);
    expect(nonAlphabeticShare(measured(' \n'))).toBe(0);
  });

  it('take distinct words of the first thousand', () => {
    expect(uniqueWordShare(measured('a b A c'))).toBe(0.75);
    const different = Array.from({ length: 1000 }, (_, i) => `w${i}`).join(' ');
    expect(uniqueWordShare(measured(`${different} ${'again '.repeat(9000)}`))).toBe(1);
    expect(uniqueWordShare(measured('?'))).toBeUndefined();
  });

  it('take the entropy of the words', () => {
    expect(unigramEntropy(measured('a a a'))).toBe(0);
    expect(unigramEntropy(measured('a b c d'))).toBe(2);
    expect(unigramEntropy(measured(''))).toBeUndefined();
    fc.assert(
      fc.property(fc.array(fc.nat(40), { minLength: 1, maxLength: 6000, size: 'max' }), (words) => {
        const counts = new Map<number, number>();
        for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
        const shares = [...counts.values()].map((count) => count / words.length);
        const entropy = -shares.reduce((sum, share) => sum + share * Math.log2(share), 0);
        expect(unigramEntropy(measured(words.map((word) => `w${word}`).join(' ')))).toBeCloseTo(entropy, 9);
      }),
      { numRuns: 20 },
    );
  });

  it('take the text in repeated lines', () => {
    expect(repeatedLineShare(measured('abc\n\n abc \nde\n\nabc'))).toBeCloseTo(6 / 11);
    expect(repeatedLineShare(measured('one\ntwo\n'))).toBe(0);
    expect(repeatedLineShare(measured('\n \n'))).toBe(0);
  });
});

describe('cleanText', () => {
  const cases: [string, Partial<CleaningConfig>, Partial<CleaningConfig>, string, string][] = [
    ['one two three', { minWords: 3 }, { minWords: 5 }, 'too few words', '3 words, at least 5'],
    ['word', { minWords: 1 }, { minWords: 2 }, 'too few words', '1 word, at least 2'],
    [
      'a b cd',
      { minMeanWordLength: 1.3 },
      { minMeanWordLength: 2 },
      'words too short',
      'mean word length 1.33, at least 2',
    ],
    ['abcd ef', { maxMeanWordLength: 3 }, { maxMeanWordLength: 2 }, 'words too long', 'mean word length 3, at most 2'],
    [
      'ab 12',
      { maxNonAlphabetic: 0.5 },
      { maxNonAlphabetic: 0.4 },
      'too few letters',
      'share of other characters than letters 0.5, at most 0.4',
    ],
    [
      'a a b b',
      { minUniqueWords: 0.5 },
      { minUniqueWords: 0.6 },
      'too few distinct words',
      'share of distinct words 0.5, at least 0.6',
    ],
    ['a a b b', { minEntropy: 1 }, { minEntropy: 1.5 }, 'low entropy', 'entropy of 1 bits a word, at least 1.5'],
    [
      'same\nsame',
      { maxRepeatedLines: 0.5 },
      { maxRepeatedLines: 0.3 },
      'repeated lines',
      'share of text in repeated lines 0.5, at most 0.3',
    ],
  ];

  it.each(cases)('keeps %j at %j and drops it at %j: %s', (text, keeps, drops, reason, detail) => {
    expect(droppedBy(text, keeps)).toBeUndefined();
    expect(droppedBy(text, drops)).toEqual({ reason, detail });
  });

  it('drops nothing and changes nothing with all rules off', () => {
    fc.assert(
      fc.property(fc.string({ unit: anyCharacter }), (text) => {
        expect(cleanText(text, cleaningSchema.parse({}))).toEqual({ text });
      }),
    );
  });

  it('does not ask Chinese for the length of its words', () => {
    const rules = {
      minMeanWordLength: 3,
      maxMeanWordLength: 10,
      maxNonAlphabetic: 0.3,
      minWords: 20,
      minUniqueWords: 0.5,
    };
    expect(droppedBy(CHINESE, rules)).toBeUndefined();
    expect(droppedBy('a b c d e f '.repeat(5), rules)?.reason).toBe('words too short');
  });

  it('tells a value from the limit that it just breaks', () => {
    const text = `${'a'.repeat(70001)}${'1'.repeat(29999)}`;
    expect(droppedBy(text, { maxNonAlphabetic: 0.29 })?.detail).toContain('0.3, at most 0.29');
    expect(droppedBy(text, { maxNonAlphabetic: 0.29998 })?.detail).toMatch(/0\.3, at most 0\.29998/);
    expect(droppedBy(`${'a'.repeat(699)}${'1'.repeat(301)}b`, { maxNonAlphabetic: 0.3 })?.detail).toContain(
      '0.301, at most 0.3',
    );
    expect(droppedBy(`${'a'.repeat(69999)}${'1'.repeat(30001)}`, { maxNonAlphabetic: 0.3 })?.detail).toContain(
      '0.30001',
    );
  });

  it('drops what normalisation leaves empty', () => {
    expect(cleanText('\u0000\u0007 \u001b', cleaningSchema.parse({ unicode: 'nfc' }))).toEqual({
      text: '',
      dropped: { reason: 'empty text', detail: 'only white space and control characters' },
    });
    expect(cleanText('\u0001\n \u0001', cleaningSchema.parse({ unicode: 'nfc' })).dropped?.reason).toBe('empty text');
  });
});

describe('normaliseText', () => {
  it('composes, unifies line ends, and drops control characters and white space at line ends', () => {
    expect(normaliseText('cafe\u0301\t x \r\ny\u00a0\rz\u0000\fend\u3000 ', 'nfc')).toBe('café\t x\ny\nz\nend');
    expect(normaliseText('ﬁ　Ａ１', 'nfc')).toBe('ﬁ　Ａ１');
    expect(normaliseText('ﬁ　Ａ１', 'nfkc')).toBe('fi A1');
  });

  it('holds what it says for any text, and is done when done once', () => {
    const character = fc.oneof(
      anyCharacter,
      fc.constantFrom('\r', '\n', ' ', '\u0000', '\u0085', '\u0301', 'e', '\u00a8'),
    );
    const form = fc.constantFrom('nfc', 'nfkc');
    fc.assert(
      fc.property(fc.string({ unit: character, maxLength: 60, size: 'max' }), form, (text, form) => {
        const normal = normaliseText(text, form);
        expect(normaliseText(normal, form)).toBe(normal);
        expect(normal.normalize(form.toUpperCase())).toBe(normal);
        expect(normal).not.toMatch(/(?![\t\n])\p{Cc}/u);
        for (const line of normal.split('\n')) expect(line.trimEnd()).toBe(line);
      }),
      { numRuns: 1000 },
    );
  });

  it('reads long runs of white space once', () => {
    const start = performance.now();
    expect(normaliseText(`${' '.repeat(2 ** 21)}a`, 'nfc')).toHaveLength(2 ** 21 + 1);
    // A run that is begun at each of its places would take minutes.
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
