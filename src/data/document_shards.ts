/**
 * Cleaned documents on their way to tokens: Arrow shards of about `data.shardBytes` of text, each with a JSON file beside
 * it that says how far the build was. They live in the folder of a build under way and go away with it.
 */

import { join } from 'node:path';
import { Field, Int64, type RecordBatch, Schema, Utf8 } from 'apache-arrow';
import { z } from 'zod';
import { ignoreUserError } from '../errors.ts';
import { readJson, writeFileAtomic, writeJsonAtomic } from '../io/files.ts';
import {
  type ArrowFileEntry,
  ArrowFileWriter,
  arrowFileSchema,
  checkSize,
  int64At,
  int64Column,
  readBatch,
  textAt,
  textColumn,
} from './arrow_file.ts';
import type { Document } from './documents.ts';
import { REBUILD } from './manifest.ts';

/** Text of a record batch: what a worker holds of a shard at once. */
const BATCH_BYTES = 2 ** 20;

const COLUMN = { id: 0, title: 1, url: 2, path: 3, offset: 4, text: 5 } as const;
const SCHEMA = new Schema([
  new Field('id', new Utf8(), false),
  new Field('title', new Utf8(), false),
  new Field('url', new Utf8(), false),
  new Field('source', new Utf8(), false),
  new Field('offset', new Int64(), false),
  new Field('text', new Utf8(), false),
]);

/** Writes one shard of documents. */
export class DocumentShardWriter {
  readonly #file: ArrowFileWriter;
  #documents: Document[] = [];
  #batchBytes = 0;
  /** UTF-8 bytes of the texts appended. */
  bytes = 0;

  private constructor(file: ArrowFileWriter) {
    this.#file = file;
  }

  static async create(path: string): Promise<DocumentShardWriter> {
    return new DocumentShardWriter(await ArrowFileWriter.create(path, SCHEMA));
  }

  async append(document: Document, bytes: number): Promise<void> {
    this.#documents.push(document);
    this.#batchBytes += bytes;
    this.bytes += bytes;
    if (this.#batchBytes >= BATCH_BYTES) await this.#flush();
  }

  async #flush(): Promise<void> {
    const documents = this.#documents;
    if (documents.length === 0) return;
    const columns = [
      textColumn(documents.map(({ id }) => id)),
      textColumn(documents.map(({ title }) => title ?? '')),
      textColumn(documents.map(({ url }) => url ?? '')),
      textColumn(documents.map(({ source }) => source.path)),
      int64Column(documents.map(({ source }) => source.offset)),
      textColumn(documents.map(({ text }) => text)),
    ];
    await this.#file.append(columns, documents.length, 0);
    this.#documents = [];
    this.#batchBytes = 0;
  }

  async close(): Promise<ArrowFileEntry> {
    await this.#flush();
    return await this.#file.close();
  }

  async abort(): Promise<void> {
    await this.#file.abort();
  }
}

/** The documents of a shard, one record batch in memory at a time. @throws UserError when the file is damaged */
export async function* readDocumentShard(folder: string, file: ArrowFileEntry): AsyncGenerator<Document> {
  for (const entry of file.batches) {
    const { batch } = await readBatch(join(folder, file.file), SCHEMA, entry);
    for (let row = 0; row < batch.numRows; row++) yield documentAt(batch, row);
  }
}

function documentAt(batch: RecordBatch, row: number): Document {
  const title = textAt(batch, COLUMN.title, row);
  const url = textAt(batch, COLUMN.url, row);
  return {
    id: textAt(batch, COLUMN.id, row),
    ...(title === '' ? {} : { title }),
    ...(url === '' ? {} : { url }),
    text: textAt(batch, COLUMN.text, row),
    source: { path: textAt(batch, COLUMN.path, row), offset: int64At(batch, COLUMN.offset, row) },
  };
}

/** A whole shard, and what the build knew when it was closed. */
export interface DocumentShard<State> {
  file: ArrowFileEntry;
  /** UTF-8 bytes of its texts. */
  bytes: number;
  state: State;
}

/** The shards of a build under way, numbered from 0. */
export class ShardFolder<State> {
  readonly path: string;
  readonly #schema: z.ZodType<DocumentShard<State>>;

  constructor(path: string, state: z.ZodType<State>) {
    this.path = path;
    this.#schema = z.strictObject({ file: arrowFileSchema, bytes: z.int(), state }) as z.ZodType<DocumentShard<State>>;
  }

  /** Path of shard `number` without its extension. */
  shardPath(number: number, kind: 'documents' | 'entries'): string {
    return join(this.path, `${kind}-${String(number).padStart(5, '0')}.${kind === 'entries' ? 'bin' : 'arrow'}`);
  }

  /** Makes a shard whole: `entries` are what its documents are known again by. */
  async commit(number: number, shard: DocumentShard<State>, entries: Uint8Array): Promise<void> {
    await writeFileAtomic(this.shardPath(number, 'entries'), entries);
    await writeJsonAtomic(this.#statePath(number), shard);
  }

  /** The whole shards from 0 on that an earlier process left. */
  async whole(): Promise<DocumentShard<State>[]> {
    const shards: DocumentShard<State>[] = [];
    for (;;) {
      const raw = await readJson(this.#statePath(shards.length), REBUILD).catch(ignoreUserError);
      const shard = this.#schema.safeParse(raw).data;
      if (!shard) return shards;
      const there = await checkSize(this.path, shard.file).then(() => true, ignoreUserError);
      if (!there) return shards;
      shards.push(shard);
    }
  }

  #statePath(number: number): string {
    return join(this.path, `documents-${String(number).padStart(5, '0')}.json`);
  }
}
