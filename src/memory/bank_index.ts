/**
 * A Faiss index beside the segments of a bank, for banks that are too large to compare with every vector.
 * It holds nothing that the segments do not hold: without it, or for segments that it does not cover, every vector is
 * compared. It is removed with the first of its segments, so that what is deleted for good is not in it either.
 */

import type { RetrievalConfig } from '../config/schema.ts';
import { FaissIndex, faissAvailable } from '../engine/native/faiss.ts';
import { ignoreUserError, UserError } from '../errors.ts';
import type { Bank } from './bank.ts';
import { isSparse } from './encoders/lexical.ts';
import { normalised } from './index.ts';
import { type IndexDescription, indexesOnDisk, readIndexDescription, saveIndex, verifiedIndex } from './index_files.ts';
import type { StoredEncoder } from './layout.ts';

const ROWS = 2n ** 32n;

/** Below so many memories all of them are compared; docs/bank.md has the times. */
const EXACT_UNTIL = 50_000;
/** Above it a graph takes many minutes to make, and lists find as much in less time. */
const GRAPH_UNTIL = 200_000;
/** Above it the vectors no longer fit into the memory of an ordinary machine. */
const VECTORS_UNTIL = 5_000_000;
/** Vectors that an inverted index is trained on, for each of its lists. */
const TRAINED_PER_LIST = 64;

/** How an index is made and searched. */
export interface IndexSpec {
  /** A string of Faiss's index factory. */
  factory: string;
  /** Search parameters, such as `efSearch` or `nprobe`. */
  parameters: Record<string, number>;
  /** Why this one, in words. */
  reason: string;
}

/**
 * The index for a bank of `memories` vectors of an encoder, as `index` and `search` of `retrieval` say; undefined: compare with all of them,
 * which for vectors that are mostly zero is fast at any size (`SparseIndex`).
 * @throws UserError config_invalid when one is asked for by name and Faiss is not there
 */
export function chooseIndex(
  { index: wanted, search = {} }: Pick<RetrievalConfig, 'index'> & Partial<Pick<RetrievalConfig, 'search'>>,
  memories: number,
  encoder: StoredEncoder,
): IndexSpec | undefined {
  if (wanted === 'exact' || memories === 0) return undefined;
  const faiss = faissAvailable();
  if (wanted === 'auto') {
    if (!faiss.ok || memories < EXACT_UNTIL || isSparse(encoder)) return undefined;
    return withParameters(automatic(memories, encoder.dimensions), search);
  }
  if (!faiss.ok) {
    throw new UserError('config_invalid', {
      where: 'retrieval.index',
      what: `${wanted} needs Faiss: ${faiss.why}`,
      action: 'install it, or set retrieval.index: exact',
    });
  }
  return withParameters(specOf(wanted, 'retrieval.index'), search);
}

function withParameters(spec: IndexSpec, parameters: Record<string, number>): IndexSpec {
  return { ...spec, parameters: { ...spec.parameters, ...parameters } };
}

/** A factory string with search parameters to begin with. */
export function specOf(factory: string, reason: string): IndexSpec {
  return { factory, parameters: parametersOf(factory), reason };
}

function automatic(memories: number, dimensions: number): IndexSpec {
  if (memories < GRAPH_UNTIL) return specOf('HNSW32', `${memories} memories: a graph`);
  const lists = listsFor(memories);
  if (memories < VECTORS_UNTIL) return specOf(`IVF${lists},Flat`, `${memories} memories: lists of vectors`);
  const codes = Math.max(1, Math.floor(dimensions / 4));
  const factory = `OPQ${codes}_${4 * codes},IVF${lists}_HNSW32,PQ${codes}`;
  return specOf(factory, `${memories} memories: lists of codes`);
}

/** Inverted lists for so many memories: about four for each root of their number. */
export function listsFor(memories: number): number {
  return 2 ** Math.ceil(Math.log2(4 * Math.sqrt(memories)));
}

/** What finds nearly all in banks of some hundred thousand memories (docs/bank.md). */
function parametersOf(factory: string): Record<string, number> {
  const lists = /IVF(\d+)/.exec(factory)?.[1];
  if (lists === undefined) return /HNSW/.test(factory) ? { efSearch: 512 } : {};
  return { nprobe: isCoded(factory) ? 64 : Math.min(Number(lists), Math.max(8, Math.floor(Number(lists) / 8))) };
}

