/** Parquet files, page by page and only the columns that a document needs. */

import { type FileHandle, open } from 'node:fs/promises';
import zlib from 'node:zlib';
import { type ColumnMetaData, type FileMetaData, parquetMetadataAsync, parquetSchema, type RowGroup } from 'hyparquet';
import { parquetHeader } from 'hyparquet/src/column.js';
import { convert, DEFAULT_PARSERS } from 'hyparquet/src/convert.js';
import { getTreePath, isFlatColumn } from 'hyparquet/src/schema.js';
import type { ColumnDecoder, Compressors, DecodedArray, PageHeader } from 'hyparquet/src/types.js';
import { compressors } from 'hyparquet-compressors';
import { type OnBytes, readRange } from './bytes.ts';
import type { SourceFile } from './files.ts';
import { decodePage } from './parquet_page.ts';
import { BrokenFile, type Report } from './problem.ts';
import { type Document, noText, rowDocument } from './reader.ts';

/** A file's description of itself, and a page before and after decompression, are held whole; writers make pages of about 1 MiB. */
const MAX_METADATA_BYTES = 2 ** 28;
const MAX_PAGE_BYTES = 2 ** 28;
const MAX_PAGE_VALUES = 2 ** 24;
/** The header of a page is read with guesses of its length up to this. */
const MAX_HEADER_BYTES = 2 ** 24;

const COMPRESSORS: Compressors = {
  ...compressors,
  GZIP: (page, length) => zlib.gunzipSync(page, { maxOutputLength: length }),
  BROTLI: (page, length) => zlib.brotliDecompressSync(page, { maxOutputLength: length }),
};
/** Strings stay bytes, so that each is checked and decoded when its row is read. */
const PARSERS = { ...DEFAULT_PARSERS, stringFromBytes: asBytes, jsonFromBytes: asBytes };

function asBytes(bytes: Uint8Array): Uint8Array {
  return bytes;
}

/** An open file and what it says of itself. */
interface Table {
  handle: FileHandle;
  size: number;
  metadata: FileMetaData;
  onBytes?: OnBytes;
}

type Field = 'text' | 'id' | 'title' | 'url';

/** A damaged row group is reported, and the next one read. @throws BrokenFile */
export async function* readParquet(file: SourceFile, report: Report, onBytes?: OnBytes): AsyncGenerator<Document> {
  const handle = await open(file.path);
  try {
    const { size } = await handle.stat();
    const table: Table = { handle, size, metadata: await readMetadata(handle, size), onBytes };
    checkTextColumn(table, file);
    let row = 0;
    for (const group of table.metadata.row_groups) {
      try {
        yield* readRowGroup(table, group, row, file, report);
      } catch (error) {
        if (!(error instanceof BrokenFile)) throw error;
        report({ path: file.path, reason: error.reason, offset: error.offset, detail: error.message });
      }
      row += rowsOf(group, row);
    }
    if (row !== Number(table.metadata.num_rows)) {
      throw new BrokenFile('damaged', row, `the description says ${table.metadata.num_rows} rows`);
    }
    onBytes?.(size);
  } finally {
    await handle.close();
  }
}

async function readMetadata(handle: FileHandle, size: number): Promise<FileMetaData> {
  if (size === 0) throw new BrokenFile('empty file', 0);
  const magic = async (at: number) => Buffer.from(await readRange(handle, at, at + 4)).toString('latin1');
  const start = await magic(0);
  if (size < 4 && 'PAR1'.startsWith(start)) throw new BrokenFile('ends too early', 0);
  if (start !== 'PAR1') throw new BrokenFile('damaged', 0, 'no Parquet file: it does not begin with PAR1');
  if (size < 12 || (await magic(size - 4)) !== 'PAR1') {
    throw new BrokenFile('ends too early', 0, 'the description at the end of the file is missing');
  }
  const [length = 0] = new Uint32Array((await readRange(handle, size - 8, size - 4)).buffer);
  if (length > MAX_METADATA_BYTES) {
    throw new BrokenFile(
      'not supported',
      0,
      `a description of ${length} bytes; at most ${MAX_METADATA_BYTES} are held`,
    );
  }
  const slice = async (start: number, end = size) => (await readRange(handle, start, end)).buffer;
  return await parquetMetadataAsync({ byteLength: size, slice }, { geoparquet: false }).catch((error) => {
    throw damaged(0, error);
  });
}

