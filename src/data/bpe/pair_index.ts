/** The words as symbols in flat arrays, with every neighbouring pair's count and places. n: bytes of the words and one for each. */

import { type WordCounts, withRoom } from './words.ts';

/** A pair (a, b) is the number a · PAIR_BASE + b, so numbers order pairs by a, then b. */
const PAIR_BASE = 2 ** 26;
export const pairOf = (left: number, right: number): number => left * PAIR_BASE + right;
export const leftOf = (pair: number): number => Math.floor(pair / PAIR_BASE);
export const rightOf = (pair: number): number => pair % PAIR_BASE;

/** Between words. */
const BOUNDARY = -(2 ** 31);
/** Inside a symbol. */
const INSIDE = BOUNDARY + 1;

/**
 * A symbol covers as many places as it has bytes. Its first place holds its id and its last one the id's complement, so its
 * neighbours are found without links. The symbols alone are the truth: places of pairs are looked up there before use, and
 * when the room for places is used up, all pairs are indexed anew.
 */
export class PairIndex {
  /** [n + 1] */
  readonly #symbols: Int32Array;
  /** [n + 1] Word of each place. */
  readonly #words: Int32Array;
  readonly #counts: Float64Array;
  /** Bytes of each symbol. */
  readonly #lengths: number[];
  readonly #pairs = new PairTable();
  /** Blocks of places of left symbols, in order inside a block; some may be outdated. */
  readonly #places: Int32Array;
  #used = 0;
  /** What a merge makes: pairs (their index) and their places. */
  #newPairs = new Int32Array(1024);
  #newPlaces = new Int32Array(1024);
  #new = 0;

  /**
   * @param byteIds [256] symbol of each byte
   * @param lengths bytes of each symbol; `merge` adds to it
   * @param room places of pairs held, in parts of n (at least 1): the less, the more often all pairs are indexed anew
   */
  constructor({ bytes, ends, counts }: WordCounts, byteIds: Int32Array, lengths: number[], room = 2) {
    const size = bytes.length + ends.length + 1;
    this.#symbols = new Int32Array(size).fill(BOUNDARY);
    this.#words = new Int32Array(size);
    this.#counts = counts;
    this.#lengths = lengths;
    // Pages of what the first index leaves are touched only when merges fill them.
    this.#places = new Int32Array(room * size);
    for (let word = 0, at = 0; word < ends.length; word++) {
      for (const end = ends[word]!; at < end; at++) {
        this.#symbols[at + word + 1] = byteIds[bytes[at]!]!;
        this.#words[at + word + 1] = word;
      }
    }
    this.#index();
  }

  /** All pairs that were met so far. */
  keys(): Float64Array {
    return this.#pairs.keys.subarray(0, this.#pairs.size);
  }

  count(pair: number): number {
    const index = this.#pairs.find(pair);
    return index < 0 ? 0 : this.#pairs.counts[index]!;
  }

  /**
   * Replaces every occurrence of `pair`, from left to right in each word, by the symbol `merged`.
   * @returns the pairs that occur more often than before
   */
  merge(pair: number, merged: number): Set<number> {
    const [left, right] = [leftOf(pair), rightOf(pair)];
    this.#lengths[merged] = this.#lengths[left]! + this.#lengths[right]!;
    const index = this.#pairs.find(pair);
    if (index < 0) return new Set();
    this.#new = 0;
    for (let i = this.#pairs.starts[index]!; i < this.#pairs.ends[index]!; i++) {
      this.#mergeAt(this.#places[i]!, left, right, merged);
    }
    this.#pairs.ends[index] = this.#pairs.starts[index]!;
    const risen = new Set<number>();
    for (let i = 0; i < this.#new; i++) risen.add(this.#pairs.keys[this.#newPairs[i]!]!);
    this.#storeNew();
    return risen;
  }

  #mergeAt(at: number, left: number, right: number, merged: number): void {
    const symbols = this.#symbols;
    const next = at + this.#lengths[left]!;
    if (symbols[at] !== left || symbols[next] !== right) return;
    const after = next + this.#lengths[right]!;
    const last = symbols[at - 1]!;
    const previous = last < 0 ? ~last : last;
    const following = symbols[after]!;
    const weight = this.#counts[this.#words[at]!]!;
    if (last !== BOUNDARY) this.#pairs.add(pairOf(previous, left), -weight);
    this.#pairs.add(pairOf(left, right), -weight);
    if (following !== BOUNDARY) this.#pairs.add(pairOf(right, following), -weight);
    symbols[next] = INSIDE;
    symbols[at] = merged;
    symbols[after - 1] = ~merged;
    if (last !== BOUNDARY) this.#addNew(pairOf(previous, merged), at - this.#lengths[previous]!, weight);
    if (following !== BOUNDARY) this.#addNew(pairOf(merged, following), at, weight);
  }

