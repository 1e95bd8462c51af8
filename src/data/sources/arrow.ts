/**
 * Arrow IPC, streams and files, one record batch at a time. A file is a stream between a magic word and a directory of its
 * batches, which is not needed here: both are read in order, so that a file cut off gives the batches before the cut.
 */

import { type FileHandle, open } from 'node:fs/promises';
import {
  CompressionType,
  compressionRegistry,
  type Data,
  DataType,
  Message,
  MessageHeader,
  type RecordBatch,
  RecordBatchReader,
  type Schema,
} from 'apache-arrow';
import { decompress as decompressZstd } from 'fzstd';
import { checkMessage, schemaOfDirectory } from './arrow_message.ts';
import { type OnBytes, readRange } from './bytes.ts';
import type { SourceFile } from './files.ts';
import { decompressLz4Frame } from './lz4.ts';
import { BrokenFile, type Report } from './problem.ts';
import { type Document, noText, rowDocument } from './reader.ts';

/** A batch, compressed and not, is held whole. */
const MAX_BATCH_BYTES = 2 ** 29;
const MAX_METADATA_BYTES = 2 ** 26;
/** The 32 bits in front of the length of a message. */
const CONTINUATION = 0xffff_ffff;

compressionRegistry.set(CompressionType.ZSTD, { decode: (bytes) => decompressZstd(bytes) });
compressionRegistry.set(CompressionType.LZ4_FRAME, { decode: decompressLz4Frame });

/** @throws BrokenFile, also for a stream without its end mark, which may lack batches */
export async function* readArrow(file: SourceFile, report: Report, onBytes?: OnBytes): AsyncGenerator<Document> {
  const handle = await open(file.path);
  try {
    const { size } = await handle.stat();
    let row = 0;
    const batches = new BatchDecoder();
    for await (const message of messagesOf(handle, size, () => row, onBytes)) {
      if (message.type === MessageHeader.Schema) checkTextColumn(message.header as Schema, file);
      const batch = batches.take(message, row);
      if (!batch) continue;
      for (const document of documentsOf(batch, row, file, report)) yield document;
      row += batch.numRows;
    }
  } finally {
    await handle.close();
  }
}

/** A message of the stream: all of its bytes, and its header. */
interface StreamMessage {
  type: MessageHeader;
  header: ReturnType<Message['header']>;
  bytes: Uint8Array;
}

/** The messages up to the end mark. @throws BrokenFile at the row that reading has come to */
async function* messagesOf(
  handle: FileHandle,
  size: number,
  row: () => number,
  onBytes?: OnBytes,
): AsyncGenerator<StreamMessage> {
  const early = () => new BrokenFile('ends too early', row(), 'the file ends before its end mark');
  const isFile = await startsAsFile(handle, size);
  for (let at = isFile ? 8 : 0; ; ) {
    if (at >= size) throw early();
    const prefix = await readRange(handle, at, Math.min(at + 8, size));
    const { skip, length } = prefixOf(prefix, early);
    if (length === 0) break;
    if (length > MAX_METADATA_BYTES) throw new BrokenFile('damaged', row(), `a message header of ${length} bytes`);
    const bodyStart = at + skip + length;
    if (bodyStart > size) throw early();
    const message = decodeMessage(await readRange(handle, at + skip, bodyStart), row());
    const end = bodyStart + message.bodyLength;
    if (!(end >= bodyStart && end - bodyStart <= MAX_BATCH_BYTES)) {
      const what = `a batch of ${message.bodyLength} bytes; at most ${MAX_BATCH_BYTES} are held`;
      throw new BrokenFile('not supported', row(), what);
    }
    if (end > size) throw early();
    if (isFile && at === 8 && !message.isSchema()) yield await schemaOfFile(handle, size, early);
    yield { type: message.headerType, header: message.header(), bytes: await readRange(handle, at, end) };
    at = end;
    onBytes?.(at);
  }
  if (isFile && !(await endsAsFile(handle, size))) throw early();
  onBytes?.(size);
}

async function startsAsFile(handle: FileHandle, size: number): Promise<boolean> {
  if (size === 0) throw new BrokenFile('empty file', 0);
  const start = Buffer.from(await readRange(handle, 0, Math.min(8, size))).toString('latin1');
  if (start.startsWith('FEA1')) throw new BrokenFile('not supported', 0, 'Feather version 1; write it as version 2');
  if (start.startsWith('ARROW1')) return true;
  if ('ARROW1\0\0'.startsWith(start)) throw new BrokenFile('ends too early', 0);
  return false;
}

