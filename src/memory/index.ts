/** Vector search. Legend: n vectors, d dimensions, k results of a query. */

import * as tf from '../engine/tf.ts';

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
  /** The `k` nearest of each of `queries` [n, d]; equal scores in the order of ids, lower first. */
  search(queries: Float32Array, k: number): Promise<SearchResult>;
}

/** Rows compared at once: bounds the scores that exist together. */
const ROW_BLOCK = 16_384;

/** Compares a query with every vector: exact, as one matrix product on the engine. */
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
    requireVectors(vectors, ids.length, dimensions);
    const used = this.size * dimensions;
    if (used + vectors.length > this.#vectors.length) {
      const grown = new Float32Array(Math.max(used + vectors.length, 2 * this.#vectors.length));
      grown.set(this.#vectors.subarray(0, used));
      this.#vectors = grown;
    }
    this.#vectors.set(normalised(vectors, dimensions), used);
    for (let i = 0; i < ids.length; i++) this.#ids.push(ids[i]!);
  }

  async search(queries: Float32Array, k: number): Promise<SearchResult> {
    const { dimensions } = this;
    const count = queries.length / dimensions;
    const best = noResults(count, k);
    if (count === 0) return best;
    const normal = normalised(queries, dimensions);
    for (let from = 0; from < this.size; from += ROW_BLOCK) {
      const rows = Math.min(ROW_BLOCK, this.size - from);
      const vectors = this.#vectors.subarray(from * dimensions, (from + rows) * dimensions);
      const products = tf.tidy(() =>
        tf.matMul(tf.tensor2d(normal, [count, dimensions]), tf.tensor2d(vectors, [rows, dimensions]), false, true),
      );
      const scores = await products.data<'float32'>();
      products.dispose();
      for (let query = 0; query < count; query++) {
        for (let row = 0; row < rows; row++)
          insert(best, query, k, this.#ids[from + row]!, scores[query * rows + row]!);
      }
    }
    return best;
  }
}

/** @throws RangeError when these are not `count` vectors of so many dimensions */
export function requireVectors(vectors: Float32Array, count: number, dimensions: number): void {
  if (vectors.length === count * dimensions) return;
  throw new RangeError(`${count} vectors of ${dimensions} dimensions cannot have ${vectors.length} numbers`);
}

/** The results of `count` queries before anything was found. */
export function noResults(count: number, k: number): SearchResult {
  return { ids: new Int32Array(count * k).fill(-1), scores: new Float32Array(count * k).fill(-Infinity) };
}

/** Puts an id among the best of a query if it belongs there. */
export function insert({ ids, scores }: SearchResult, query: number, k: number, id: number, score: number): void {
  const first = query * k;
  let slot = first + k;
  while (slot > first) {
    const before = scores[slot - 1]!;
    if (score < before || (score === before && id > ids[slot - 1]!)) break;
    slot--;
  }
  if (slot === first + k) return;
  scores.copyWithin(slot + 1, slot, first + k - 1);
  ids.copyWithin(slot + 1, slot, first + k - 1);
  scores[slot] = score;
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
