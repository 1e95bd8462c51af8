/**
 * The words of a text as 32-bit hashes, for rules and signatures that count words but need not read them. A word is a run
 * of letters, marks and digits in lower case; in scripts that are written without spaces every letter is one.
 */

/** Letters of scripts without spaces between words; the marks that follow a letter belong to it. */
const UNSPACED_LETTER =
  /(?=[\p{L}\p{Nl}])[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}]/u;

/** Kinds of characters; 0 is a character that was not looked up yet. */
const KIND = { space: 1, other: 2, letter: 3, unspaced: 4, mark: 5, digit: 6 } as const;
const KIND_BITS = 3;
/** Code point → kind in the low bits and the code point in lower case above them, filled as characters are met. */
const characters = new Uint32Array(0x110000);

function lookUp(code: number): number {
  const character = String.fromCodePoint(code);
  const lower = character.toLowerCase();
  const folded = lower.length === String.fromCodePoint(lower.codePointAt(0) ?? code).length ? lower : character;
  const found = kindOf(character) | ((folded.codePointAt(0) ?? code) << KIND_BITS);
  characters[code] = found;
  return found;
}

function kindOf(character: string): number {
  if (UNSPACED_LETTER.test(character)) return KIND.unspaced;
  if (/\p{L}/u.test(character)) return KIND.letter;
  if (/\p{M}/u.test(character)) return KIND.mark;
  if (/\p{N}/u.test(character)) return KIND.digit;
  return /\s/u.test(character) ? KIND.space : KIND.other;
}

/** The finaliser of MurmurHash3 (Appleby): a bijection of 32-bit words in which every bit of the input moves every other. */
export function mix32(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Words of one block of the scanner. */
const BLOCK_WORDS = 4096;
/** Of FNV-1a (Fowler, Noll, Vo). */
const HASH_START = 0x811c9dc5 | 0;
const HASH_FACTOR = 0x01000193;

/** Goes through a text and hands out the hashes of its words, a block at a time, so that any length needs the same memory. */
export class WordScanner {
  /** Hashes of the words of the last block. */
  readonly hashes = new Uint32Array(BLOCK_WORDS);
  /** Characters so far that are no white space. */
  visible = 0;
  /** Of these, letters and their marks. */
  alphabetic = 0;
  /** Words so far that are single letters of a script without spaces. */
  unspacedWords = 0;
  /** All other words so far, and their letters and digits. */
  spacedWords = 0;
  spacedCharacters = 0;
  #text = '';
  #at = 0;
  /** Hash of the word that the scanner is in, and the kind that began it, 0 between words. */
  #hash = HASH_START;
  #inside = 0;

  /** Begins with a new text, all counts at 0. */
  start(text: string): void {
    this.#text = text;
    this.#at = 0;
    this.#inside = 0;
    this.visible = 0;
    this.alphabetic = 0;
    this.unspacedWords = 0;
    this.spacedWords = 0;
    this.spacedCharacters = 0;
  }

  /** Reads the next words into `hashes`; gives their number, 0 at the end of the text. */
  next(): number {
    const { hashes } = this;
    const text = this.#text;
    let [at, hash, inside] = [this.#at, this.#hash, this.#inside];
    let { visible, alphabetic, unspacedWords, spacedWords, spacedCharacters } = this;
    let words = 0;
    // A character ends one word at most.
    while (at < text.length && words < BLOCK_WORDS) {
      let code = text.charCodeAt(at++);
      if ((code & 0xf800) === 0xd800) {
        code = text.codePointAt(at - 1) ?? code;
        if (code > 0xffff) at++;
      }
      const character = characters[code] || lookUp(code);
      const kind = character & ((1 << KIND_BITS) - 1);
      if (kind !== KIND.space) visible++;
      if (kind >= KIND.letter && kind <= KIND.mark) alphabetic++;
      const goesOn = kind === KIND.mark || (inside === KIND.letter && (kind === KIND.letter || kind === KIND.digit));
      if (inside !== 0 && !goesOn) {
        hashes[words++] = mix32(hash);
        inside = 0;
      }
      if (kind < KIND.letter) continue;
      if (inside === 0) {
        inside = kind === KIND.unspaced ? KIND.unspaced : KIND.letter;
        if (inside === KIND.letter) spacedWords++;
        else unspacedWords++;
        hash = HASH_START;
      }
      if (kind === KIND.letter || kind === KIND.digit) spacedCharacters++;
      hash = Math.imul(hash ^ (character >>> KIND_BITS), HASH_FACTOR);
    }
    if (at === text.length && inside !== 0 && words < BLOCK_WORDS) {
      hashes[words++] = mix32(hash);
      inside = 0;
    }
    [this.#at, this.#hash, this.#inside] = [at, hash, inside];
    Object.assign(this, { visible, alphabetic, unspacedWords, spacedWords, spacedCharacters });
    return words;
  }
}

/** Slots of an empty table; a power of two. */
const SMALLEST_TABLE = 512;

/** How often each of many 32-bit hashes occurs: open addressing in typed arrays, at most half full. */
export class HashCounts {
  readonly #smallest = { keys: new Uint32Array(SMALLEST_TABLE), counts: new Uint32Array(SMALLEST_TABLE) };
  #keys = this.#smallest.keys;
  #counts = this.#smallest.counts;
  #size = 0;

  /** Different hashes. */
  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#keys = this.#smallest.keys;
    this.#counts = this.#smallest.counts;
    this.#counts.fill(0);
    this.#size = 0;
  }

  /** Counts a hash; gives how often it occurred so far, this time included. */
  add(hash: number): number {
    const slot = this.#slot(hash);
    const count = ++this.#counts[slot]!;
    if (count === 1) {
      this.#keys[slot] = hash;
      if (++this.#size * 2 > this.#keys.length) this.#grow();
    }
    return count;
  }

  /** Calls `visit` with the count of every hash, in the order of the table. */
  forEach(visit: (count: number, hash: number) => void): void {
    for (let slot = 0; slot < this.#counts.length; slot++) {
      if (this.#counts[slot] !== 0) visit(this.#counts[slot]!, this.#keys[slot]!);
    }
  }

  /** The slot of a hash, or the free one where it belongs. */
  #slot(hash: number): number {
    const mask = this.#keys.length - 1;
    let slot = hash & mask;
    while (this.#counts[slot] !== 0 && this.#keys[slot] !== hash) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const [keys, counts] = [this.#keys, this.#counts];
    this.#keys = new Uint32Array(keys.length * 2);
    this.#counts = new Uint32Array(keys.length * 2);
    for (let old = 0; old < keys.length; old++) {
      if (counts[old] === 0) continue;
      const slot = this.#slot(keys[old]!);
      this.#keys[slot] = keys[old]!;
      this.#counts[slot] = counts[old]!;
    }
  }
}
