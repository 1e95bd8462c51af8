/** Measures a memory bank: its size on disk, opening, search, fetching, adding, editing. */

import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { runSchema } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import { UserError } from '../../src/errors.ts';
import { linkFolder } from '../../src/io/files.ts';
import { Bank } from '../../src/memory/bank.ts';
import { storedEncoder } from '../../src/memory/encoders/encoder.ts';
import { LexicalEncoder } from '../../src/memory/encoders/lexical.ts';
import { restoreEncoder } from '../../src/memory/encoders/registry.ts';
import type { MemoryLayout } from '../../src/memory/layout.ts';
import { Retriever } from '../../src/memory/retrieve.ts';
import { RowCache } from '../../src/memory/row_cache.ts';
import type { StorageType } from '../../src/ops/index.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import { randomMemories, randomTokens } from './random_memories.ts';

export interface Options {
  /** Folder of a bank that exists; without it one is made, with `memories` random ones. */
  folder?: string;
  memories: number;
  layout: MemoryLayout;
  storage: StorageType;
  /** Of the made bank's retrieval vectors. */
  dimensions: number;
  /** Memories added to a copy, when the bank exists. */
  add: number;
  retrievals: number;
  threads: number;
  say(line: string): void;
}

export interface Report {
  date: string;
  machine: string;
  node: string;
  engine: string;
  /** `made` or the folder. */
  bank: string;
  memories: number;
  segments: number;
  layout: MemoryLayout;
  storage: StorageType;
  dimensions: number;
  bytes: Sizes;
  adding: Adding;
  /** Seconds, one of each opening. */
  opening: number[];
  /** Growth of the resident memory by an opened bank, bytes. */
  openBytes: number;
  search: Searching;
  fetching: Fetching[];
  editing: Editing;
}

/** Seconds of changes to a copy. */
export interface Editing {
  openSeconds: number;
  editSeconds: number;
  /** Memories deleted at random, from all segments. */
  deleted: number;
  deleteSeconds: number;
  /** Rewrites the segments that hold them. */
  compactSeconds: number;
  /** Reads and checks every byte of the result. */
  verifySeconds: number;
}

/** Bytes of one memory, means. */
export interface Sizes {
  /** 2 · Lmem · K · S · D numbers of the stored type. */
  formula: number;
  rows: number;
  vectors: number;
  /** All records: text, token ids, kept positions and the rest. */
  records: number;
  /** Text, title, document and id in UTF-8 and the token ids, of a sample. */
  text: number;
  /** Checksums and descriptions. */
  descriptions: number;
}

export interface Adding {
  memories: number;
  seconds: number;
  /** Resident memory before, and at most while adding, bytes. */
  before: number;
  peak: number;
}

export interface Searching {
  /** Seconds to load the index. */
  loading: number;
  /** Growth of the resident memory by it, bytes. */
  indexBytes: number;
  k: number;
  /** Seconds a query, asked alone. */
  alone: number[];
  /** Seconds a query in batches of `batch`. */
  batch: number;
  batched: number[];
  /** Share of the k truly nearest that are found. */
  recall: number;
}

export interface Fetching {
  cache: 'off' | 'filling' | 'warm';
  retrievals: number;
  perRetrieval: number;
  bytes: number;
  seconds: number;
  /** Processor seconds of all threads. */
  processor: number;
}

const K = 5;
/** Of a token id in vocabularies of up to 65,536. */
const TOKEN_BYTES = 2;
const DELETED = 1000;
const FETCHES = 9;
const SAMPLE = 10_000;
const OPENINGS = 3;
const BATCH = 64;
const QUERIES = 256;
const RECALL_QUERIES = 64;