/** The schema of the directory, as a message: some writers of files (the one in JavaScript) leave it out in front. */
async function schemaOfFile(handle: FileHandle, size: number, early: () => BrokenFile): Promise<StreamMessage> {
  if (!(await endsAsFile(handle, size))) throw early();
  const end = size - 10;
  const [length = 0] = new Uint32Array((await readRange(handle, end, end + 4)).buffer);
  if (length === 0 || length > Math.min(MAX_METADATA_BYTES, end)) {
    throw new BrokenFile('damaged', 0, `a directory of ${length} bytes`);
  }
  const directory = await readRange(handle, end - length, end);
  const description = decoding(0, () => schemaOfDirectory(directory));
  const bytes = new Uint8Array(8 + description.length);
  new Uint32Array(bytes.buffer, 0, 2).set([CONTINUATION, description.length]);
  bytes.set(description, 8);
  return { type: MessageHeader.Schema, header: decodeMessage(description, 0).header(), bytes };
}

async function endsAsFile(handle: FileHandle, size: number): Promise<boolean> {
  return Buffer.from(await readRange(handle, Math.max(0, size - 6), size)).toString('latin1') === 'ARROW1';
}

/** Bytes before the message, and its length; streams of before 2019 have no continuation mark. */
function prefixOf(prefix: Uint8Array<ArrayBuffer>, early: () => BrokenFile): { skip: number; length: number } {
  const view = new DataView(prefix.buffer);
  if (view.byteLength < 4) throw early();
  if (view.getUint32(0, true) !== CONTINUATION) return { skip: 4, length: view.getUint32(0, true) };
  if (view.byteLength < 8) throw early();
  return { skip: 8, length: view.getUint32(4, true) };
}

function decodeMessage(bytes: Uint8Array, row: number): Message {
  return decoding(row, () => {
    checkMessage(bytes);
    const message = Message.decode(bytes);
    message.header();
    return message;
  });
}

/** Runs the decoder, which throws errors of all kinds at bytes that are not what they should be. */
function decoding<T>(row: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof BrokenFile) throw error;
    throw new BrokenFile('damaged', row, `no Arrow stream: ${error instanceof Error ? error.message : error}`);
  }
}

/** Decodes each batch by itself: a reader of the library over the schema, the dictionaries so far and the batch. */
class BatchDecoder {
  #schema: Uint8Array | undefined;
  #dictionaries: { id: number; bytes: Uint8Array }[] = [];

  /** The batch that the message is, if it is one. @throws BrokenFile */
  take({ type, header, bytes }: StreamMessage, row: number): RecordBatch | undefined {
    if (type === MessageHeader.Schema) {
      this.#schema = bytes;
    } else if (type === MessageHeader.DictionaryBatch) {
      const { id, isDelta, data } = header as { id: number; isDelta: boolean; data: BatchHeader };
      checkSize(data, bytes, row);
      if (!isDelta) this.#dictionaries = this.#dictionaries.filter((dictionary) => dictionary.id !== id);
      this.#dictionaries.push({ id, bytes });
      const held = this.#dictionaries.reduce((sum, dictionary) => sum + dictionary.bytes.length, 0);
      if (held > MAX_BATCH_BYTES) throw new BrokenFile('not supported', row, `dictionaries of ${held} bytes`);
    } else if (type === MessageHeader.RecordBatch) {
      checkSize(header as BatchHeader, bytes, row);
      return this.#decode(bytes, row);
    }
    return undefined;
  }