/** Runs the decoder, which throws errors of all kinds at bytes that are not what they should be. */
function decoding<T>(row: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof BrokenFile ? error : damaged(row, error);
  }
}

function damaged(row: number, error: unknown): BrokenFile {
  return new BrokenFile('damaged', row, error instanceof Error ? error.message : String(error));
}

function checkTextColumn({ metadata }: Table, { source }: SourceFile): void {
  const { children } = decoding(0, () => parquetSchema(metadata));
  const column = children.find(({ element }) => element.name === source.textField);
  if (!column) {
    const names = children.map(({ element }) => element.name);
    throw new BrokenFile('no text field', 0, noText(source, names));
  }
  const { type, converted_type: kind, repetition_type: repetition } = column.element;
  const isText = type === 'BYTE_ARRAY' && (kind === undefined || kind === 'UTF8' || kind === 'JSON' || kind === 'ENUM');
  if (!isText || repetition === 'REPEATED') {
    const found = repetition === 'REPEATED' ? 'a list' : (kind ?? type ?? 'a group');
    throw new BrokenFile('no text field', 0, `column "${source.textField}" is ${found}, not text`);
  }
}

function rowsOf(group: RowGroup, row: number): number {
  const rows = Number(group.num_rows);
  if (!(Number.isSafeInteger(rows) && rows >= 0)) throw new BrokenFile('damaged', row, `a row group of ${rows} rows`);
  return rows;
}

async function* readRowGroup(
  table: Table,
  group: RowGroup,
  first: number,
  { path, source }: SourceFile,
  report: Report,
): AsyncGenerator<Document> {
  const columns: Record<Field, Column> = {
    text: new Column(table, group, source.textField, first),
    id: new Column(table, group, source.idField, first),
    title: new Column(table, group, source.titleField, first),
    url: new Column(table, group, source.urlField, first),
  };
  if (!columns.text.exists) throw new BrokenFile('damaged', first, 'a row group without the column of the text');
  const rows = rowsOf(group, first);
  for (let row = first; row < first + rows; row += 1) {
    const at = { path, offset: row };
    const values = {
      text: await columns.text.next(),
      id: await columns.id.next(),
      title: await columns.title.next(),
      url: await columns.url.next(),
    };
    const document = rowDocument(values, at, source, report);
    if (document) yield document;
  }
}

/** The values of a column of a row group, one after another; of a column that is not there, or not flat, undefined. */
class Column {
  readonly #pages: AsyncGenerator<ArrayLike<unknown>> | undefined;
  readonly #end: number;
  #values: ArrayLike<unknown> = [];
  #at = 0;
  #row: number;

  constructor(table: Table, group: RowGroup, name: string, first: number) {
    const chunk = group.columns.find(({ meta_data: meta }) => {
      return meta?.path_in_schema.length === 1 && meta.path_in_schema[0] === name;
    });
    this.#row = first;
    this.#end = first + rowsOf(group, first);
    if (chunk?.file_path) throw new BrokenFile('not supported', first, 'columns in other files');
    if (!chunk?.meta_data) return;
    const decoder = decoderOf(table, chunk.meta_data, first);
    if (!isFlatColumn(decoder.schemaPath) || decoder.type === 'BOOLEAN') return;
    this.#pages = readPages(table, chunk.meta_data, decoder, () => this.#row, this.#end - first);
  }

  get exists(): boolean {
    return this.#pages !== undefined;
  }