/** True when the index keeps codes, so that its scores are no exact cosines. */
const isCoded = (factory: string): boolean => /PQ|SQ|RQ|LSQ/.test(factory);

/** An index over the memories of some segments of a bank version. */
export class BankIndex {
  spec: IndexSpec;
  /** Ids of the segments that it covers. */
  readonly segments: ReadonlySet<string>;
  #order: readonly string[];
  #bank: Bank;
  #index: FaissIndex;

  private constructor(bank: Bank, spec: IndexSpec, order: readonly string[], index: FaissIndex) {
    this.spec = spec;
    this.segments = new Set(order);
    this.#order = order;
    this.#bank = bank;
    this.#index = index;
  }

  /**
   * Makes an index over all memories of a bank version, in memory. On one thread, so that the same vectors give the same
   * index.
   * @param onProgress is called with the number of memories that are in it
   * @returns undefined when the bank holds fewer memories than the index has to be trained on
   * @throws UserError config_invalid for a string that Faiss does not take
   */
  static async build(
    bank: Bank,
    spec: IndexSpec,
    onProgress: (done: number) => void = () => {},
  ): Promise<BankIndex | undefined> {
    const { dimensions } = bank.identity.encoder;
    const index = await trained(bank, spec, dimensions);
    if (index === undefined) return undefined;
    const order = bank.segments.map(({ id }) => id);
    const numbers = new Map(order.map((id, number) => [id, BigInt(number) * ROWS]));
    for await (const { segment, rows, vectors } of bank.vectors()) {
      const first = numbers.get(segment) ?? 0n;
      await index.add(
        normalised(vectors, dimensions),
        BigInt64Array.from(rows, (row) => first + BigInt(row)),
      );
      onProgress(index.size);
    }
    const built = new BankIndex(bank, spec, order, index);
    await built.set(spec.parameters);
    return built;
  }

  /**
   * The index that covers most of a bank version; undefined when there is none, or no Faiss to read it with.
   * @throws UserError file_truncated, file_corrupt or version_unsupported, naming the file and what to do
   */
  static async open(bank: Bank): Promise<BankIndex | undefined> {
    if (!faissAvailable().ok) return undefined;
    let best: { name: string; description: IndexDescription; covered: number } | undefined;
    const sizes = new Map(bank.segments.map(({ id, memories }) => [id, memories]));
    for (const name of await indexesOnDisk(bank.folder)) {
      const description = await readIndexDescription(bank.folder, name);
      const covered = description.segments.reduce((sum, id) => sum + (sizes.get(id) ?? 0), 0);
      if (covered > (best?.covered ?? 0)) best = { name, description, covered };
    }
    if (best === undefined) return undefined;
    const { description, name } = best;
    const index = await FaissIndex.read(await verifiedIndex(bank.folder, name));
    const { factory, parameters, reason, segments } = description;
    const opened = new BankIndex(bank, { factory, parameters, reason }, segments, index);
    await opened.set(parameters);
    return opened;
  }

  /** How the index in a bank's folder is made and searched; undefined when there is none that can be read. */
  static async specIn(folder: string): Promise<IndexSpec | undefined> {
    for (const name of await indexesOnDisk(folder)) {
      const description = await readIndexDescription(folder, name).catch(ignoreUserError);
      if (description === undefined) continue;
      const { factory, parameters, reason } = description;
      return { factory, parameters, reason };
    }
    return undefined;
  }

