/** Vector search. Legend: n vectors, d dimensions, k results of a query. */

/** The nearest vectors of each query, best first. */
export interface SearchResult {
  /** [n, k]; −1 where there are fewer than k vectors. */
  ids: Int32Array;
  /** Cosine similarities, [n, k]; −Infinity beside an id of −1. */
  scores: Float32Array;
}

/** An index over vectors with integer ids. */
export interface VectorIndex {
  readonly dimensions: number;
  readonly size: number;
  /** Adds `vectors` [n, d] under `ids`, which must not be in the index yet. */
  add(ids: ArrayLike<number>, vectors: Float32Array): void;
  /** Removes the vectors of `ids`; ids that are not there are passed over. */
  remove(ids: Iterable<number>): void;
  /** The `k` nearest of each of `queries` [n, d]; equal scores in the order of ids, lower first. */
  search(queries: Float32Array, k: number): SearchResult | Promise<SearchResult>;
}

/** Queries compared at once, so that each number of the index is loaded once for all of them. */
const QUERY_BLOCK = 4;
/** Index rows visited by all queries before the next ones, so that they stay in the processor's cache. */
const ROW_BLOCK = 256;

/** Compares a query with every vector: exact and deterministic. About 1 G multiply-adds a second. */
export class ExactIndex implements VectorIndex {
  readonly dimensions: number;
  #ids: number[] = [];
  #vectors = new Float32Array(0);

  constructor(dimensions: number) {
    this.dimensions = dimensions;
  }

  get size(): number {
    return this.#ids.length;
  }

  add(ids: ArrayLike<number>, vectors: Float32Array): void {
    const { dimensions } = this;
    if (vectors.length !== ids.length * dimensions) {
      throw new RangeError(`${ids.length} vectors of ${dimensions} dimensions cannot have ${vectors.length} numbers`);
    }
    const used = this.size * dimensions;
    if (used + vectors.length > this.#vectors.length) {
      const grown = new Float32Array(Math.max(used + vectors.length, 2 * this.#vectors.length));
      grown.set(this.#vectors.subarray(0, used));
      this.#vectors = grown;
    }
    this.#vectors.set(normalised(vectors, dimensions), used);
    this.#ids.push(...Array.from(ids));
  }

  remove(ids: Iterable<number>): void {
    const { dimensions } = this;
    const gone = new Set(ids);
    let kept = 0;
    this.#ids.forEach((id, row) => {
      if (gone.has(id)) return;
      this.#vectors.copyWithin(kept * dimensions, row * dimensions, (row + 1) * dimensions);
      this.#ids[kept++] = id;
    });
    this.#ids.length = kept;
  }

  search(queries: Float32Array, k: number): SearchResult {
    const count = queries.length / this.dimensions;
    const blocks = interleaved(normalised(queries, this.dimensions), this.dimensions);
    // What the zero queries that fill the last block find is dropped.
    const slots = Math.ceil(count / QUERY_BLOCK) * QUERY_BLOCK * k;
    const best = { ids: new Int32Array(slots).fill(-1), scores: new Float32Array(slots).fill(-Infinity) };
    for (let row = 0; row < this.size; row += ROW_BLOCK) {
      for (let query = 0; query < count; query += QUERY_BLOCK) {
        this.#compare(blocks, query, row, Math.min(this.size, row + ROW_BLOCK), best, k);
      }
    }
    return { ids: best.ids.slice(0, count * k), scores: best.scores.slice(0, count * k) };
  }

  /** Compares a block of queries with rows [from, until), two rows at a time. */
  #compare(queries: Float64Array, query: number, from: number, until: number, best: SearchResult, k: number): void {
    const { dimensions } = this;
    const block = queries.subarray(query * dimensions, (query + QUERY_BLOCK) * dimensions);
    const sums = new Float64Array(2 * QUERY_BLOCK);
    for (let row = from; row < until; row += 2) {
      const pair = Math.min(2, until - row);
      const second = row + pair - 1;
      multiply(this.#vectors, row * dimensions, second * dimensions, block, sums);
      for (let i = 0; i < pair * QUERY_BLOCK; i++) {
        insert(best, query + (i % QUERY_BLOCK), k, this.#ids[i < QUERY_BLOCK ? row : second]!, sums[i]!);
      }
    }
  }
}

/** Inner products of the vectors at `a` and `b` with a block of four queries [d, 4]: eight sums for six loads. */
function multiply(vectors: Float32Array, a: number, b: number, queries: Float64Array, sums: Float64Array): void {
  let [a0, a1, a2, a3] = [0, 0, 0, 0];
  let [b0, b1, b2, b3] = [0, 0, 0, 0];
  for (let q = 0; q < queries.length; q += QUERY_BLOCK, a++, b++) {
    const fromA = vectors[a]!;
    const fromB = vectors[b]!;
    const q0 = queries[q]!;
    const q1 = queries[q + 1]!;
    const q2 = queries[q + 2]!;
    const q3 = queries[q + 3]!;
    a0 += fromA * q0;
    a1 += fromA * q1;
    a2 += fromA * q2;
    a3 += fromA * q3;
    b0 += fromB * q0;
    b1 += fromB * q1;
    b2 += fromB * q2;
    b3 += fromB * q3;
  }
  sums.set([a0, a1, a2, a3, b0, b1, b2, b3]);
}

/** Queries [n, d] in blocks of four, [⌈n / 4⌉, d, 4], so that a comparison walks through them in order. */
function interleaved(queries: Float32Array, dimensions: number): Float64Array {
  const blockLength = QUERY_BLOCK * dimensions;
  const out = new Float64Array(Math.ceil(queries.length / blockLength) * blockLength);
  queries.forEach((value, i) => {
    const query = Math.floor(i / dimensions);
    const block = Math.floor(query / QUERY_BLOCK);
    out[block * blockLength + (i % dimensions) * QUERY_BLOCK + (query % QUERY_BLOCK)] = value;
  });
  return out;
}

/** Puts an id among the best of a query if it belongs there. */
function insert({ ids, scores }: SearchResult, query: number, k: number, id: number, score: number): void {
  const rounded = Math.fround(score);
  const first = query * k;
  let slot = first + k;
  while (slot > first) {
    const before = scores[slot - 1]!;
    if (rounded < before || (rounded === before && id > ids[slot - 1]!)) break;
    slot--;
  }
  if (slot === first + k) return;
  scores.copyWithin(slot + 1, slot, first + k - 1);
  ids.copyWithin(slot + 1, slot, first + k - 1);
  scores[slot] = rounded;
  ids[slot] = id;
}

/** A copy of `vectors` [n, d], each of length one; zero vectors stay zero. */
export function normalised(vectors: Float32Array, dimensions: number): Float32Array {
  const out = Float32Array.from(vectors);
  for (let start = 0; start < out.length; start += dimensions) {
    let squares = 0;
    for (let i = start; i < start + dimensions; i++) squares += out[i]! * out[i]!;
    if (squares === 0) continue;
    const scale = 1 / Math.sqrt(squares);
    for (let i = start; i < start + dimensions; i++) out[i]! *= scale;
  }
  return out;
}
