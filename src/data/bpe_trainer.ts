/**
 * Byte-level BPE (Sennrich et al. 2016, GPT-2's bytes and word pattern) written as a Hugging Face `tokenizer.json`.
 *
 * The distinct words of the text lie one after the other in flat arrays of symbols with links to their neighbours. Every
 * pair knows its count and where it occurs, a heap knows the most frequent pair, and a merge touches only the occurrences
 * of its pair. Each touch removes a symbol, so all merges together cost no more than the text is long.
 */

export interface AddedToken {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

/** The part of Hugging Face's `tokenizer.json` that the trainer writes. */
export interface TokenizerJson {
  version: '1.0';
  truncation: null;
  padding: null;
  added_tokens: AddedToken[];
  normalizer: null;
  pre_tokenizer: object;
  post_processor: null;
  decoder: object;
  model: {
    type: 'BPE';
    dropout: null;
    unk_token: null;
    continuing_subword_prefix: null;
    end_of_word_suffix: null;
    fuse_unk: false;
    byte_fallback: false;
    ignore_merges: false;
    vocab: Record<string, number>;
    merges: [string, string][];
  };
}

export interface BpeOptions {
  /** Tokens at most, special tokens and all 256 bytes included. */
  vocabSize: number;
  /** Special tokens; they get the ids from 0. */
  specials?: readonly string[];
}

/** Begin of text, end of text, padding, and a mark for references: ids 0 to 3. */
export const SPECIALS = ['<s>', '</s>', '<pad>', '<|reference|>'] as const;

/** GPT-2's word pattern. `\p{White_Space}` instead of `\s`: JavaScript's `\s` is not Unicode's white space. */
const WORDS =
  /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
/** Distinct words held at most (a Map ends at 2^24 entries); later words not met before are left out. */
const MAX_WORDS = 8_000_000;
/** A pair is merged only if it occurs at least this often. */
const MIN_COUNT = 2;
/** A pair (a, b) is the number a · PAIR_BASE + b, so numbers order pairs by a, then b. */
const PAIR_BASE = 2 ** 26;
const leftOf = (pair: number) => Math.floor(pair / PAIR_BASE);
const rightOf = (pair: number) => pair % PAIR_BASE;

/**
 * The character that stands for each byte in a byte-level vocabulary: printable Latin-1 bytes stand for themselves, the
 * rest take the code points from 256 on (GPT-2's `bytes_to_unicode`).
 */
export function byteCharacters(): string[] {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/**
 * Trains a byte-level BPE vocabulary with exact pair counts. The most frequent pair is merged first, among equals the one
 * with the smaller ids, so the result depends on the texts' words alone, not on their order. Ends early, with a smaller
 * vocabulary, when no pair occurs twice.
 * @throws RangeError when `vocabSize` does not hold the special tokens and the 256 bytes
 */
export async function trainBpe(texts: AsyncIterable<string>, options: BpeOptions): Promise<TokenizerJson> {
  const specials = options.specials ?? SPECIALS;
  if (options.vocabSize < specials.length + 256) {
    throw new RangeError(`a byte-level vocabulary needs at least ${specials.length + 256} tokens`);
  }
  const vocabulary = new Vocabulary(specials);
  const pairs = new PairIndex(await countWords(texts), vocabulary.byteIds);
  // In order of first merge. A pair can come back when another merge spells its left or right token anew.
  const merged = new Set<number>();
  while (vocabulary.size < options.vocabSize) {
    const pair = pairs.mostFrequent();
    if (pair === undefined) break;
    const token = vocabulary.merge(leftOf(pair), rightOf(pair));
    // Ordinary text must never become a special token.
    if (token < specials.length) continue;
    merged.add(pair);
    pairs.merge(pair, token);
  }
  const spell = (pair: number): [string, string] => [
    vocabulary.tokens[leftOf(pair)]!,
    vocabulary.tokens[rightOf(pair)]!,
  ];
  return tokenizerJson(specials, vocabulary, [...merged].map(spell));
}

async function countWords(texts: AsyncIterable<string>): Promise<Map<string, number>> {
  const words = new Map<string, number>();
  for await (const text of texts) {
    for (const [word] of text.matchAll(WORDS)) {
      const count = words.get(word);
      if (count !== undefined || words.size < MAX_WORDS) words.set(word, (count ?? 0) + 1);
    }
  }
  return words;
}

/** Tokens by id: special tokens, the 256 bytes in the order of their characters, then merges. */
class Vocabulary {
  readonly tokens: string[];
  /** Token id of each byte. */
  readonly byteIds: Int32Array;
  readonly ids: Map<string, number>;

  constructor(specials: readonly string[]) {
    const characters = byteCharacters();
    this.tokens = [...specials, ...[...characters].sort()];
    this.ids = new Map(this.tokens.map((token, id) => [token, id]));
    this.byteIds = Int32Array.from(characters, (character) => this.ids.get(character) ?? -1);
  }

  get size(): number {
    return this.tokens.length;
  }

  /** Id of the concatenation; two different pairs may spell the same token, which then keeps its id. */
  merge(left: number, right: number): number {
    const token = `${this.tokens[left]}${this.tokens[right]}`;
    const known = this.ids.get(token);
    if (known !== undefined) return known;
    this.ids.set(token, this.tokens.length);
    return this.tokens.push(token) - 1;
  }
}

interface Pair {
  count: number;
  /** Positions of the left symbol; some may be outdated, or occur twice. */
  positions: number[];
}

/** The words as linked symbols, and every neighbouring pair with its count and places. */
class PairIndex {
  /** Symbol at a position; −1 where it was swallowed by the symbol to its left. */
  readonly #symbols: Int32Array;
  /** Position of the neighbour inside the word, −1 at its ends. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  /** How often the word of a position occurs. */
  readonly #weights: Int32Array;
  readonly #pairs = new Map<number, Pair>();
  readonly #heap = new PairHeap();

  constructor(words: Map<string, number>, byteIds: Int32Array) {
    let size = 0;
    for (const word of words.keys()) size += Buffer.byteLength(word);
    this.#symbols = new Int32Array(size);
    this.#next = new Int32Array(size);
    this.#previous = new Int32Array(size);
    this.#weights = new Int32Array(size);
    let at = 0;
    for (const [word, weight] of words) {
      const bytes = Buffer.from(word);
      bytes.forEach((byte, i) => {
        this.#symbols[at + i] = byteIds[byte]!;
        this.#next[at + i] = i + 1 < bytes.length ? at + i + 1 : -1;
        this.#previous[at + i] = i > 0 ? at + i - 1 : -1;
        this.#weights[at + i] = weight;
      });
      for (let i = 0; i + 1 < bytes.length; i++) this.#add(at + i);
      at += bytes.length;
    }
    for (const [key, pair] of this.#pairs) this.#heap.push(pair.count, key);
  }

  /** The pair to merge next, or undefined when none occurs often enough. */
  mostFrequent(): number | undefined {
    for (let top = this.#heap.pop(); top !== undefined; top = this.#heap.pop()) {
      const count = this.#pairs.get(top.key)?.count ?? 0;
      if (count === top.count) return count >= MIN_COUNT ? top.key : undefined;
      // Counts that fell since the push are put right here; counts that rose were pushed again by `merge`.
      if (count < top.count && count >= MIN_COUNT) this.#heap.push(count, top.key);
    }
    return undefined;
  }

  /** Replaces every occurrence of `pair`, from left to right in each word, by the symbol `merged`. */
  merge(pair: number, merged: number): void {
    const [left, right] = [leftOf(pair), rightOf(pair)];
    const positions = this.#pairs.get(pair)?.positions ?? [];
    const risen = new Set<number>();
    for (const at of positions.sort((a, b) => a - b)) {
      const next = this.#next[at]!;
      if (this.#symbols[at] !== left || next < 0 || this.#symbols[next] !== right) continue;
      const previous = this.#previous[at]!;
      const after = this.#next[next]!;
      if (previous >= 0) this.#remove(previous);
      this.#remove(at);
      if (after >= 0) this.#remove(next);
      this.#symbols[at] = merged;
      this.#symbols[next] = -1;
      this.#next[at] = after;
      if (after >= 0) this.#previous[after] = at;
      if (previous >= 0) risen.add(this.#add(previous));
      if (after >= 0) risen.add(this.#add(at));
    }
    this.#pairs.delete(pair);
    for (const key of risen) {
      const count = this.#pairs.get(key)?.count ?? 0;
      if (count >= MIN_COUNT) this.#heap.push(count, key);
    }
  }

  #keyAt(at: number): number {
    return this.#symbols[at]! * PAIR_BASE + this.#symbols[this.#next[at]!]!;
  }

  #add(at: number): number {
    const key = this.#keyAt(at);
    const pair = this.#pairs.get(key);
    if (pair) {
      pair.count += this.#weights[at]!;
      pair.positions.push(at);
    } else {
      this.#pairs.set(key, { count: this.#weights[at]!, positions: [at] });
    }
    return key;
  }

  #remove(at: number): void {
    const pair = this.#pairs.get(this.#keyAt(at));
    if (pair) pair.count -= this.#weights[at]!;
  }
}

/** Binary heap, the highest count on top, among equals the smallest key. */
class PairHeap {
  readonly #counts: number[] = [];
  readonly #keys: number[] = [];

  push(count: number, key: number): void {
    let at = this.#counts.length;
    for (let parent = (at - 1) >> 1; at > 0 && this.#before(count, key, parent); parent = (at - 1) >> 1) {
      this.#counts[at] = this.#counts[parent]!;
      this.#keys[at] = this.#keys[parent]!;
      at = parent;
    }
    this.#counts[at] = count;
    this.#keys[at] = key;
  }

  pop(): { count: number; key: number } | undefined {
    const count = this.#counts[0];
    const key = this.#keys[0];
    const lastCount = this.#counts.pop();
    const lastKey = this.#keys.pop();
    if (count === undefined || key === undefined || lastCount === undefined || lastKey === undefined) return undefined;
    if (this.#counts.length > 0) this.#sink(lastCount, lastKey);
    return { count, key };
  }

  /** Puts (count, key) at the root and lets it down to its place. */
  #sink(count: number, key: number): void {
    const size = this.#counts.length;
    let at = 0;
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.#before(this.#counts[child + 1]!, this.#keys[child + 1]!, child)) child++;
      if (this.#before(count, key, child)) break;
      this.#counts[at] = this.#counts[child]!;
      this.#keys[at] = this.#keys[child]!;
      at = child;
    }
    this.#counts[at] = count;
    this.#keys[at] = key;
  }

  #before(count: number, key: number, other: number): boolean {
    const otherCount = this.#counts[other]!;
    return count > otherCount || (count === otherCount && key < this.#keys[other]!);
  }
}

function tokenizerJson(specials: readonly string[], vocabulary: Vocabulary, merges: [string, string][]): TokenizerJson {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocabulary.ids),
      merges,
    },
  };
}
