/**
 * References: short texts that become explicit memories (paper §3.2). Documents are cut at sentence ends into pieces of at
 * most `referenceTokens` tokens and stored as one Arrow file with a manifest.
 */

import { join } from 'node:path';
import { type Data, Field, Int32, Int64, type RecordBatch, Schema, Utf8 } from 'apache-arrow';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import {
  ArrowFileWriter,
  arrowFileSchema,
  checkSize,
  int32At,
  int32Column,
  int64At,
  int64Column,
  readBatch,
  textAt,
  textColumn,
  tokenListType,
  tokensAt,
  tokensColumn,
  verifyFile,
} from './arrow_file.ts';
import { BatchCache } from './batch_cache.ts';
import type { DataCounters, Document } from './documents.ts';
import { inGroups } from './groups.ts';
import { countersSchema, readManifest, writeManifest } from './manifest.ts';
import { halve, type Span, sentences, trimSpan } from './sentences.ts';
import { type OpenOptions, requireTokenizer } from './token_dataset.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface Reference {
  /** 16 hexadecimal digits of the sha256 of document id and span: the same wherever the document is read again. */
  id: string;
  /** Id of the document that it was cut from. */
  document: string;
  /** Title of the document, empty when it has none. */
  title: string;
  /** [start, end) in the document's text, in code units. */
  span: [number, number];
  text: string;
  /** Token ids of `text`, without any prefix. */
  tokens: Int32Array;
}

/** A reference with where its document is from, and its place among the document's references. */
export interface Piece extends Reference {
  /** Address of the document, empty when it has none. */
  url: string;
  /** Where the document was read. */
  source: Document['source'];
  /** Its number among the `pieces` references of the document, which follow one another. */
  piece: number;
  pieces: number;
}

/** A reference with the text of its document in front of it. */
export interface ReferenceInContext extends Piece {
  /** Token ids of the references before it in its document, the last ones. */
  context: Int32Array;
}

const VERSION = 2;
const FILE = 'references.arrow';
/** A reference is read alone as often as in order: a record batch stays small. */
const BATCH_TOKENS = 16_384;
/** References held at once when they are read in another order than that of the file: about 40 MB when all are long. */
const READ_TOGETHER = 16_384;

const manifestSchema = z.strictObject({
  tokenizerHash: z.string(),
  vocabSize: z.int().min(1),
  /** Tokens of a reference at most. */
  referenceTokens: z.int().min(1),
  references: z.int().min(0),
  tokens: z.int().min(0),
  file: arrowFileSchema,
  counters: countersSchema,
});
export type ReferenceManifest = z.infer<typeof manifestSchema> & { contentHash: string };

const COLUMN = {
  ...{ id: 0, document: 1, title: 2, url: 3, source: 4, offset: 5 },
  ...{ piece: 6, pieces: 7, start: 8, end: 9, text: 10, tokens: 11 },
} as const;

function rowSchema(vocabSize: number): Schema {
  return new Schema([
    new Field('id', new Utf8(), false),
    new Field('document', new Utf8(), false),
    new Field('title', new Utf8(), false),
    new Field('url', new Utf8(), false),
    new Field('source', new Utf8(), false),
    new Field('offset', new Int64(), false),
    new Field('piece', new Int32(), false),
    new Field('pieces', new Int32(), false),
    new Field('start', new Int32(), false),
    new Field('end', new Int32(), false),
    new Field('text', new Utf8(), false),
    new Field('tokens', tokenListType(vocabSize), false),
  ]);
}

/**
 * Cuts each document into references of at most `limit` tokens: as many whole sentences as fit; a sentence that does not
 * fit is halved at a line end or between words until it does.
 * @throws UserError config_invalid when one character has more than `limit` tokens
 */
