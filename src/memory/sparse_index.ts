/**
 * Exact search over vectors that are mostly zero, such as hashed words: for each dimension the vectors that have a number
 * there. A query visits only the dimensions that are not zero in it.
 *
 * Legend: n vectors, d dimensions, k results of a query.
 */

import { nativeBank, SPARSE_BLOCK, type SparseBlock } from '../engine/native/bank.ts';
import { physicalCores } from '../io/cores.ts';
import { isSparse } from './encoders/lexical.ts';
import {
  ExactIndex,
  insert,
  noResults,
  normalised,
  requireVectors,
  type SearchResult,
  type VectorIndex,
} from './index.ts';
import type { StoredEncoder } from './layout.ts';

/** The index that compares with all vectors of an encoder. */
export function exhaustiveIndex(encoder: Pick<StoredEncoder, 'dimensions' | 'description'>): VectorIndex {
  return isSparse(encoder) ? new SparseIndex(encoder.dimensions) : new ExactIndex(encoder.dimensions);
}

/** What a text with about sixty different words and pairs of words needs; more is taken when it has to be. */
const NUMBERS_A_VECTOR = 64;

export class SparseIndex implements VectorIndex {
  readonly dimensions: number;
  readonly #threads: number;
  #ids: number[] = [];
  #full: SparseBlock[] = [];
  /** The vectors since the last full block. */
  #open: OpenBlock;

  /** @param threads of a search; the results do not depend on it */
  constructor(dimensions: number, threads = physicalCores()) {
    this.dimensions = dimensions;
    this.#threads = threads;
    this.#open = new OpenBlock(dimensions);
  }

  get size(): number {
    return this.#ids.length;
  }

  add(ids: ArrayLike<number>, vectors: Float32Array): void {
    const { dimensions } = this;
    requireVectors(vectors, ids.length, dimensions);
    const normal = normalised(vectors, dimensions);
    for (let i = 0; i < ids.length; i++) {
      const last = this.#ids.at(-1);
      if (last !== undefined && ids[i]! <= last) throw new RangeError(`id ${ids[i]} is not above ${last}`);
      this.#ids.push(ids[i]!);
      this.#open.add(normal, i * dimensions);
      if (this.#open.size < SPARSE_BLOCK) continue;
      this.#full.push(this.#open.block());
      this.#open = new OpenBlock(dimensions);
    }
  }

  async search(queries: Float32Array, k: number): Promise<SearchResult> {
    const { dimensions } = this;
    const best = noResults(queries.length / dimensions, k);
    if (queries.length === 0 || this.size === 0) return best;
    const normal = normalised(queries, dimensions);
    const blocks = this.#open.size === 0 ? this.#full : [...this.#full, this.#open.block()];
    const native = nativeBank();
    if (native === undefined) searchBlocks(blocks, normal, dimensions, best, k);
    else await native.sparseSearch(blocks, normal, dimensions, k, this.#threads, best.ids, best.scores);
    best.ids.forEach((number, slot) => {
      if (number >= 0) best.ids[slot] = this.#ids[number]!;
    });
    return best;
  }
}

/** Vectors that are still being gathered, one after the other. */
class OpenBlock {
  size = 0;
  readonly #dimensions: number;
  /** Numbers of each dimension so far. */
  readonly #counts: Int32Array;
  #used = 0;
  #places = new Int32Array(16 * NUMBERS_A_VECTOR);
  #rows = new Uint16Array(this.#places.length);
  #values = new Float32Array(this.#places.length);
  #block: SparseBlock | undefined;

  constructor(dimensions: number) {
    this.#dimensions = dimensions;
    this.#counts = new Int32Array(dimensions);
  }

  /** Adds the vector that begins at `from`. */
  add(vectors: Float32Array, from: number): void {
    this.#block = undefined;
    const dimensions = this.#dimensions;
    this.#reserve(this.#used + dimensions);
    const [places, rows, values, counts] = [this.#places, this.#rows, this.#values, this.#counts];
    const row = this.size++;
    let used = this.#used;
    for (let place = 0; place < dimensions; place++) {
      const value = vectors[from + place]!;
      if (value === 0) continue;
      places[used] = place;
      rows[used] = row;
      values[used++] = value;
      counts[place]!++;
    }
    this.#used = used;
  }

  /** The numbers in the order of dimensions. */
  block(): SparseBlock {
    this.#block ??= this.#sorted();
    return this.#block;
  }

  #sorted(): SparseBlock {
    const starts = new Int32Array(this.#dimensions + 1);
    for (let place = 0; place < this.#dimensions; place++) starts[place + 1] = starts[place]! + this.#counts[place]!;
    const next = starts.slice();
    const [rows, values] = [new Uint16Array(this.#used), new Float32Array(this.#used)];
    const [places, unsortedRows, unsortedValues] = [this.#places, this.#rows, this.#values];
    for (let i = 0; i < rows.length; i++) {
      const to = next[places[i]!]!++;
      rows[to] = unsortedRows[i]!;
      values[to] = unsortedValues[i]!;
    }
    return { size: this.size, starts, rows, values };
  }

  #reserve(count: number): void {
    if (count <= this.#places.length) return;
    const length = 2 * count;
    const [places, rows, values] = [this.#places, this.#rows, this.#values];
    this.#places = new Int32Array(length);
    this.#rows = new Uint16Array(length);
    this.#values = new Float32Array(length);
    this.#places.set(places);
    this.#rows.set(rows);
    this.#values.set(values);
  }
}

/** What native/cpu/sparse_search.cpp does, for machines without the addon. */
function searchBlocks(
  blocks: readonly SparseBlock[],
  queries: Float32Array,
  dimensions: number,
  best: SearchResult,
  k: number,
): void {
  const sums = new Float32Array(SPARSE_BLOCK);
  let first = 0;
  for (const { size, starts, rows, values } of blocks) {
    for (let query = 0; query * dimensions < queries.length; query++) {
      sums.fill(0);
      for (let place = 0; place < dimensions; place++) {
        const weight = queries[query * dimensions + place]!;
        if (weight === 0) continue;
        for (let i = starts[place]!; i < starts[place + 1]!; i++) sums[rows[i]!]! += weight * values[i]!;
      }
      for (let row = 0; row < size; row++) insert(best, query, k, first + row, sums[row]!);
    }
    first += size;
  }
}
