/** Ranks texts by the words that they share with a question, one after the other, in bounded memory. */

import type { FoundMemory } from './api.ts';

const MOST_WORDS = 32;
/** Parts of a score: words found, all of them as they were typed, in the title, and how often. */
const WEIGHTS = { words: 1, phrase: 0.5, title: 0.25, often: 0.1 };

export class Search {
  readonly #phrase: string;
  readonly #words: string[];
  readonly #limit: number;
  /** Best first; equals in the order in which they were offered. */
  #best: (FoundMemory & { score: number })[] = [];
  #first: FoundMemory[] = [];

  constructor(text: string, limit: number) {
    this.#phrase = text.trim().toLowerCase();
    this.#words = [...new Set(this.#phrase.match(/[\p{L}\p{N}]+/gu) ?? [])].slice(0, MOST_WORDS);
    this.#limit = limit;
  }

  /** Whether nothing that is offered can change the result: without words the first ones are. */
  get isFull(): boolean {
    return this.#words.length === 0 && this.#first.length >= this.#limit;
  }

  /** @param make the memory, asked for only when it is among the best so far */
  offer(title: string, text: string, make: () => FoundMemory): void {
    if (this.#words.length === 0) {
      if (!this.isFull) this.#first.push(make());
      return;
    }
    const score = this.#scoreOf(title.toLowerCase(), text.toLowerCase());
    const last = this.#best.at(-1);
    if (score === 0 || (this.#best.length >= this.#limit && last !== undefined && score <= last.score)) return;
    let at = this.#best.length;
    while (at > 0 && this.#best[at - 1]!.score < score) at -= 1;
    this.#best.splice(at, 0, { ...make(), score });
    this.#best.length = Math.min(this.#best.length, this.#limit);
  }

  found(): FoundMemory[] {
    return this.#words.length === 0 ? this.#first : this.#best;
  }

  #scoreOf(title: string, text: string): number {
    let [found, inTitle, often] = [0, 0, 0];
    for (const word of this.#words) {
      const isInTitle = title.includes(word);
      const count = countOf(text, word);
      if (isInTitle) inTitle += 1;
      if (isInTitle || count > 0) found += 1;
      often += count / (count + 1);
    }
    if (found === 0) return 0;
    const isPhrase = this.#words.length > 1 && (text.includes(this.#phrase) || title.includes(this.#phrase));
    const each = this.#words.length;
    const sum = (WEIGHTS.words * found + WEIGHTS.title * inTitle + WEIGHTS.often * often) / each;
    return sum + (isPhrase ? WEIGHTS.phrase : 0);
  }
}

/** How often a word stands in a text, up to 8 times; a part of a longer word counts half. */
function countOf(text: string, word: string): number {
  let count = 0;
  for (let at = text.indexOf(word); at >= 0 && count < 8; at = text.indexOf(word, at + word.length)) {
    const isWhole = !isLetter(text[at - 1]) && !isLetter(text[at + word.length]);
    count += isWhole ? 1 : 0.5;
  }
  return count;
}

function isLetter(character: string | undefined): boolean {
  return character !== undefined && /[\p{L}\p{N}]/u.test(character);
}
