/** Cleaning of training documents (paper §4.2): Unicode normalisation, and rules that drop what is hardly language. */

import type { CleaningConfig } from '../config/schema.ts';
import { HashCounts, mix32, WordScanner } from './words.ts';

export interface Cleaned {
  text: string;
  /** Why the document is dropped: the reason that is counted, and what exactly. */
  dropped?: { reason: string; detail: string };
}

/** Words that `uniqueWordShare` looks at. */
const FIRST_WORDS = 1000;

// One of each for all texts: they are worked on one after the other.
const scanner = new WordScanner();
const counts = new HashCounts();

/** What one pass over a text counts, for all rules that need no more. */
export interface TextCounts {
  words: number;
  /** Words that are single letters of a script without spaces. */
  unspacedWords: number;
  /** Mean length of the other words, in letters and digits; NaN without any. */
  meanSpacedLength: number;
  /** Share of characters, white space apart, that are neither letters nor marks of one; 0 without any. */
  nonAlphabeticShare: number;
}

export function countText(text: string): TextCounts {
  scanner.start(text);
  while (scanner.next() > 0);
  const { visible, alphabetic, unspacedWords, spacedWords, spacedCharacters } = scanner;
  return {
    words: spacedWords + unspacedWords,
    unspacedWords,
    meanSpacedLength: spacedCharacters / spacedWords,
    nonAlphabeticShare: visible === 0 ? 0 : 1 - alphabetic / visible,
  };
}

/** A text that is counted when the first rule asks. */
export class MeasuredText {
  readonly text: string;
  #counts: TextCounts | undefined;

  constructor(text: string) {
    this.text = text;
  }

  get counts(): TextCounts {
    this.#counts ??= countText(this.text);
    return this.#counts;
  }
}

/** Words; in scripts without spaces every letter is one. */
export function wordCount({ counts }: MeasuredText): number {
  return counts.words;
}

/**
 * Mean length of the words in letters and digits, those of scripts without spaces left out; undefined when these are more
 * than half of the words, or there are no others.
 */
export function meanWordLength({ counts }: MeasuredText): number | undefined {
  const { words, unspacedWords, meanSpacedLength } = counts;
  return unspacedWords * 2 > words || unspacedWords === words ? undefined : meanSpacedLength;
}

/** Share of characters, white space apart, that are neither letters (of any script) nor marks of one. */
export function nonAlphabeticShare({ counts }: MeasuredText): number {
  return counts.nonAlphabeticShare;
}

/** Share of distinct words among the first 1,000, as a long text repeats its words; undefined without words. */
export function uniqueWordShare({ text }: MeasuredText): number | undefined {
  counts.clear();
  scanner.start(text);
  const words = Math.min(scanner.next(), FIRST_WORDS);
  for (let i = 0; i < words; i++) counts.add(scanner.hashes[i]!);
  return words === 0 ? undefined : counts.size / words;
}

/** Entropy of the distribution of the words in the text, in bits a word: log₂ n of n different words, 0 of one repeated. */
export function unigramEntropy({ text }: MeasuredText): number | undefined {
  counts.clear();
  scanner.start(text);
  let total = 0;
  for (let words = scanner.next(); words > 0; words = scanner.next()) {
    for (let i = 0; i < words; i++) counts.add(scanner.hashes[i]!);
    total += words;
  }
  let sum = 0;
  counts.forEach((count) => {
    sum += count * Math.log2(count);
  });
  return total === 0 ? undefined : Math.max(0, Math.log2(total) - sum / total);
}

/** Share of characters in lines that repeat an earlier line; white space at the ends of lines and empty lines do not count. */
export function repeatedLineShare({ text }: MeasuredText): number {
  counts.clear();
  let [all, repeated] = [0, 0];
  for (let start = 0; start < text.length; ) {
    const end = text.indexOf('\n', start);
    const line = text.slice(start, end < 0 ? text.length : end).trim();
    start = end < 0 ? text.length : end + 1;
    if (line === '') continue;
    all += line.length;
    if (counts.add(hashLine(line)) > 1) repeated += line.length;
  }
  return all === 0 ? 0 : repeated / all;
}