  /** @throws BrokenFile, also where the column has fewer values than the group has rows */
  async next(): Promise<unknown> {
    if (!this.#pages) return undefined;
    while (this.#at >= this.#values.length) {
      const { done, value } = await this.#pages.next();
      if (done) throw new BrokenFile('damaged', this.#row, `a column ends ${this.#end - this.#row} rows early`);
      this.#values = value;
      this.#at = 0;
    }
    const value = this.#values[this.#at];
    this.#at += 1;
    this.#row += 1;
    return value;
  }
}

function decoderOf({ metadata }: Table, column: ColumnMetaData, row: number): ColumnDecoder {
  const schemaPath = decoding(row, () => getTreePath(parquetSchema(metadata), column.path_in_schema));
  const { element } = schemaPath[schemaPath.length - 1]!;
  return {
    pathInSchema: column.path_in_schema,
    type: column.type,
    codec: column.codec,
    element,
    schemaPath,
    parsers: PARSERS,
    compressors: COMPRESSORS,
    utf8: false,
  };
}

/** The values of each data page of a column chunk of `rows` rows; `row` says where reading is, for errors. */
async function* readPages(
  { handle, size, onBytes }: Table,
  column: ColumnMetaData,
  decoder: ColumnDecoder,
  row: () => number,
  rows: number,
): AsyncGenerator<ArrayLike<unknown>> {
  const start = Number(column.dictionary_page_offset || column.data_page_offset);
  const end = start + Number(column.total_compressed_size);
  if (!(start >= 4 && end <= size)) throw new BrokenFile('damaged', row(), 'a column lies outside of the file');
  let dictionary: DecodedArray | undefined;
  for (let at = start; at < end; ) {
    const { header, length } = await readHeader(handle, at, end, row());
    decoding(row(), () => checkPage(header, row(), rows));
    const body = await readRange(handle, at + length, Math.min(at + length + header.compressed_page_size, end));
    at += length + header.compressed_page_size;
    if (at > end) throw new BrokenFile('damaged', row(), 'a page is longer than its column');
    onBytes?.(at);
    const values = decoding(row(), () => {
      checkSum(header, body);
      return decodePage(header, body, decoder, dictionary);
    });
    if (header.type === 'DICTIONARY_PAGE') dictionary = decoding(row(), () => convert(values, decoder));
    else yield values;
  }
}

async function readHeader(handle: FileHandle, start: number, end: number, row: number) {
  for (let guess = 4096; ; guess *= 8) {
    const bytes = await readRange(handle, start, Math.min(start + guess, end));
    const reader = { view: new DataView(bytes.buffer), offset: 0 };
    try {
      const header: PageHeader = parquetHeader(reader);
      return { header, length: reader.offset };
    } catch (error) {
      if (start + guess < end && guess < MAX_HEADER_BYTES) continue;
      throw damaged(row, error);
    }
  }
}

function checkPage(header: PageHeader, row: number, rows: number): void {
  const sizes = [header.compressed_page_size, header.uncompressed_page_size];
  const { num_values: values = 0 } =
    header.data_page_header ?? header.data_page_header_v2 ?? header.dictionary_page_header ?? {};
  if ([...sizes, values].some((count) => !(Number.isInteger(count) && count >= 0)) || values > rows) {
    throw new BrokenFile('damaged', row, `a page of ${sizes[0]} bytes and ${values} values`);
  }
  if (Math.max(...sizes) > MAX_PAGE_BYTES || values > MAX_PAGE_VALUES) {
    const what = `a page of ${Math.max(...sizes)} bytes and ${values} values`;
    throw new BrokenFile('not supported', row, `${what}; at most ${MAX_PAGE_BYTES} and ${MAX_PAGE_VALUES} are held`);
  }
}

/** @throws Error */
function checkSum({ crc }: PageHeader, body: Uint8Array): void {
  if (crc !== undefined && zlib.crc32(body) !== crc >>> 0) throw new Error('a page does not match its checksum');
}
