/**
 * Faiss, when the addon was built with it: vector indexes and codecs. Each call runs on a thread of libuv while JavaScript
 * goes on; calls on one object run one after the other, in the order in which they were made. Typed arrays are used where
 * they are: until the promise of a call is settled their buffers must not be changed or transferred.
 *
 * Threads are OpenMP's: a call computes on `threads` of them. The setting belongs to the call, not to the process, but the
 * threads that OpenMP has started stay, a set for each thread of libuv that computed.
 *
 * What is the same bits each time: training, adding and searching at one number of threads, for all but the graphs (HNSW),
 * whose links depend on which thread comes first: add to those with one thread. Another number of threads may round sums
 * of matrix products otherwise.
 *
 * Legend: n vectors, d dimensions, k results of a query.
 */

import { physicalCores } from '../../io/cores.ts';
import { findAddon } from './addon.ts';

/** How near two vectors are: `ip` inner product (greater is nearer), `l2` squared distance (less is nearer). */
export type FaissMetric = 'ip' | 'l2';

export interface FaissOptions {
  /** OpenMP threads of each call. Default: one for each physical core. */
  threads?: number;
}

/** The nearest vectors of each query, nearest first: [n, k]; an id of −1 stands where fewer were found. */
export interface FaissResult {
  ids: BigInt64Array;
  scores: Float32Array;
}

/** All vectors within a radius; those of query q are [limits[q], limits[q + 1]), in no order. */
export interface FaissRange {
  limits: Float64Array;
  ids: BigInt64Array;
  scores: Float32Array;
}

/** What can be said about an index without touching its vectors. */
export interface FaissFacts {
  dimensions: number;
  size: number;
  trained: boolean;
  /** Bytes of a vector as a code; 0 when the index is no codec. */
  codeBytes: number;
  /** Bytes in memory, about. */
  memoryBytes: number;
}

/** The class of native/addon/faiss.cpp. */
interface NativeFaiss {
  make(dimensions: number, factory: string, innerProduct: boolean, ids: boolean): void;
  facts(): FaissFacts;
  read(path: string, map: boolean, threads: number): Promise<void>;
  restore(bytes: Uint8Array, threads: number): Promise<void>;
  write(path: string, threads: number): Promise<void>;
  bytes(threads: number): Promise<Uint8Array>;
  close(threads: number): Promise<void>;
  train(x: Float32Array, threads: number): Promise<void>;
  add(x: Float32Array, ids: BigInt64Array, threads: number): Promise<void>;
  search(
    ...args: [x: Float32Array, k: number, ids: BigInt64Array, scores: Float32Array, threads: number]
  ): Promise<void>;
  searchRange(x: Float32Array, radius: number, threads: number): Promise<FaissRange>;
  remove(ids: BigInt64Array, threads: number): Promise<number>;
  reconstruct(ids: BigInt64Array, out: Float32Array, threads: number): Promise<void>;
  idRange(threads: number): Promise<[bigint, bigint]>;
  set(name: string, value: number, threads: number): Promise<void>;
  encode(x: Float32Array, codes: Uint8Array, threads: number): Promise<void>;
  decode(codes: Uint8Array, out: Float32Array, threads: number): Promise<void>;
}

type NativeFaissClass = new () => NativeFaiss;

/** Whether Faiss can be used, or why not and what that costs. */
export function faissAvailable(): { ok: true } | { ok: false; why: string } {
  const found = findFaiss();
  return typeof found === 'string' ? { ok: false, why: found } : { ok: true };
}

function findFaiss(): NativeFaissClass | string {
  const found = findAddon();
  if (!('addon' in found)) return `the addon ${found.why}`;
  const { FaissIndex: native } = found.addon as { FaissIndex?: NativeFaissClass };
  return native ?? 'the addon was built without it (install libfaiss-dev and run scripts/build_native.sh again)';
}

