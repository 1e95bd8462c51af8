/**
 * Counting words in bounded memory. Words lie in flat arrays, not in strings: a slice of a text keeps the whole text alive
 * in V8, and a Map of millions of strings costs several times the bytes of the words.
 */

import type { Tokenizer as NativeTokenizer } from 'tokenizers';

/** Distinct words and how often each occurs. */
export interface WordCounts {
  /** UTF-8 of all words, one after the other. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Where each word ends in `bytes`. */
  ends: Int32Array<ArrayBuffer>;
  counts: Float64Array<ArrayBuffer>;
}

/** GPT-2's word pattern. `\p{White_Space}` instead of `\s`: JavaScript's `\s` is not Unicode's white space. */
const WORDS =
  /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
/** Bytes of distinct words held at most: a trainer needs about 20 times as many. */
const MAX_BYTES = 2 ** 25;

/** The character that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`). */
export function byteCharacters(): string[] {
  // Printable Latin-1 bytes stand for themselves, the rest take the code points from 256 on.
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** The words of `texts` by GPT-2's pattern. */
export function countWords(texts: readonly string[]): WordCounts {
  return flattened(
    tally(texts, (text) => text.match(WORDS) ?? []),
    (word, bytes, at) => bytes.write(word, at),
  );
}

/** The words of `texts` as the normalizer and byte-level pre-tokenizer of `native` cut them. */
export function countNativeWords(texts: readonly string[], native: NativeTokenizer): WordCounts {
  const normalizer = native.getNormalizer();
  const preTokenizer = native.getPreTokenizer();
  if (!preTokenizer) throw new Error('the tokenizer has no pre-tokenizer');
  const byteOf = new Map(byteCharacters().map((character, byte) => [character, byte]));
  const wordsOf = (text: string) =>
    preTokenizer
      .preTokenizeString(normalizer ? normalizer.normalizeString(text) : text)
      .map(([characters]) => characters);
  return flattened(tally(texts, wordsOf), (word, bytes, at) => {
    for (let i = 0; i < word.length; i++) bytes[at + i] = byteOf.get(word[i]!) ?? 0;
    return word.length;
  });
}

function tally(texts: readonly string[], wordsOf: (text: string) => readonly string[]): Map<string, number> {
  const words = new Map<string, number>();
  for (const text of texts) for (const word of wordsOf(text)) words.set(word, (words.get(word) ?? 0) + 1);
  return words;
}

/** @param write puts the bytes of a word at a place and gives their number */
function flattened(words: Map<string, number>, write: (word: string, bytes: Buffer, at: number) => number): WordCounts {
  let characters = 0;
  for (const word of words.keys()) characters += word.length;
  const bytes = Buffer.from(new ArrayBuffer(3 * characters)); // UTF-8 has at most three bytes for a code unit.
  const ends = new Int32Array(words.size);
  let [at, index] = [0, 0];
  for (const word of words.keys()) {
    at += write(word, bytes, at);
    ends[index++] = at;
  }
  return { bytes: new Uint8Array(bytes.buffer.slice(0, at)), ends, counts: Float64Array.from(words.values()) };
}

/** Adds up counts of words. What it holds depends on what is added in which order, and on nothing else. */
export class WordTable {
  readonly #maxBytes: number;
  #bytes = new Uint8Array(2 ** 16);
  #ends = new Int32Array(2 ** 12);
  #counts = new Float64Array(2 ** 12);
  #hashes = new Int32Array(2 ** 12);
  /** Open addressing: word index, or −1. */
  #slots = new Int32Array(2 ** 13).fill(-1);
  #size = 0;
  /** Words are thinned until none counts less. */
  #least = 1;

  /** @param maxBytes distinct words held at most, in bytes; a single `add` may go above it by what it adds */
  constructor(maxBytes = MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** True when rare words had to be thinned, so that counts are estimates. */
  get thinned(): boolean {
    return this.#least > 1;
  }

  add({ bytes, ends, counts }: WordCounts): void {
    for (let word = 0, start = 0; word < ends.length; word++) {
      const end = ends[word]!;
      this.#addWord(bytes, start, end, counts[word]!);
      start = end;
    }
    while (this.#used > this.#maxBytes) this.#thin();
  }

  /** The words and their counts; the table is of no use afterwards. */
  take(): WordCounts {
    return {
      bytes: this.#bytes.slice(0, this.#used),
      ends: this.#ends.slice(0, this.#size),
      counts: this.#counts.slice(0, this.#size),
    };
  }

  get #used(): number {
    return this.#size > 0 ? this.#ends[this.#size - 1]! : 0;
  }

  #addWord(bytes: Uint8Array, start: number, end: number, count: number): void {
    const hash = hashBytes(bytes, start, end);
    const slot = this.#find(hash, bytes, start, end);
    const known = this.#slots[slot]!;
    if (known >= 0) this.#counts[known]! += count;
    else this.#insert(slot, hash, bytes, start, end, count);
  }

  /** Slot of a word, or the free one where it belongs. */
  #find(hash: number, bytes: Uint8Array, start: number, end: number): number {
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const word = this.#slots[slot]!;
      if (word < 0 || (this.#hashes[word] === hash && this.#equals(word, bytes, start, end))) return slot;
    }
  }

  #equals(word: number, bytes: Uint8Array, start: number, end: number): boolean {
    const from = word > 0 ? this.#ends[word - 1]! : 0;
    const length = end - start;
    if (this.#ends[word]! - from !== length) return false;
    for (let i = 0; i < length; i++) if (this.#bytes[from + i] !== bytes[start + i]) return false;
    return true;
  }

  #insert(slot: number, hash: number, bytes: Uint8Array, start: number, end: number, count: number): void {
    const at = this.#used;
    const word = this.#size;
    this.#bytes = withRoom(this.#bytes, at + end - start);
    this.#ends = withRoom(this.#ends, word + 1);
    this.#counts = withRoom(this.#counts, word + 1);
    this.#hashes = withRoom(this.#hashes, word + 1);
    for (let i = start; i < end; i++) this.#bytes[at + i - start] = bytes[i]!;
    this.#ends[word] = at + end - start;
    this.#counts[word] = count;
    this.#hashes[word] = hash;
    this.#slots[slot] = word;
    this.#size = word + 1;
    if (2 * this.#size > this.#slots.length) this.#index(2 * this.#slots.length);
  }

  #index(slots: number): void {
    this.#slots = new Int32Array(slots).fill(-1);
    const mask = slots - 1;
    for (let word = 0; word < this.#size; word++) {
      let slot = this.#hashes[word]! & mask;
      while (this.#slots[slot]! >= 0) slot = (slot + 1) & mask;
      this.#slots[slot] = word;
    }
  }

  /**
   * Keeps a word that counts less than twice the least count so far with a chance in proportion to its count, and then
   * counts it as that much. The expected count of every word, and so of every pair, stays what it is. To drop the words
   * seen once would drop most of a language whose words are whole clauses.
   */
  #thin(): void {
    this.#least *= 2;
    let [size, at, start] = [0, 0, 0];
    for (let word = 0; word < this.#size; word++) {
      const end = this.#ends[word]!;
      const count = this.#counts[word]!;
      if (count >= this.#least || uniform(this.#hashes[word]!, this.#least) * this.#least < count) {
        this.#bytes.copyWithin(at, start, end);
        at += end - start;
        this.#ends[size] = at;
        this.#counts[size] = Math.max(count, this.#least);
        this.#hashes[size] = this.#hashes[word]!;
        size++;
      }
      start = end;
    }
    this.#size = size;
    this.#index(this.#slots.length);
  }
}

/** FNV-1a. */
function hashBytes(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5 | 0;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return hash ^ (hash >>> 15);
}

/** A number in [0, 1) that looks like chance, from the hash of a word and the round. */
function uniform(hash: number, round: number): number {
  let mixed = Math.imul(hash ^ Math.imul(round, 0x9e3779b1), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
}

/** `array`, or a copy of it with room for `length` numbers and half as many more. */
export function withRoom<T extends Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Float64Array<ArrayBuffer>>(
  array: T,
  length: number,
): T {
  if (length <= array.length) return array;
  const larger = new (array.constructor as new (length: number) => T)(Math.ceil(1.5 * length));
  larger.set(array);
  return larger;
}
