/** Finds the index that searches a bank fastest and misses little. */

import { UserError } from '../errors.ts';
import { PURPOSE, randomInt } from '../random.ts';
import type { Bank } from './bank.ts';
import { BankIndex, listsFor, specOf } from './bank_index.ts';
import type { RetrievalEncoder } from './encoders/encoder.ts';
import { isSparse } from './encoders/lexical.ts';
import { ExactIndex, type VectorIndex } from './index.ts';
import { SparseIndex } from './sparse_index.ts';

export interface TuneOptions {
  /** Strings of Faiss's index factory to try. Default: a graph and lists, and none for vectors that are mostly zero. */
  factories?: readonly string[];
  /** Memories that a search asks for. */
  k: number;
  /** Least share of the truly nearest that must be found. */
  recall: number;
  /** Searches that are measured. */
  queries?: number;
  say?: (message: string) => void;
}

/** One way of searching, measured. */
export interface Trial {
  /** `exact`, `sparse` (exact, for vectors that are mostly zero), or a string of Faiss's index factory. */
  factory: string;
  parameters: Record<string, number>;
  /** Share of the k truly nearest that are found; what is as near as the k-th counts. */
  recall: number;
  /** Median time of one query alone, its encoding not counted. */
  milliseconds: number;
}

const QUERIES = 200;
/** Values that are tried of the parameter that trades time for recall. */
const EFFORTS = [8, 16, 32, 64, 128, 256, 512, 1024];
/** Scores that differ by less are taken as equal: sums are rounded in another order. */
const SAME_SCORE = 1e-5;

/**
 * Tries indexes on a bank. A query is the first half of a random reference of the bank: what a text that goes on like it
 * would ask.
 * @returns all that was measured, exact search first, and the best index, which the caller closes; undefined when none reaches
 * the recall in less time than a search that needs none
 * @throws UserError input_empty for a bank without memories
 */
export async function tuneIndex(
  bank: Bank,
  encoder: RetrievalEncoder,
  options: TuneOptions,
): Promise<{ trials: Trial[]; best: BankIndex | undefined }> {
  const { k, recall, queries: count = QUERIES, say = () => {} } = options;
  const { factories = isSparse(bank.identity.encoder) ? [] : someFactories(bank.size) } = options;
  if (bank.size === 0) throw new UserError('input_empty', { where: bank.folder, what: 'the bank holds no memory' });
  const queries = await someQueries(bank, encoder, count);
  const { dimensions } = encoder;
  const exact = await filled(bank, new ExactIndex(dimensions));
  const { scores } = await exact.search(queries, k);
  const nearest = Array.from({ length: count }, (_, query) => scores.slice(query * k, (query + 1) * k));
  const trials = [await exhaustive('exact', exact, scores, { queries, nearest, k })];
  if (isSparse(bank.identity.encoder)) {
    const sparse = await filled(bank, new SparseIndex(dimensions));
    trials.push(await exhaustive('sparse', sparse, (await sparse.search(queries, k)).scores, { queries, nearest, k }));
  }
  const withoutIndex = Math.min(...trials.map(({ milliseconds }) => milliseconds));
  let best: { index: BankIndex; milliseconds: number } | undefined;
  for (const factory of factories) {
    const index =
      (await existing(bank, factory)) ??
      (await BankIndex.build(
        bank,
        specOf(factory, 'bank tune'),
        tenths(bank.size, (done) => say(`${factory}: ${done} of ${bank.size} vectors`)),
      ));
    if (index === undefined) {
      say(`${factory}: ${bank.size} memories are too few to train it on`);
      continue;
    }
    const chosen = await bestEffort(index, queries, nearest, { k, recall, dimensions, trials });
    const limit = best?.milliseconds ?? withoutIndex;
    if (chosen === undefined || chosen.milliseconds >= limit) {
      await index.close();
      continue;
    }
    await index.set(chosen.parameters);
    await best?.index.close();
    best = { index, milliseconds: chosen.milliseconds };
  }
  return { trials, best: best?.index };
}