/** FNV-1a of the code units, mixed once more. */
function hashLine(line: string): number {
  let hash = 0x811c9dc5 | 0;
  for (let i = 0; i < line.length; i++) hash = Math.imul(hash ^ line.charCodeAt(i), 0x01000193);
  return mix32(hash);
}

interface Rule {
  /** The reason under which documents are counted that break it. */
  reason: string;
  key: Exclude<keyof CleaningConfig, 'unicode'>;
  /** The limit that switches the rule off. */
  off: number;
  /** Undefined where the rule does not apply. */
  measure(text: MeasuredText): number | undefined;
  limit: 'at least' | 'at most';
  /** What was measured, in words. */
  words(value: number): string;
}

/** The rules in the order in which they are asked, cheap ones first; a document is counted under the first that it breaks. */
export const RULES: readonly Rule[] = [
  {
    reason: 'too few words',
    key: 'minWords',
    off: 0,
    measure: wordCount,
    limit: 'at least',
    words: (value) => (value === 1 ? '1 word' : `${value} words`),
  },
  {
    reason: 'words too short',
    key: 'minMeanWordLength',
    off: 0,
    measure: meanWordLength,
    limit: 'at least',
    words: (value) => `mean word length ${value}`,
  },
  {
    reason: 'words too long',
    key: 'maxMeanWordLength',
    off: 0,
    measure: meanWordLength,
    limit: 'at most',
    words: (value) => `mean word length ${value}`,
  },
  {
    reason: 'too few letters',
    key: 'maxNonAlphabetic',
    off: 1,
    measure: nonAlphabeticShare,
    limit: 'at most',
    words: (value) => `share of other characters than letters ${value}`,
  },
  {
    reason: 'too few distinct words',
    key: 'minUniqueWords',
    off: 0,
    measure: uniqueWordShare,
    limit: 'at least',
    words: (value) => `share of distinct words ${value}`,
  },
  {
    reason: 'low entropy',
    key: 'minEntropy',
    off: 0,
    measure: unigramEntropy,
    limit: 'at least',
    words: (value) => `entropy of ${value} bits a word`,
  },
  {
    reason: 'repeated lines',
    key: 'maxRepeatedLines',
    off: 1,
    measure: repeatedLineShare,
    limit: 'at most',
    words: (value) => `share of text in repeated lines ${value}`,
  },
];

/**
 * The text as it is trained on, and why it is dropped if it breaks a rule of `config`. A rule that is off costs nothing.
 * With `unicode` other than `none` see {@link normaliseText}; a text that is empty after it is dropped.
 */
export function cleanText(original: string, config: CleaningConfig): Cleaned {
  const text = config.unicode === 'none' ? original : normaliseText(original, config.unicode);
  if (config.unicode !== 'none' && text.trim() === '' && original !== '') {
    return { text, dropped: { reason: 'empty text', detail: 'only white space and control characters' } };
  }
  const measured = new MeasuredText(text);
  for (const { reason, key, off, measure, limit, words } of RULES) {
    const bound = config[key];
    if (bound === off) continue;
    const value = measure(measured);
    if (value === undefined || (limit === 'at least' ? value >= bound : value <= bound)) continue;
    return { text, dropped: { reason, detail: `${words(rounded(value, bound))}, ${limit} ${bound}` } };
  }
  return { text };
}

/** `value` with three digits, or as many as tell it from the limit that it breaks. */
function rounded(value: number, limit: number): number {
  const short = Number(value.toPrecision(3));
  return short === limit || Number.isInteger(value) ? value : short;
}

/**
 * `text` in a Unicode normalisation form, with line ends (CR LF, CR, NEL, vertical tab, form feed) as line feeds, without
 * other control characters but tabs, and without white space at the ends of lines. Done twice it is the same as once.
 */
export function normaliseText(text: string, form: 'nfc' | 'nfkc'): string {
  return (
    text
      .replace(/\r\n?|[\v\f\u0085]/g, '\n')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is dropped
      .replace(/[\0-\x08\x0e-\x1f\x7f-\x9f]/g, '')
      .normalize(form === 'nfc' ? 'NFC' : 'NFKC')
      // Begins only where a run of white space does: a long run in the middle of a line is read once.
      .replace(/(?<![^\S\n])[^\S\n]+(?![^\n])/g, '')
  );
}