export async function* cutReferences(
  documents: AsyncIterable<Document>,
  tokenizer: Tokenizer,
  limit: number,
): AsyncGenerator<Piece> {
  for await (const group of inGroups(documents)) {
    const wholes = await tokenizer.encodeBatch(group.map(({ text }) => text.trim()));
    for (const [i, document] of group.entries()) {
      const tokens = wholes[i]!;
      const whole = trimSpan(document.text, { start: 0, end: document.text.length });
      const references =
        tokens.length <= limit
          ? [makeReference(document, whole, tokens)]
          : await cutDocument(document, tokenizer, limit);
      const from = { url: document.url ?? '', source: document.source, pieces: references.length };
      for (const [piece, reference] of references.entries()) yield { ...reference, ...from, piece };
    }
  }
}

async function cutDocument(document: Document, tokenizer: Tokenizer, limit: number): Promise<Reference[]> {
  const references: Reference[] = [];
  const pieces = await fittingPieces(document, sentences(document.text), tokenizer, limit);
  for (let first = 0; first < pieces.length; ) {
    let last = first;
    for (let sum = pieces[first]!.tokens; last + 1 < pieces.length; last++) {
      sum += pieces[last + 1]!.tokens;
      if (sum > limit) break;
    }
    let span = { start: pieces[first]!.start, end: pieces[last]!.end };
    let tokens = await tokenizer.encode(document.text.slice(span.start, span.end));
    // Tokens of the white space between sentences are not in the sum.
    while (tokens.length > limit && last > first) {
      span = { start: span.start, end: pieces[--last]!.end };
      tokens = await tokenizer.encode(document.text.slice(span.start, span.end));
    }
    references.push(makeReference(document, span, tokens));
    first = last + 1;
  }
  return references;
}

/** `spans` with their numbers of tokens, those above the limit halved until they fit. */
async function fittingPieces(
  document: Document,
  spans: Span[],
  tokenizer: Tokenizer,
  limit: number,
): Promise<(Span & { tokens: number })[]> {
  const encoded = await tokenizer.encodeBatch(spans.map(({ start, end }) => document.text.slice(start, end)));
  const pieces: (Span & { tokens: number })[] = [];
  for (const [i, span] of spans.entries()) {
    const tokens = encoded[i]!.length;
    if (tokens <= limit) {
      pieces.push({ ...span, tokens });
      continue;
    }
    const halves = halve(document.text, span);
    if (!halves) {
      const character = document.text.slice(span.start, span.end);
      throw new UserError('config_invalid', {
        where: 'memory.referenceTokens',
        what: `the character "${character}" in document ${document.id} alone has ${tokens} tokens, more than ${limit}`,
        action: 'allow longer references',
      });
    }
    pieces.push(...(await fittingPieces(document, halves, tokenizer, limit)));
  }
  return pieces;
}

function makeReference(document: Document, { start, end }: Span, tokens: Int32Array): Reference {
  const id = sha256(`${document.id}\0${start}:${end}`).slice(0, 16);
  const text = document.text.slice(start, end);
  return { id, document: document.id, title: document.title ?? '', span: [start, end], text, tokens };
}

/** References in the order in which `cutReferences` gives them, each with at most `count` tokens of context. */
export async function* inContext(
  references: AsyncIterable<Piece> | Iterable<Piece>,
  count: number,
): AsyncGenerator<ReferenceInContext> {
  let before: Piece[] = [];
  for await (const reference of references) {
    if (reference.piece === 0) before = [];
    yield { ...reference, context: lastTokens(before, count) };
    before.push(reference);
    if (before.slice(1).reduce((sum, { tokens }) => sum + tokens.length, 0) >= count) before.shift();
  }
}

/** The last `count` tokens of references. */
function lastTokens(references: readonly Reference[], count: number): Int32Array {
  const tokens = references.flatMap((reference) => Array.from(reference.tokens));
  return Int32Array.from(tokens.slice(Math.max(0, tokens.length - count)));
}

export interface WriteReferencesOptions {
  tokenizerHash: string;
  vocabSize: number;
  referenceTokens: number;
}

/**
 * Writes `<folder>/references.arrow` and, last, `<folder>/manifest.json`.
 * @param counters what reading the documents counts; stored with the manifest once `references` has ended
 * @throws UserError disk_full
 */