  #addNew(pair: number, place: number, weight: number): void {
    const at = this.#new++;
    this.#newPairs = withRoom(this.#newPairs, this.#new);
    this.#newPlaces = withRoom(this.#newPlaces, this.#new);
    this.#newPairs[at] = this.#pairs.add(pair, weight);
    this.#newPlaces[at] = place;
  }

  /** Gives every pair with new places a block that holds its old and new ones. */
  #storeNew(): void {
    const { starts, ends, fresh } = this.#pairs;
    for (let i = 0; i < this.#new; i++) fresh[this.#newPairs[i]!]!++;
    const resorted: number[] = [];
    for (let i = 0; i < this.#new; i++) {
      const pair = this.#newPairs[i]!;
      if (fresh[pair]! > 0) {
        const old = ends[pair]! - starts[pair]!;
        if (this.#used + old + fresh[pair]! > this.#places.length) {
          fresh.fill(0);
          this.#index();
          return;
        }
        // A pair has old places only when another pair has spelled its symbol before.
        if (old > 0) resorted.push(pair);
        this.#places.copyWithin(this.#used, starts[pair]!, ends[pair]!);
        starts[pair] = this.#used;
        ends[pair] = this.#used + old;
        this.#used += old + fresh[pair]!;
        fresh[pair] = 0;
      }
      this.#places[ends[pair]!++] = this.#newPlaces[i]!;
    }
    for (const pair of resorted) this.#places.subarray(starts[pair]!, ends[pair]!).sort();
  }

  /** Counts all pairs and lists their places, in order. */
  #index(): void {
    const pairs = this.#pairs;
    pairs.clear();
    this.#eachPair((pair, at) => {
      const index = pairs.add(pair, this.#counts[this.#words[at]!]!); // May put a larger array for `fresh`.
      pairs.fresh[index]!++;
    });
    this.#used = 0;
    for (let pair = 0; pair < pairs.size; pair++) {
      pairs.starts[pair] = this.#used;
      pairs.ends[pair] = this.#used;
      this.#used += pairs.fresh[pair]!;
      pairs.fresh[pair] = 0;
    }
    this.#eachPair((pair, at) => {
      this.#places[pairs.ends[pairs.find(pair)]!++] = at;
    });
  }

  #eachPair(visit: (pair: number, at: number) => void): void {
    const symbols = this.#symbols;
    for (let at = 1; at < symbols.length; ) {
      const left = symbols[at]!;
      const next = left === BOUNDARY ? at + 1 : at + this.#lengths[left]!;
      if (left !== BOUNDARY && symbols[next] !== BOUNDARY) visit(pairOf(left, symbols[next]!), at);
      at = next;
    }
  }
}

/** Pairs by open addressing; each has an index into flat arrays. */
class PairTable {
  keys = new Float64Array(2 ** 16);
  counts = new Float64Array(2 ** 16);
  /** Block of its places. */
  starts = new Int32Array(2 ** 16);
  ends = new Int32Array(2 ** 16);
  /** Places to come; zero between merges. */
  fresh = new Int32Array(2 ** 16);
  size = 0;
  #slots = new Int32Array(2 ** 17).fill(-1);

  clear(): void {
    this.#slots.fill(-1);
    this.size = 0;
  }

  /** Index of `pair`, or −1. */
  find(pair: number): number {
    return this.#slots[this.#slotOf(pair)]!;
  }

  /** Adds to the count of `pair`, and gives its index. */
  add(pair: number, count: number): number {
    const slot = this.#slotOf(pair);
    const known = this.#slots[slot]!;
    if (known >= 0) {
      this.counts[known]! += count;
      return known;
    }
    const index = this.size++;
    if (this.size > this.keys.length) this.#grow();
    this.keys[index] = pair;
    this.counts[index] = count;
    this.starts[index] = 0;
    this.ends[index] = 0;
    this.#slots[slot] = index;
    if (2 * this.size > this.#slots.length) this.#spread(2 * this.#slots.length);
    return index;
  }

  #slotOf(pair: number): number {
    const mask = this.#slots.length - 1;
    let hash = Math.imul(leftOf(pair), 0x9e3779b1) ^ Math.imul(rightOf(pair), 0x85ebca6b);
    hash ^= hash >>> 15;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const index = this.#slots[slot]!;
      if (index < 0 || this.keys[index] === pair) return slot;
    }
  }

  #grow(): void {
    this.keys = withRoom(this.keys, this.size);
    this.counts = withRoom(this.counts, this.size);
    this.starts = withRoom(this.starts, this.size);
    this.ends = withRoom(this.ends, this.size);
    this.fresh = withRoom(this.fresh, this.size);
  }

  #spread(slots: number): void {
    this.#slots = new Int32Array(slots).fill(-1);
    for (let index = 0; index < this.size; index++) this.#slots[this.#slotOf(this.keys[index]!)] = index;
  }
}

/** Binary heap of pairs, the highest rank on top, among equals the smallest pair. */
export class PairHeap {
  readonly #ranks: number[] = [];
  readonly #keys: number[] = [];

  push(rank: number, key: number): void {
    let at = this.#ranks.length;
    for (let parent = (at - 1) >> 1; at > 0 && this.#before(rank, key, parent); parent = (at - 1) >> 1) {
      this.#ranks[at] = this.#ranks[parent]!;
      this.#keys[at] = this.#keys[parent]!;
      at = parent;
    }
    this.#ranks[at] = rank;
    this.#keys[at] = key;
  }

  pop(): { rank: number; key: number } | undefined {
    const rank = this.#ranks[0];
    const key = this.#keys[0];
    const lastRank = this.#ranks.pop();
    const lastKey = this.#keys.pop();
    if (rank === undefined || key === undefined || lastRank === undefined || lastKey === undefined) return undefined;
    if (this.#ranks.length > 0) this.#sink(lastRank, lastKey);
    return { rank, key };
  }

  /** Puts (rank, key) at the root and lets it down to its place. */
  #sink(rank: number, key: number): void {
    const size = this.#ranks.length;
    let at = 0;
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.#before(this.#ranks[child + 1]!, this.#keys[child + 1]!, child)) child++;
      if (this.#before(rank, key, child)) break;
      this.#ranks[at] = this.#ranks[child]!;
      this.#keys[at] = this.#keys[child]!;
      at = child;
    }
    this.#ranks[at] = rank;
    this.#keys[at] = key;
  }

  #before(rank: number, key: number, other: number): boolean {
    const otherRank = this.#ranks[other]!;
    return rank > otherRank || (rank === otherRank && key < this.#keys[other]!);
  }
}