/** The index of the bank when it is such a one and covers all segments: making it takes long. */
async function existing(bank: Bank, factory: string): Promise<BankIndex | undefined> {
  // The description first: the index itself may be large.
  if ((await BankIndex.specIn(bank.folder))?.factory !== factory) return undefined;
  const index = await BankIndex.open(bank);
  if (index === undefined) return undefined;
  if (index.spec.factory === factory && bank.segments.every(({ id }) => index.segments.has(id))) return index;
  await index.close();
  return undefined;
}

async function filled<T extends VectorIndex>(bank: Bank, index: T): Promise<T> {
  for await (const { vectors } of bank.vectors()) {
    index.add(numbersFrom(index.size, vectors.length / index.dimensions), vectors);
  }
  return index;
}

/** A way of searching that compares with all vectors, and the scores that it gave. */
async function exhaustive(
  factory: string,
  index: VectorIndex,
  scores: Float32Array,
  { queries, nearest, k }: { queries: Float32Array; nearest: readonly Float32Array[]; k: number },
): Promise<Trial> {
  const found = nearest.map((_, query) =>
    Array.from(scores.subarray(query * k, (query + 1) * k), (score) => ({ score })),
  );
  const milliseconds = await medianTime(queries, index.dimensions, (one) => index.search(one, k));
  return { factory, parameters: {}, recall: recallOf(found, nearest), milliseconds };
}

/** Tries the efforts from the least on, until the recall is reached. */
async function bestEffort(
  index: BankIndex,
  queries: Float32Array,
  nearest: readonly Float32Array[],
  { k, recall, dimensions, trials }: { k: number; recall: number; dimensions: number; trials: Trial[] },
): Promise<Trial | undefined> {
  const { factory, parameters } = index.spec;
  const [name] = Object.keys(parameters);
  for (const effort of name === undefined ? [0] : EFFORTS) {
    const tried = name === undefined ? {} : { [name]: effort };
    await index.set(tried);
    const found = await index.search(queries, k);
    const trial = {
      factory,
      parameters: tried,
      recall: recallOf(found, nearest),
      milliseconds: await medianTime(queries, dimensions, (one) => index.search(one, k)),
    };
    trials.push(trial);
    if (trial.recall >= recall) return trial;
  }
  return undefined;
}

function recallOf(found: readonly { score: number }[][], nearest: readonly Float32Array[]): number {
  let [right, all] = [0, 0];
  for (const [query, scores] of nearest.entries()) {
    const there = scores.filter((score) => score > -Infinity);
    const least = there.at(-1) ?? Infinity;
    right += found[query]!.filter(({ score }) => score >= least - SAME_SCORE).length;
    all += there.length;
  }
  return Math.min(1, right / all);
}

function someFactories(memories: number): string[] {
  return ['HNSW32', `IVF${listsFor(memories)},Flat`];
}

async function medianTime(
  queries: Float32Array,
  dimensions: number,
  search: (query: Float32Array) => Promise<unknown>,
): Promise<number> {
  const times: number[] = [];
  for (let start = 0; start < queries.length; start += dimensions) {
    const began = performance.now();
    await search(queries.subarray(start, start + dimensions));
    times.push(performance.now() - began);
  }
  return times.sort((a, b) => a - b)[times.length >> 1]!;
}

async function someQueries(bank: Bank, encoder: RetrievalEncoder, count: number): Promise<Float32Array> {
  const ids = bank.ids();
  const chunks = Array.from({ length: count }, (_, i) => {
    const tokens = bank.tokens(ids[randomInt(0, PURPOSE.tuning, 0, i, ids.length)]!);
    return tokens.subarray(0, Math.ceil(tokens.length / 2));
  });
  return await encoder.encodeQueries(chunks);
}

/** Calls `say` when another tenth is done. */
function tenths(total: number, say: (done: number) => void): (done: number) => void {
  let said = 0;
  return (done) => {
    if (done < said + total / 10 && done < total) return;
    said = done;
    say(done);
  };
}

function numbersFrom(first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => first + i);
}
