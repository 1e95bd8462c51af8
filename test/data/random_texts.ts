/** Seeded random texts in the likeness of two languages, and their similarity by definition. */

import { PURPOSE, randomInt, randomUniform } from '../../src/random.ts';

export interface Language {
  name: string;
  /** Words (English) or characters (Chinese), the frequent ones first. */
  vocabulary: string[];
  between: string;
}

const CONSONANTS = [...'bcdfghklmnprstvwz'];
const VOWELS = [...'aeiou'];
const pick = <T>(from: readonly T[], index: number) => from[index % from.length]!;

export const LANGUAGES: Language[] = [
  {
    name: 'English-like',
    vocabulary: Array.from(
      { length: 5000 },
      (_, i) =>
        [i, i >> 4, i >> 8].map((n) => pick(CONSONANTS, n) + pick(VOWELS, n >> 2)).join('') +
        (i % 3 ? '' : i.toString(36)),
    ),
    between: ' ',
  },
  {
    name: 'Chinese-like',
    vocabulary: Array.from({ length: 3000 }, (_, i) => String.fromCodePoint(0x4e00 + i * 5)),
    between: '',
  },
];

/** `count` words whose frequency falls with their rank. */
export function randomWords({ vocabulary }: Language, seed: number, count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const rank = Math.floor(vocabulary.length ** randomUniform(seed, PURPOSE.test, 0, i)) - 1;
    return vocabulary[Math.max(0, rank)]!;
  });
}

/** A copy in which each word is changed with probability `share`: replaced, left out, or followed by another. */
export function changed(language: Language, words: readonly string[], seed: number, share: number): string[] {
  const { vocabulary } = language;
  return words.flatMap((word, i) => {
    if (randomUniform(seed, PURPOSE.test, 1, i) >= share) return [word];
    const other = vocabulary[randomInt(seed, PURPOSE.test, 2, i, vocabulary.length)]!;
    return [[other], [], [word, other]][i % 3]!;
  });
}

/** The words as a text, with punctuation. */
export function asText({ between }: Language, words: readonly string[]): string {
  return words.map((word, i) => word + (i % 11 === 10 ? (between === '' ? '，' : ',') : '')).join(between);
}

/** All runs of five words, or the whole where there are fewer. */
export function shingles(words: readonly string[]): Set<string> {
  const runs = Math.max(1, words.length - 4);
  return new Set(Array.from({ length: runs }, (_, i) => words.slice(i, i + 5).join(' ')));
}

export function jaccard(a: Set<string>, b: Set<string>): number {
  const common = [...a].filter((shingle) => b.has(shingle)).length;
  return common / (a.size + b.size - common);
}

/** Finds the greatest similarity to any of many sets by counting what they have in common. */
export class TrueSimilarity {
  readonly #sizes: number[] = [];
  readonly #holders = new Map<string, number[]>();

  best(set: Set<string>): number {
    const common = new Map<number, number>();
    for (const shingle of set) {
      for (const holder of this.#holders.get(shingle) ?? []) common.set(holder, (common.get(holder) ?? 0) + 1);
    }
    const similarities = [...common].map(([holder, n]) => n / (this.#sizes[holder]! + set.size - n));
    return similarities.reduce((most, similarity) => Math.max(most, similarity), 0);
  }

  add(set: Set<string>): void {
    const number = this.#sizes.push(set.size) - 1;
    for (const shingle of set) {
      const holders = this.#holders.get(shingle);
      if (holders) holders.push(number);
      else this.#holders.set(shingle, [number]);
    }
  }
}