export async function writeReferences(
  folder: string,
  references: AsyncIterable<Piece>,
  options: WriteReferencesOptions,
  counters: DataCounters,
): Promise<ReferenceManifest> {
  const writer = await ArrowFileWriter.create(join(folder, FILE), rowSchema(options.vocabSize));
  const total = { references: 0, tokens: 0 };
  let rows: Piece[] = [];
  let rowTokens = 0;
  const flush = async () => {
    if (rows.length > 0) await writer.append(toColumns(rows, options.vocabSize), rows.length, rowTokens);
    rows = [];
    rowTokens = 0;
  };
  try {
    for await (const reference of references) {
      rows.push(reference);
      rowTokens += reference.tokens.length;
      total.references += 1;
      total.tokens += reference.tokens.length;
      if (rowTokens >= BATCH_TOKENS) await flush();
    }
    await flush();
    await writeManifest(folder, VERSION, { ...options, ...total, file: await writer.close(), counters });
  } catch (error) {
    await writer.abort();
    throw error;
  }
  return await readManifest(folder, VERSION, manifestSchema);
}

function toColumns(rows: Piece[], vocabSize: number): Data[] {
  const ends = [0];
  for (const { tokens } of rows) ends.push((ends.at(-1) ?? 0) + tokens.length);
  const tokens = new Int32Array(ends.at(-1) ?? 0);
  rows.forEach((row, i) => {
    tokens.set(row.tokens, ends[i]);
  });
  return [
    textColumn(rows.map(({ id }) => id)),
    textColumn(rows.map(({ document }) => document)),
    textColumn(rows.map(({ title }) => title)),
    textColumn(rows.map(({ url }) => url)),
    textColumn(rows.map(({ source }) => source.path)),
    int64Column(rows.map(({ source }) => source.offset)),
    int32Column(rows.map(({ piece }) => piece)),
    int32Column(rows.map(({ pieces }) => pieces)),
    int32Column(rows.map(({ span }) => span[0])),
    int32Column(rows.map(({ span }) => span[1])),
    textColumn(rows.map(({ text }) => text)),
    tokensColumn(vocabSize, ends, tokens),
  ];
}

export interface OpenReferencesOptions extends OpenOptions {
  /** Bytes of record batches kept in memory. */
  cacheBytes?: number;
}

/** Reads stored references by number or in order. */
export class ReferenceDataset {
  readonly manifest: ReferenceManifest;
  /** Number of references. */
  readonly size: number;
  readonly contentHash: string;
  readonly #folder: string;
  /** Number of the first reference of each record batch. */
  readonly #starts: number[] = [];
  readonly #cache: BatchCache<RecordBatch>;

  private constructor(folder: string, manifest: ReferenceManifest, cacheBytes: number) {
    this.#folder = folder;
    this.manifest = manifest;
    this.size = manifest.references;
    this.contentHash = manifest.contentHash;
    this.#cache = new BatchCache(cacheBytes);
    let start = 0;
    for (const { rows } of manifest.file.batches) {
      this.#starts.push(start);
      start += rows;
    }
  }

  /**
   * Opens stored references; checks the manifest and the size of the file.
   * @throws UserError artefact_missing, version_unsupported, file_corrupt, file_truncated, artefact_mismatch
   */
  static async open(folder: string, options: OpenReferencesOptions = {}): Promise<ReferenceDataset> {
    const manifest = await readManifest(folder, VERSION, manifestSchema);
    requireTokenizer(folder, manifest.tokenizerHash, options.tokenizerHash);
    await checkSize(folder, manifest.file);
    return new ReferenceDataset(folder, manifest, options.cacheBytes ?? 32 * 2 ** 20);
  }