function newNative(): NativeFaiss {
  const found = findFaiss();
  if (typeof found === 'string') throw new Error(`Faiss is not available: ${found}`);
  return new found();
}

/** What indexes and codecs share. */
class FaissObject {
  protected readonly native: NativeFaiss;
  /** OpenMP threads of the calls that are made from now on. */
  threads: number;
  /** 0 before an index was read. */
  #dimensions = 0;

  protected constructor(native: NativeFaiss, { threads }: FaissOptions) {
    this.native = native;
    this.threads = threads || physicalCores();
  }

  get dimensions(): number {
    this.#dimensions ||= this.native.facts().dimensions;
    return this.#dimensions;
  }

  get trained(): boolean {
    return this.native.facts().trained;
  }

  /** Bytes in memory, about; V8 knows of them. */
  get memoryBytes(): number {
    return this.native.facts().memoryBytes;
  }

  /**
   * Trains on `vectors` [n, d]; nothing happens where no training is needed.
   * @throws Error in Faiss's words, for example when there are fewer vectors than centroids
   */
  async train(vectors: Float32Array): Promise<void> {
    if (vectors.length > 0) await this.native.train(vectors, this.threads);
  }

  /** Everything as bytes, to be stored and restored. */
  async bytes(): Promise<Uint8Array> {
    return await this.native.bytes(this.threads);
  }

  /** Frees the memory without waiting for the garbage collector, after the calls that were made before. */
  async close(): Promise<void> {
    await this.native.close(this.threads);
  }
}

/** Vectors under ids, searched in the way that a factory string says. */
export class FaissIndex extends FaissObject {
  readonly metric: FaissMetric;

  private constructor(native: NativeFaiss, metric: FaissMetric, options: FaissOptions) {
    super(native, options);
    this.metric = metric;
  }

  /**
   * An empty index.
   * @param factory a string of Faiss's index factory, such as `Flat`, `HNSW32`, `IVF256,Flat` or
   * `OPQ64_256,IVF1024,PQ64`; an index that keeps no ids is put below `IDMap2`
   * @throws Error when Faiss is not there or does not take the string
   */
  static create(
    dimensions: number,
    factory: string,
    options: FaissOptions & { metric?: FaissMetric } = {},
  ): FaissIndex {
    const { metric = 'ip' } = options;
    const native = newNative();
    native.make(dimensions, factory, metric === 'ip', true);
    return new FaissIndex(native, metric, options);
  }

  /**
   * Reads an index that `write` or Faiss itself has written. The file must be one to trust: Faiss does not look for every
   * kind of damage.
   * @param options.map leave inverted lists (IVF) in the file and map it; the index cannot be changed then
   */
  static async read(
    path: string,
    options: FaissOptions & { metric?: FaissMetric; map?: boolean } = {},
  ): Promise<FaissIndex> {
    const index = new FaissIndex(newNative(), options.metric ?? 'ip', options);
    await index.native.read(path, options.map ?? false, index.threads);
    return index;
  }

  /** Vectors in the index. */
  get size(): number {
    return this.native.facts().size;
  }

  /** Adds `vectors` [n, d] under `ids` [n], which must be at least 0 and not in the index yet. */
  async add(vectors: Float32Array, ids: BigInt64Array): Promise<void> {
    if (vectors.length > 0 || ids.length > 0) await this.native.add(vectors, ids, this.threads);
  }

  /**
   * The `k` nearest of each of `queries` [n, d]. One query is searched for at once, on the thread that asks, while that takes
   * less than the way to another thread is worth (0.5 ms).
   */
  async search(queries: Float32Array, k: number): Promise<FaissResult> {
    const count = queries.length === 0 ? 0 : queries.length / this.dimensions;
    if (!Number.isInteger(count))
      throw new RangeError(`${queries.length} numbers are no queries of ${this.dimensions}`);
    const result = { ids: new BigInt64Array(count * k), scores: new Float32Array(count * k) };
    // Faiss shares queries among threads: more of them would only wait.
    const threads = Math.min(this.threads, count);
    if (count > 0) await this.native.search(queries, k, result.ids, result.scores, threads);
    return result;
  }