export async function benchmarkBank(options: Options): Promise<Report> {
  const { name: engine } = await openEngine('auto', options.threads);
  const parent = options.folder === undefined ? undefined : dirname(options.folder);
  const scratch = await mkdtemp(join(parent ?? process.cwd(), '.bench-bank-'));
  try {
    return await measure(options, join(scratch, 'bank'), engine);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function measure(options: Options, copy: string, engine: string): Promise<Report> {
  const { folder, say } = options;
  say(folder ? `adding ${options.add} memories to a copy of ${folder}` : `making ${options.memories} random memories`);
  const adding = folder ? await addToCopy(folder, copy, options.add) : await make(copy, options);
  const measured = folder ?? copy;
  say('opening');
  const before = resident();
  const opening: number[] = [];
  for (let i = 0; i < OPENINGS; i++) {
    const [seconds, opened] = await timed(() => Bank.open(measured));
    opening.push(seconds);
    await opened.close();
  }
  const bank = await Bank.open(measured, { cache: new RowCache(0) });
  const openBytes = resident() - before;
  try {
    const { layout, encoder } = bank.identity;
    const ids = bank.ids();
    say('searching');
    const search = await searching(bank, ids);
    say('fetching');
    const fetching = await fetchingAll(measured, bank, ids, options.retrievals);
    say('editing');
    return {
      date: new Date().toISOString(),
      machine: cpus()[0]?.model ?? 'unknown',
      node: process.version,
      engine,
      bank: folder ?? 'made',
      memories: bank.size,
      segments: (await readdir(measured)).filter((name) => name.startsWith('segment-')).length,
      layout,
      storage: bank.identity.storage,
      dimensions: encoder.dimensions,
      bytes: await sizes(measured, bank),
      adding,
      opening,
      openBytes,
      search,
      fetching,
      editing: await editing(copy, ids),
    };
  } finally {
    await bank.close();
  }
}

async function make(folder: string, { layout, storage, dimensions, memories }: Options): Promise<Adding> {
  const encoder = await LexicalEncoder.fit(
    Array.from({ length: Math.min(memories, SAMPLE) }, (_, number) => randomTokens(number)),
    dimensions,
  );
  const identity = { modelKey: 'bench', tokenizerHash: 'bench', layout, storage, encoder: storedEncoder(encoder) };
  const writer = await Bank.create(folder, identity);
  return await add(memories, (batches) => writer.append(batches, 'bench'), encoder, layout);
}

/** The copy shares its files with the bank, which is left as it is. */
async function addToCopy(folder: string, copy: string, count: number): Promise<Adding> {
  await linkFolder(folder, copy);
  const writer = await Bank.openForWriting(copy);
  const { layout, encoder } = writer.identity;
  return await add(count, (batches) => writer.append(batches, 'bench'), encoderOf(encoder, layout), layout);
}

async function add(
  memories: number,
  append: (batches: ReturnType<typeof randomMemories>) => Promise<number>,
  encoder: LexicalEncoder,
  layout: MemoryLayout,
): Promise<Adding> {
  const before = resident();
  let peak = before;
  async function* watched() {
    const encode = (tokens: readonly Int32Array[]) => encodeTokens(encoder, tokens);
    for await (const batch of randomMemories({ layout }, memories, encode, 'bench-')) {
      peak = Math.max(peak, resident());
      yield batch;
    }
  }
  const [seconds] = await timed(() => append(watched()));
  return { memories, seconds, before, peak: Math.max(peak, resident()) };
}

function encodeTokens(encoder: LexicalEncoder, tokens: readonly Int32Array[]): Promise<Float32Array> {
  return encoder.encodeReferences({ tokens });
}

function encoderOf(stored: Bank['identity']['encoder'], layout: MemoryLayout): LexicalEncoder {
  const what = 'this bank is searched by the keys of a model, which this benchmark does not load';
  const refuse = async (): Promise<never> => {
    throw new UserError('usage_invalid', { what, action: 'measure a bank with `retrieval.encoder: lexical`' });
  };
  const encoder = restoreEncoder(stored, {
    ...{ layout, queries: refuse, decode: refuse },
    config: runSchema.parse({ name: 'bench' }),
  });
  if (encoder instanceof LexicalEncoder) return encoder;
  throw new UserError('usage_invalid', { what, action: 'measure a bank with `retrieval.encoder: lexical`' });
}

async function sizes(folder: string, bank: Bank): Promise<Sizes> {
  const totals = { 'rows.bin': 0, 'index.bin': 0, 'memories.arrow': 0, other: 0 };
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const name = entry.name in totals ? (entry.name as keyof typeof totals) : 'other';
    totals[name] += (await stat(join(entry.parentPath, entry.name))).size;
  }
  let [text, sampled] = [0, 0];
  for await (const record of bank.list()) {
    text += Buffer.byteLength(record.text + record.title + record.document + record.id);
    text += TOKEN_BYTES * record.tokens.length;
    if (++sampled === SAMPLE) break;
  }
  const { size } = bank;
  return {
    formula: bank.format.rowBytes,
    rows: totals['rows.bin'] / size,
    vectors: totals['index.bin'] / size,
    records: totals['memories.arrow'] / size,
    text: text / sampled,
    descriptions: totals.other / size,
  };
}

/** Half of a random memory's text is the query. */
async function searching(bank: Bank, ids: readonly string[]): Promise<Searching> {
  const encoder = encoderOf(bank.identity.encoder, bank.identity.layout);
  const queries = Array.from({ length: QUERIES }, (_, i) => {
    const tokens = bank.tokens(ids[randomInt(2, PURPOSE.test, 0, i, ids.length)]!);
    return tokens.subarray(0, Math.ceil(tokens.length / 2));
  });
  const before = resident();
  const [loading, retriever] = await timed(() => Retriever.fromBank(bank, encoder));
  const indexBytes = resident() - before;
  await retriever.search(queries.slice(0, BATCH), K);
  const alone: number[] = [];
  for (const query of queries.slice(0, BATCH)) alone.push((await timed(() => retriever.search([query], K)))[0]);
  const batched: number[] = [];
  for (let first = 0; first < QUERIES; first += BATCH) {
    const [seconds] = await timed(() => retriever.search(queries.slice(first, first + BATCH), K));
    batched.push(seconds / BATCH);
  }
  const asked = queries.slice(0, RECALL_QUERIES);
  const found = await retriever.search(asked, K);
  const vectors = await encoder.encodeQueries(asked);
  const recall = recallOf(
    found.map((results) => results.map(({ score }) => score)),
    await bestScores(bank, vectors),
  );
  return { loading, indexBytes, k: K, alone, batch: BATCH, batched, recall };
}

/** The K highest scores of each query, by comparing with every vector one by one. */
async function bestScores(bank: Bank, queries: Float32Array): Promise<number[][]> {
  const { dimensions } = bank.identity.encoder;
  const best = Array.from({ length: queries.length / dimensions }, (): number[] => []);
  for await (const { ids, vectors } of bank.vectors()) {
    for (let row = 0; row < ids.length; row++) {
      const at = row * dimensions;
      for (const [query, scores] of best.entries()) {
        let score = 0;
        for (let d = 0; d < dimensions; d++) score += vectors[at + d]! * queries[query * dimensions + d]!;
        if (scores.length === K && score <= scores[K - 1]!) continue;
        scores.push(score);
        scores.sort((a, b) => b - a);
        scores.length = Math.min(scores.length, K);
      }
    }
  }
  return best;
}

/** Share of results that are at least as near as the k-th nearest: memories that are equally near are as good. */
function recallOf(found: readonly number[][], best: readonly number[][]): number {
  const right = found.map((scores, query) => {
    const least = best[query]!.at(-1)! - 1e-5;
    return scores.filter((score) => score >= least).length;
  });
  return right.reduce((sum, count) => sum + count, 0) / best.reduce((sum, { length }) => sum + length, 0);
}

async function fetchingAll(
  folder: string,
  bank: Bank,
  ids: readonly string[],
  retrievals: number,
): Promise<Fetching[]> {
  const chosen = Array.from({ length: retrievals }, (_, i) =>
    Array.from({ length: K }, (_, j) => ids[randomInt(3, PURPOSE.test, i, j, ids.length)]!),
  );
  const buffer = new Uint8Array(K * retrievals * bank.format.rowBytes);
  // Brings the files into the page cache, and every block past the check of its first reading.
  await fetchOnce(bank, chosen, 'off', buffer);
  const off = await fetchOften(bank, chosen, 'off', buffer);
  const cached = await Bank.open(folder, { cache: new RowCache(2 ** 30) });
  try {
    await cached.verify();
    const filling = await fetchOnce(cached, chosen, 'filling', buffer);
    return [off, filling, await fetchOften(cached, chosen, 'warm', buffer)];
  } finally {
    await cached.close();
  }
}

/** The one of median time among several. */
async function fetchOften(...args: Parameters<typeof fetchOnce>): Promise<Fetching> {
  const all: Fetching[] = [];
  for (let i = 0; i < FETCHES; i++) all.push(await fetchOnce(...args));
  return all.sort((a, b) => a.seconds - b.seconds)[FETCHES >> 1]!;
}

/** All in one call, as a training step reads them. */
async function fetchOnce(
  bank: Bank,
  chosen: readonly string[][],
  cache: Fetching['cache'],
  buffer: Uint8Array,
): Promise<Fetching> {
  const started = process.cpuUsage();
  const [seconds, { byteLength: bytes }] = await timed(() => bank.readStored(chosen.flat(), buffer));
  const { user, system } = process.cpuUsage(started);
  return { cache, retrievals: chosen.length, perRetrieval: K, bytes, seconds, processor: (user + system) / 1e6 };
}

/** Replaces one memory in the copy, deletes many, compacts and checks what is left. */
async function editing(copy: string, ids: readonly string[]): Promise<Editing> {
  const [openSeconds, writer] = await timed(() => Bank.openForWriting(copy));
  const { layout, encoder } = writer.identity;
  const encode = (tokens: readonly Int32Array[]) => encodeTokens(encoderOf(encoder, layout), tokens);
  const [first, ...rest] = ids as [string, ...string[]];
  const memory = randomMemories({ layout }, 1, encode, 'edited-');
  const [editSeconds] = await timed(() => writer.edit([first], memory, 'bench'));
  const every = Math.max(1, Math.floor(rest.length / DELETED));
  const gone = rest.filter((_, i) => i % every === 0).slice(0, DELETED);
  const [deleteSeconds] = await timed(() => writer.delete(gone));
  const [compactSeconds] = await timed(async () => {
    await writer.compact();
    await writer.prune([]);
  });
  const bank = await Bank.open(copy);
  const [verifySeconds] = await timed(() => bank.verify());
  await bank.close();
  return { openSeconds, editSeconds, deleted: gone.length, deleteSeconds, compactSeconds, verifySeconds };
}

async function timed<T>(work: () => Promise<T>): Promise<[seconds: number, result: T]> {
  const start = performance.now();
  const result = await work();
  return [(performance.now() - start) / 1000, result];
}

const resident = (): number => process.memoryUsage.rss();