  /**
   * Reference number `i`.
   * @throws RangeError outside [0, size); UserError when the file is damaged
   */
  async get(i: number): Promise<Piece> {
    if (!Number.isInteger(i) || i < 0 || i >= this.size)
      throw new RangeError(`reference ${i} is outside [0, ${this.size})`);
    const number = this.#starts.findLastIndex((start) => start <= i);
    return referenceAt(await this.#read(number), i - this.#starts[number]!);
  }

  /** Reference number `i` with at most `count` tokens of context. @throws as `get` */
  async getInContext(i: number, count: number): Promise<ReferenceInContext> {
    const reference = await this.get(i);
    const before: Piece[] = [];
    let tokens = 0;
    for (let back = 1; back <= reference.piece && tokens < count; back++) {
      const earlier = await this.get(i - back);
      before.unshift(earlier);
      tokens += earlier.tokens.length;
    }
    return { ...reference, context: lastTokens(before, count) };
  }

  /** All references of the document that reference `i` was cut from, in order. @throws as `get` */
  async document(i: number): Promise<Piece[]> {
    const { piece, pieces } = await this.get(i);
    return await Promise.all(Array.from({ length: pieces }, (_, k) => this.get(i - piece + k)));
  }

  /**
   * The references of `numbers` in their order, each with at most `count` tokens of context. So many are read together
   * that an order in which neighbours lie far apart still reads a record batch once for many of its references.
   * @throws as `get`
   */
  async *inOrder(numbers: Iterable<number>, count: number): AsyncGenerator<ReferenceInContext> {
    for (const group of groupsOf(numbers, READ_TOGETHER)) {
      const read = new Map<number, ReferenceInContext>();
      for (const number of Int32Array.from(group).sort()) read.set(number, await this.getInContext(number, count));
      for (const number of group) yield read.get(number)!;
    }
  }

  /** Address of the document of the reference with this id, empty when it has none; reads the file up to there. @throws as `get` */
  async addressOf(id: string): Promise<string | undefined> {
    for (const number of this.#starts.keys()) {
      const batch = await this.#read(number);
      for (let row = 0; row < batch.numRows; row++) {
        if (textAt(batch, COLUMN.id, row) === id) return textAt(batch, COLUMN.url, row);
      }
    }
    return undefined;
  }

  /** All references in order, `count` at a time (the last group may be smaller). */
  async *batches(count: number): AsyncGenerator<Piece[]> {
    let group: Piece[] = [];
    for (const number of this.#starts.keys()) {
      const batch = await this.#read(number);
      for (let row = 0; row < batch.numRows; row++) {
        group.push(referenceAt(batch, row));
        if (group.length < count) continue;
        yield group;
        group = [];
      }
    }
    if (group.length > 0) yield group;
  }

  /**
   * Compares the whole file with its checksum.
   * @throws UserError file_truncated, file_corrupt or artefact_missing
   */
  async verify(): Promise<void> {
    await verifyFile(this.#folder, this.manifest.file);
  }

  async #read(number: number): Promise<RecordBatch> {
    const entry = this.manifest.file.batches[number]!;
    const path = join(this.#folder, this.manifest.file.file);
    const schema = rowSchema(this.manifest.vocabSize);
    return await this.#cache.get(number, entry.bytes, async () => (await readBatch(path, schema, entry)).batch);
  }
}

function* groupsOf<T>(values: Iterable<T>, size: number): Generator<T[]> {
  let group: T[] = [];
  for (const value of values) {
    group.push(value);
    if (group.length < size) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

function referenceAt(batch: RecordBatch, row: number): Piece {
  return {
    id: textAt(batch, COLUMN.id, row),
    document: textAt(batch, COLUMN.document, row),
    title: textAt(batch, COLUMN.title, row),
    url: textAt(batch, COLUMN.url, row),
    source: { path: textAt(batch, COLUMN.source, row), offset: int64At(batch, COLUMN.offset, row) },
    piece: int32At(batch, COLUMN.piece, row),
    pieces: int32At(batch, COLUMN.pieces, row),
    span: [int32At(batch, COLUMN.start, row), int32At(batch, COLUMN.end, row)],
    text: textAt(batch, COLUMN.text, row),
    tokens: tokensAt(batch, COLUMN.tokens, row),
  };
}