  /** All vectors nearer to the queries [n, d] than `radius`, in the unit of the metric. Graphs cannot do it. */
  async searchRange(queries: Float32Array, radius: number): Promise<FaissRange> {
    return await this.native.searchRange(queries, radius, this.threads);
  }

  /** Removes vectors; ids that are not there are passed over. Graphs (HNSW) cannot do it. @returns how many were there */
  async remove(ids: BigInt64Array): Promise<number> {
    return await this.native.remove(ids, this.threads);
  }

  /** The vectors [n, d] of `ids`, as far as the index keeps them: codes give an approximation. @throws Error for an id that is not there */
  async reconstruct(ids: BigInt64Array): Promise<Float32Array> {
    const out = new Float32Array(ids.length * this.dimensions);
    if (ids.length > 0) await this.native.reconstruct(ids, out, this.threads);
    return out;
  }

  /** The least and the greatest id, or undefined for an empty index. */
  async idRange(): Promise<[least: bigint, greatest: bigint] | undefined> {
    const range = await this.native.idRange(this.threads);
    return range[0] < 0n ? undefined : range;
  }

  /**
   * Sets a search parameter, for example `nprobe` (inverted lists visited) or `efSearch` (breadth in a graph), also below
   * maps of ids and transforms. @throws Error when the index has no such parameter
   */
  async set(name: string, value: number): Promise<void> {
    await this.native.set(name, value, this.threads);
  }

  /** Writes the index to a file. Give it a temporary name and rename it. */
  async write(path: string): Promise<void> {
    await this.native.write(path, this.threads);
  }
}

/** Turns vectors into short codes and back, with a loss. */
export class FaissCodec extends FaissObject {
  /**
   * A codec that is still to be trained.
   * @param factory a string of Faiss's index factory, such as `SQ8`, `PQ8x10`, `RQ8x8` or
   * `OPQ20_80,Residual2x14,PQ8x10`; the paper's spelling of the last, `OPQ20x80-Residual2x14-PQ8x10`, is taken too
   */
  static create(dimensions: number, factory: string, options: FaissOptions = {}): FaissCodec {
    const native = newNative();
    native.make(dimensions, faissSpelling(factory), false, false);
    return new FaissCodec(native, options);
  }

  /** A codec from what `bytes` gave. */
  static async restore(bytes: Uint8Array, options: FaissOptions = {}): Promise<FaissCodec> {
    const codec = new FaissCodec(newNative(), options);
    await codec.native.restore(bytes, codec.threads);
    return codec;
  }

  /** Bytes of one code. */
  get codeBytes(): number {
    return this.native.facts().codeBytes;
  }

  /** Codes [n, codeBytes] of `vectors` [n, d]. */
  async encode(vectors: Float32Array): Promise<Uint8Array> {
    const codes = new Uint8Array((vectors.length / this.dimensions) * this.codeBytes);
    if (vectors.length > 0) await this.native.encode(vectors, codes, this.threads);
    return codes;
  }

  /** Vectors [n, d] near those that the codes [n, codeBytes] were made from. */
  async decode(codes: Uint8Array): Promise<Float32Array> {
    const vectors = new Float32Array((codes.length / this.codeBytes) * this.dimensions);
    if (codes.length > 0) await this.native.decode(codes, vectors, this.threads);
    return vectors;
  }
}

/** Faiss's spelling of a codec that is written as in the paper: `OPQ20x80-…` is `OPQ20_80,…`. */
export function faissSpelling(factory: string): string {
  return factory.replaceAll('-', ',').replace(/\bOPQ(\d+)x(\d+)/, 'OPQ$1_$2');
}
