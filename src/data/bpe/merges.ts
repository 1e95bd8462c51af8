/** Learning merges: the whole of BPE training after the words are counted, on flat arrays and without waiting. */

import { leftOf, PairHeap, PairIndex, pairOf, rightOf } from './pair_index.ts';
import { byteCharacters, type WordCounts } from './words.ts';

/** A vocabulary that training starts with: special tokens and bytes, or a whole tokenizer that is extended. */
export interface StartVocabulary {
  /** Ids of all tokens. */
  ids: Map<string, number>;
  /** Id of the first token that is learned; above all ids. */
  nextId: number;
  /** Tokens that ordinary text must never become. */
  reserved: readonly string[];
  /** Merges that come before those that are learned, in their order. */
  merges: readonly [string, string][];
  /** A word that is a token is that token, whatever the merges say. */
  wholeWords: boolean;
}

export interface LearnedMerges {
  /** New tokens in the order of their ids, which follow `nextId`. */
  tokens: string[];
  /** New merges in the order of their first use. */
  merges: [string, string][];
}

/** A pair is merged only if it occurs at least this often. */
const MIN_COUNT = 2;

/**
 * Learns merges with exact pair counts until ids reach `vocabSize` or no pair occurs twice. The most frequent pair is merged
 * first, among equals the one with the smaller ids (Sennrich et al. 2016).
 * @param progress called with the number of new tokens, after each
 */
export function learnMerges(
  words: WordCounts,
  start: StartVocabulary,
  vocabSize: number,
  progress?: (tokens: number) => void,
): LearnedMerges {
  const vocabulary = new Vocabulary(start);
  const reserved = new Set(start.reserved.map((token) => start.ids.get(token)));
  const pairs = new PairIndex(start.wholeWords ? withoutTokens(words, start.ids) : words, ...vocabulary.bytes());
  const merged = applyMerges(pairs, vocabulary, start.merges);
  const given = merged.size;
  const heap = new PairHeap();
  const push = (pair: number) => {
    const count = pairs.count(pair);
    if (count >= MIN_COUNT) heap.push(count, pair);
  };
  pairs.keys().forEach(push);
  while (vocabulary.nextId < vocabSize) {
    const pair = mostFrequent(heap, pairs);
    if (pair === undefined) break;
    const token = vocabulary.merge(leftOf(pair), rightOf(pair));
    if (reserved.has(token)) continue;
    // In order of first merge. A pair can come back when another merge spells its left or right token anew.
    merged.add(pair);
    pairs.merge(pair, token).forEach(push);
    progress?.(vocabulary.nextId - start.nextId);
  }
  const spell = (pair: number): [string, string] => [vocabulary.token(leftOf(pair)), vocabulary.token(rightOf(pair))];
  return { tokens: vocabulary.learned(), merges: [...merged].slice(given).map(spell) };
}

/** The pair to merge next, or undefined when none occurs often enough. */
function mostFrequent(heap: PairHeap, pairs: PairIndex): number | undefined {
  for (let top = heap.pop(); top !== undefined; top = heap.pop()) {
    const count = pairs.count(top.key);
    if (count === top.rank) return top.key;
    // Counts that fell since the push are put right here; counts that rose were pushed again after the merge.
    if (count < top.rank && count >= MIN_COUNT) heap.push(count, top.key);
  }
  return undefined;
}

/**
 * Encodes all words by `merges`, the earliest merge that a word has first.
 * @returns the merges as pairs, in order
 */
function applyMerges(pairs: PairIndex, vocabulary: Vocabulary, merges: readonly [string, string][]): Set<number> {
  const ranks = new Map<number, number>();
  for (const [rank, [left, right]] of merges.entries()) ranks.set(vocabulary.pair(left, right), rank);
  const heap = new PairHeap();
  const push = (pair: number) => {
    const rank = ranks.get(pair);
    if (rank !== undefined) heap.push(-rank, pair);
  };
  pairs.keys().forEach(push);
  for (let top = heap.pop(); top !== undefined; top = heap.pop()) {
    pairs.merge(top.key, vocabulary.merge(leftOf(top.key), rightOf(top.key))).forEach(push);
  }
  return new Set(ranks.keys());
}

/** The words that are no token. */
function withoutTokens({ bytes, ends, counts }: WordCounts, ids: Map<string, number>): WordCounts {
  const characters = byteCharacters();
  const kept = { bytes: new Uint8Array(bytes.length), ends: new Int32Array(ends.length), counts: counts.slice() };
  let [at, size, start] = [0, 0, 0];
  for (let word = 0; word < ends.length; word++) {
    const spelled = bytes.subarray(start, ends[word]);
    start = ends[word]!;
    if (ids.has(Array.from(spelled, (byte) => characters[byte]).join(''))) continue;
    kept.bytes.set(spelled, at);
    at += spelled.length;
    kept.ends[size] = at;
    kept.counts[size++] = counts[word]!;
  }
  return { bytes: kept.bytes.subarray(0, at), ends: kept.ends.subarray(0, size), counts: kept.counts };
}

class Vocabulary {
  readonly #ids: Map<string, number>;
  readonly #tokens: string[] = [];
  readonly #firstId: number;
  nextId: number;

  constructor({ ids, nextId }: StartVocabulary) {
    this.#ids = new Map(ids);
    this.#firstId = nextId;
    this.nextId = nextId;
    for (const [token, id] of ids) this.#tokens[id] = token;
  }

  token(id: number): string {
    return this.#tokens[id]!;
  }

  pair(left: string, right: string): number {
    return pairOf(this.#ids.get(left)!, this.#ids.get(right)!);
  }

  learned(): string[] {
    return this.#tokens.slice(this.#firstId);
  }

  /** Id of each byte, and the bytes of each of these ids: what a PairIndex starts with. */
  bytes(): [Int32Array, number[]] {
    const byteIds = Int32Array.from(byteCharacters(), (character) => this.#ids.get(character)!);
    const lengths = new Array<number>(this.#firstId).fill(0);
    for (const id of byteIds) lengths[id] = 1;
    return [byteIds, lengths];
  }

  /** Id of the concatenation; two different pairs may spell the same token, which then keeps its id. */
  merge(left: number, right: number): number {
    const token = this.token(left) + this.token(right);
    const known = this.#ids.get(token);
    if (known !== undefined) return known;
    const id = this.nextId++;
    this.#ids.set(token, id);
    this.#tokens[id] = token;
    return id;
  }
}