  /** Sets search parameters; `save` keeps them. @throws UserError config_invalid for one that the index does not have */
  async set(parameters: Record<string, number>): Promise<void> {
    this.spec = { ...this.spec, parameters };
    for (const [name, value] of Object.entries(parameters)) {
      await this.#index.set(name, value).catch((cause: unknown) => {
        throw new UserError('config_invalid', {
          where: `retrieval.search.${name}`,
          what: `${this.spec.factory} has no such parameter`,
          action: 'graphs (HNSW) have efSearch, lists (IVF) nprobe',
          cause,
        });
      });
    }
  }

  /**
   * At most `k` memories of this version for each of `queries` [n, d], nearest first, with cosines.
   * Deleted memories and those of other versions are passed over, more being asked for until there are enough or the index
   * has no more in what it visits (`nprobe`).
   */
  async search(queries: Float32Array, k: number): Promise<{ id: string; score: number }[][]> {
    const { dimensions } = this.#bank.identity.encoder;
    const count = queries.length / dimensions;
    const normal = normalised(queries, dimensions);
    let wanted = Math.min(this.#index.size, isCoded(this.spec.factory) ? 4 * k : k);
    for (;;) {
      const { ids, scores } = await this.#index.search(normal, wanted);
      const found = Array.from({ length: count }, (_, query) => this.#found(ids, scores, query * wanted, wanted));
      const isComplete = found.every(
        (memories, query) => memories.length >= k || ids[(query + 1) * wanted - 1] === -1n,
      );
      if (wanted === this.#index.size || isComplete) {
        if (isCoded(this.spec.factory)) await this.#scoreExactly(normal, found);
        return found.map((memories) => memories.slice(0, k));
      }
      wanted = Math.min(this.#index.size, 4 * wanted);
    }
  }

  /** Writes the index beside the segments, in the place of others. */
  async save(): Promise<void> {
    const { folder, identity } = this.#bank;
    const facts = { ...this.spec, dimensions: identity.encoder.dimensions, segments: [...this.#order] };
    await saveIndex(folder, facts, (path) => this.#index.write(path));
  }

  async close(): Promise<void> {
    await this.#index.close();
  }

  #found(ids: BigInt64Array, scores: Float32Array, first: number, count: number): { id: string; score: number }[] {
    const found: { id: string; score: number }[] = [];
    for (let slot = first; slot < first + count && ids[slot]! >= 0n; slot++) {
      const segment = this.#order[Number(ids[slot]! / ROWS)];
      const id = segment === undefined ? undefined : this.#bank.idAt(segment, Number(ids[slot]! % ROWS));
      if (id !== undefined) found.push({ id, score: scores[slot]! });
    }
    return found;
  }

  /** Puts the cosines with the vectors of the bank in place of those with codes, and orders by them. */
  async #scoreExactly(queries: Float32Array, found: { id: string; score: number }[][]): Promise<void> {
    const { dimensions } = this.#bank.identity.encoder;
    for (const [query, memories] of found.entries()) {
      const asked = queries.subarray(query * dimensions, (query + 1) * dimensions);
      for (const memory of memories) {
        const vector = normalised(await this.#bank.vector(memory.id), dimensions);
        memory.score = asked.reduce((sum, value, i) => sum + value * vector[i]!, 0);
      }
      memories.sort((a, b) => b.score - a.score);
    }
  }
}

/**
 * An empty index, trained if it has to be; undefined when there are too few memories to train on.
 * @throws UserError config_invalid for a string that Faiss does not take
 */
async function trained(bank: Bank, { factory }: IndexSpec, dimensions: number): Promise<FaissIndex | undefined> {
  let index: FaissIndex;
  try {
    index = FaissIndex.create(dimensions, factory, { threads: 1 });
  } catch (cause) {
    throw new UserError('config_invalid', {
      where: 'retrieval.index',
      what: `Faiss cannot make ${factory} for vectors of ${dimensions}: ${(cause as Error).message.trim()}`,
      action: 'choose another index, or auto',
      cause,
    });
  }
  if (index.trained) return index;
  try {
    await index.train(await sample(bank, factory, dimensions));
    return index;
  } catch (cause) {
    await index.close();
    if (/Number of training points/.test((cause as Error).message)) return undefined;
    throw cause;
  }
}

/** Vectors spread evenly over the bank. */
async function sample(bank: Bank, factory: string, dimensions: number): Promise<Float32Array> {
  const lists = Number(/IVF(\d+)/.exec(factory)?.[1] ?? 1024);
  const count = Math.min(bank.size, Math.max(65_536, TRAINED_PER_LIST * lists));
  const out = new Float32Array(count * dimensions);
  let [seen, taken] = [0, 0];
  for await (const { rows, vectors } of bank.vectors()) {
    for (let i = 0; i < rows.length; i++, seen++) {
      if (taken >= count || Math.floor((taken * bank.size) / count) > seen) continue;
      out.set(vectors.subarray(i * dimensions, (i + 1) * dimensions), taken++ * dimensions);
    }
  }
  return normalised(out.subarray(0, taken * dimensions), dimensions);
}
