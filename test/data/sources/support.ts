/** Small files of every format that documents are read from. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import {
  type CompressionType,
  type DataType,
  Dictionary,
  Int32,
  LargeUtf8,
  RecordBatchFileWriter,
  RecordBatchStreamWriter,
  Table,
  Utf8,
  Utf8View,
  vectorFromArray,
} from 'apache-arrow';
import { parquetWriteBuffer } from 'hyparquet-writer';
import type { SourceConfig } from '../../../src/config/schema.ts';
import {
  type DataCounters,
  type Document,
  newCounters,
  type ReadOptions,
  readDocuments,
} from '../../../src/data/documents.ts';
import { source } from '../support.ts';

export interface Row {
  id: number;
  text: string;
  title: string;
  url: string;
}

export function rowsOf(texts: readonly string[]): Row[] {
  return texts.map((text, i) => ({ id: i, text, title: `Title ${i}`, url: `https://example.org/${i}` }));
}

export const toJsonl = (rows: readonly object[]) => Buffer.from(rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

/** A Zstandard frame of blocks that are stored, or of one repeated byte (RFC 8878); `windowLog` as its header says. */
export function toZstd(blocks: readonly (Uint8Array | { byte: number; count: number })[], windowLog = 20): Buffer {
  const pieces: Uint8Array[] = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, (windowLog - 10) << 3])];
  for (const [i, block] of blocks.entries()) {
    const [type, size, content]: [number, number, Uint8Array] =
      block instanceof Uint8Array ? [0, block.length, block] : [1, block.count, Buffer.from([block.byte])];
    const header = Buffer.alloc(3);
    header.writeUIntLE((i === blocks.length - 1 ? 1 : 0) | (type << 1) | (size << 3), 0, 3);
    pieces.push(header, content);
  }
  return Buffer.concat(pieces);
}

/** Stored in blocks of `size` bytes, which is at most 128 KiB. */
export function storedZstd(bytes: Uint8Array, size = 2 ** 17): Buffer {
  const blocks: Buffer[] = [];
  for (let at = 0; at < bytes.length || at === 0; at += size) blocks.push(Buffer.from(bytes.subarray(at, at + size)));
  return toZstd(blocks);
}

type ParquetOptions = Omit<Parameters<typeof parquetWriteBuffer>[0], 'columnData'>;

export function toParquet(rows: readonly Partial<Row>[], options: ParquetOptions = {}): Buffer {
  const column = <K extends keyof Row>(name: K, type: 'STRING' | 'INT64') => ({
    name,
    type,
    data: rows.map((row) => (name === 'id' ? BigInt(row.id ?? -1) : row[name])),
  });
  const columnData = [
    column('id', 'INT64'),
    column('text', 'STRING'),
    column('title', 'STRING'),
    column('url', 'STRING'),
  ];
  const compressors = { GZIP: (b: Uint8Array) => gzipSync(b), ZSTD: (b: Uint8Array) => storedZstd(b) };
  return Buffer.from(parquetWriteBuffer({ columnData, compressors, ...options }));
}

export const TEXT_TYPES: Record<string, () => DataType> = {
  Utf8: () => new Utf8(),
  LargeUtf8: () => new LargeUtf8(),
  Utf8View: () => new Utf8View(),
  dictionary: () => new Dictionary(new Utf8(), new Int32()),
};

/** One record batch for every `batchRows` rows. */
export function toArrow(
  rows: readonly Row[],
  {
    kind = 'stream',
    type = new Utf8(),
    batchRows = 100,
    compressionType = null,
  }: {
    kind?: 'stream' | 'file';
    type?: DataType;
    batchRows?: number;
    compressionType?: CompressionType | null;
  } = {},
): Buffer {
  const writer = new (kind === 'stream' ? RecordBatchStreamWriter : RecordBatchFileWriter)({ compressionType });
  for (let at = 0; at < rows.length; at += batchRows) {
    const some = rows.slice(at, at + batchRows);
    const table = new Table({
      id: vectorFromArray(
        some.map(({ id }) => id),
        new Int32(),
      ),
      text: vectorFromArray(
        some.map(({ text }) => text),
        type,
      ),
      title: vectorFromArray(
        some.map(({ title }) => title),
        new Utf8(),
      ),
      url: vectorFromArray(
        some.map(({ url }) => url),
        new Utf8(),
      ),
    });
    for (const batch of table.batches) writer.write(batch);
  }
  writer.finish();
  return Buffer.from(writer.toUint8Array(true));
}

/** A file of a folder, written. */
export function file(folder: string, name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** All documents of paths, with what was counted. */
export async function read(
  paths: string | readonly string[],
  fields: Partial<SourceConfig> = {},
  options: ReadOptions = {},
): Promise<{ documents: Document[]; counters: DataCounters }> {
  const counters = newCounters();
  const documents: Document[] = [];
  const sources = [paths].flat().map((path) => source(path, fields));
  for await (const document of readDocuments(sources, counters, options)) documents.push(document);
  return { documents, counters };
}

export const textsOf = (documents: readonly Document[]) => documents.map(({ text }) => text);