  #decode(bytes: Uint8Array, row: number): RecordBatch {
    if (!this.#schema) throw new BrokenFile('damaged', row, 'a batch before the schema');
    const pieces = [this.#schema, ...this.#dictionaries.map((dictionary) => dictionary.bytes), bytes];
    return decoding(row, () => {
      const { value } = RecordBatchReader.from(pieces).next() as IteratorResult<RecordBatch>;
      if (!value) throw new BrokenFile('damaged', row, 'a batch that cannot be decoded');
      return value;
    });
  }
}

type BatchHeader = {
  length: number;
  compression: { type: CompressionType } | null;
  buffers: { offset: number; length: number }[];
};

/** Of a compressed batch each buffer says first how long it will be. `bytes` end with the body. @throws BrokenFile */
function checkSize({ compression, buffers }: BatchHeader, bytes: Uint8Array, row: number): void {
  if (!compression) return;
  const last = buffers.reduce((end, { offset, length }) => Math.max(end, offset + length), 0);
  const body = bytes.length - Math.ceil(last / 8) * 8;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let size = 0;
  for (const { offset, length } of buffers) {
    if (length < 8 || body < 0) continue;
    size += Math.max(Number(view.getBigInt64(body + offset, true)), 0);
  }
  if (size > MAX_BATCH_BYTES) {
    throw new BrokenFile('not supported', row, `a batch of ${size} bytes; at most ${MAX_BATCH_BYTES} are held`);
  }
}

function checkTextColumn(schema: Schema, { source }: SourceFile): void {
  const field = schema.fields.find(({ name }) => name === source.textField);
  if (!field) {
    const names = schema.fields.map(({ name }) => name);
    throw new BrokenFile('no text field', 0, noText(source, names));
  }
  const type: DataType = DataType.isDictionary(field.type) ? field.type.dictionary : field.type;
  if (!isTextType(type)) {
    throw new BrokenFile('no text field', 0, `column "${source.textField}" is ${field.type}, not text`);
  }
}

function* documentsOf(
  batch: RecordBatch,
  first: number,
  { path, source }: SourceFile,
  report: Report,
): Generator<Document> {
  const column = (name: string) => decoding(first, () => batch.getChild(name)?.data[0]);
  const texts = column(source.textField);
  if (!texts || roomOf(texts) < batch.numRows)
    throw new BrokenFile('damaged', first, 'a batch of more rows than texts');
  const [ids, titles, urls] = [column(source.idField), column(source.titleField), column(source.urlField)];
  for (let i = 0; i < batch.numRows; i += 1) {
    const at = { path, offset: first + i };
    const value = (data: Data | undefined) => decoding(at.offset, () => valueAt(data, i));
    const values = { text: value(texts), id: value(ids), title: value(titles), url: value(urls) };
    const document = rowDocument(values, at, source, report);
    if (document) yield document;
  }
}

const isTextType = (type: DataType) => DataType.isUtf8(type) || DataType.isLargeUtf8(type) || DataType.isUtf8View(type);

/** Bytes of a text, a number, or undefined for a null or a value of another type. `Vector.get` would take 30 µs. */
function valueAt(data: Data | undefined, index: number): Uint8Array | number | bigint | undefined {
  if (!data || isNull(data, index)) return undefined;
  const { type } = data;
  if (DataType.isDictionary(type)) return dictionaryValue(data, Number(data.values[index]));
  if (DataType.isInt(type)) return data.values[index];
  if (DataType.isUtf8(type) || DataType.isLargeUtf8(type)) return bytesBetween(data, index);
  if (DataType.isUtf8View(type)) return viewBytes(data, index);
  return undefined;
}

function isNull({ nullBitmap, offset }: Data, index: number): boolean {
  const bit = offset + index;
  return nullBitmap?.length > 0 && (nullBitmap[bit >> 3]! & (1 << (bit & 7))) === 0;
}

/** How many values there are, whatever its header says. */
function roomOf({ type, values, valueOffsets }: Data): number {
  if (DataType.isDictionary(type)) return values.length;
  return DataType.isUtf8View(type) ? values.length / 16 : valueOffsets.length - 1;
}

/** A dictionary is in pieces where it was added to. */
function dictionaryValue(data: Data, key: number): Uint8Array | number | bigint | undefined {
  let before = 0;
  for (const piece of (data.dictionary?.data ?? []) as readonly Data[]) {
    if (key < before + piece.length) return valueAt(piece, key - before);
    before += piece.length;
  }
  throw new RangeError(`entry ${key} of a dictionary of ${before}`);
}

function bytesBetween({ valueOffsets, values }: Data, index: number): Uint8Array {
  const start = Number(valueOffsets[index]);
  const end = Number(valueOffsets[index + 1]);
  if (!(start >= 0 && start <= end && end <= values.length)) throw new RangeError(`a text at ${start} to ${end}`);
  return values.subarray(start, end);
}

/** Sixteen bytes: the length, then the text if it fits, else its first four bytes, the buffer and the place in it. */
function viewBytes({ values, variadicBuffers }: Data, index: number): Uint8Array {
  const view = new DataView(values.buffer, values.byteOffset + 16 * index, 16);
  const length = view.getInt32(0, true);
  if (length >= 0 && length <= 12) return new Uint8Array(view.buffer, view.byteOffset + 4, length);
  const buffer = variadicBuffers[view.getInt32(8, true)];
  const start = view.getInt32(12, true);
  if (!buffer || length < 0 || start < 0 || start + length > buffer.length) throw new RangeError(`a text at ${start}`);
  return buffer.subarray(start, start + length);
}
