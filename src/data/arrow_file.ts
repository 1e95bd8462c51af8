/**
 * Arrow IPC files (uncompressed, readable with any Arrow implementation) written one record batch at a time with
 * back-pressure, and read one batch at a time: one read of exactly its bytes, checked against its crc32 first.
 */

import { createHash, type Hash } from 'node:crypto';
import { read } from 'node:fs';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import {
  type Data,
  type DataType,
  Field,
  Int32,
  Int64,
  List,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  RecordBatchReader,
  RecordBatchStreamWriter,
  type Schema,
  Struct,
  Uint16,
  Uint32,
  Utf8,
} from 'apache-arrow';
import { z } from 'zod';
import { isSystemError, UserError } from '../errors.ts';
import { diskError, makeFolder, sha256File, syncFolder, temporaryName, writeAll } from '../io/files.ts';
import { REBUILD } from './manifest.ts';

const readFd = promisify(read);

/** Where a record batch lies in its file (bytes), what it holds, and the crc32 of its bytes. */
export const batchEntrySchema = z.strictObject({
  offset: z.int().min(0),
  bytes: z.int().min(1),
  rows: z.int().min(0),
  tokens: z.int().min(0),
  crc32: z.int().min(0),
});
export type BatchEntry = z.infer<typeof batchEntrySchema>;

/** An Arrow file as its manifest describes it. */
export const arrowFileSchema = z.strictObject({
  file: z.string(),
  bytes: z.int().min(1),
  sha256: z.string(),
  batches: z.array(batchEntrySchema),
});
export type ArrowFileEntry = z.infer<typeof arrowFileSchema>;

/** The stock writer queues without limit; knowing its position, we take out everything it has produced so far. */
class CountingWriter extends RecordBatchFileWriter {
  get position(): number {
    return this._position;
  }
}

/** Writes an Arrow IPC file under a temporary name; `close` puts it in place, `abort` removes it. */
export class ArrowFileWriter {
  readonly #writer = new CountingWriter();
  readonly #output = this.#writer[Symbol.asyncIterator]();
  readonly #hash: Hash = createHash('sha256');
  readonly #batches: BatchEntry[] = [];
  readonly #schema: Schema;
  readonly #path: string;
  readonly #handle: FileHandle;
  #written = 0;

  private constructor(path: string, schema: Schema, handle: FileHandle) {
    this.#path = path;
    this.#schema = schema;
    this.#handle = handle;
    this.#writer.reset(undefined, schema);
  }

  static async create(path: string, schema: Schema): Promise<ArrowFileWriter> {
    await makeFolder(dirname(path));
    const handle = await open(temporaryName(path), 'w').catch((error: unknown) => {
      throw diskError(error, path);
    });
    return new ArrowFileWriter(path, schema, handle);
  }

  /**
   * Appends a record batch and returns when its bytes are handed to the operating system.
   * @param columns one for each field of the schema, in order
   * @throws UserError disk_full
   */
  async append(columns: Data[], rows: number, tokens: number): Promise<void> {
    await this.#drain();
    const offset = this.#written;
    const struct = makeData({ type: new Struct(this.#schema.fields), length: rows, nullCount: 0, children: columns });
    this.#writer.write(new RecordBatch(this.#schema, struct));
    const checksum = await this.#drain();
    this.#batches.push({ offset, bytes: this.#written - offset, rows, tokens, crc32: checksum });
  }

  /** Writes the footer and puts the file in place. @throws UserError disk_full */
  async close(): Promise<ArrowFileEntry> {
    this.#writer.close();
    for (let next = await this.#output.next(); !next.done; next = await this.#output.next()) {
      await this.#write(next.value);
    }
    try {
      await this.#handle.sync();
      await this.#handle.close();
      await rename(temporaryName(this.#path), this.#path);
      await syncFolder(dirname(this.#path));
    } catch (error) {
      throw diskError(error, this.#path);
    }
    const file = basename(this.#path);
    return { file, bytes: this.#written, sha256: this.#hash.digest('hex'), batches: this.#batches };
  }

  /** Gives the file up. Harmless after `close`. */
  async abort(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
    await rm(temporaryName(this.#path), { force: true });
  }

  /** Writes out what the Arrow writer holds; returns the crc32 of those bytes. */
  async #drain(): Promise<number> {
    let checksum = 0;
    while (this.#written < this.#writer.position) {
      const { value } = await this.#output.next();
      checksum = crc32(value, checksum);
      await this.#write(value);
    }
    return checksum;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#handle, bytes);
    } catch (error) {
      throw diskError(error, this.#path);
    }
    this.#hash.update(bytes);
    this.#written += bytes.byteLength;
  }
}

/**
 * Checks that the file is there with its size, which finds truncation without reading it.
 * @throws UserError artefact_missing, file_truncated, file_corrupt
 */
export async function checkSize(folder: string, entry: ArrowFileEntry): Promise<void> {
  const where = join(folder, entry.file);
  let size: number;
  try {
    ({ size } = await stat(where));
  } catch (error) {
    throw missingFile(error, where);
  }
  if (size === entry.bytes) return;
  const what = `${size} bytes long, the manifest says ${entry.bytes}`;
  throw new UserError(size < entry.bytes ? 'file_truncated' : 'file_corrupt', { where, what, action: REBUILD });
}

/**
 * Checks size and sha256 of the whole file.
 * @throws UserError as {@link checkSize}, file_corrupt
 */
export async function verifyFile(folder: string, entry: ArrowFileEntry): Promise<void> {
  await checkSize(folder, entry);
  const where = join(folder, entry.file);
  if ((await sha256File(where)) === entry.sha256) return;
  throw new UserError('file_corrupt', {
    where,
    what: 'the bytes do not match the sha256 of the manifest',
    action: REBUILD,
  });
}

/**
 * Reads one record batch. Its columns point into `body`, the bytes read.
 * @throws UserError artefact_missing, file_truncated, file_corrupt
 */
export async function readBatch(
  path: string,
  schema: Schema,
  entry: BatchEntry,
): Promise<{ batch: RecordBatch; body: Uint8Array }> {
  const body = await readBytes(path, entry.offset, entry.bytes);
  const corrupt = (what: string, cause?: unknown) =>
    new UserError('file_corrupt', {
      where: path,
      what: `record batch at byte ${entry.offset} ${what}`,
      action: REBUILD,
      cause,
    });
  if (crc32(body) !== entry.crc32) throw corrupt('does not match its checksum');
  const header = new RecordBatchStreamWriter().reset(undefined, schema).toUint8Array(true);
  try {
    const { value: batch } = RecordBatchReader.from([header, body]).next();
    if (batch.numRows === entry.rows && batch.numCols === schema.fields.length) return { batch, body };
  } catch (error) {
    throw corrupt('cannot be decoded', error);
  }
  throw corrupt('holds other rows than the manifest says');
}

async function readBytes(path: string, offset: number, length: number): Promise<Uint8Array> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw missingFile(error, path);
  });
  try {
    const bytes = new Uint8Array(length);
    await readInto(handle.fd, bytes, offset, path);
    return bytes;
  } finally {
    await handle.close();
  }
}

/**
 * Fills `bytes` from byte `offset` of the open file (its descriptor) on.
 * @throws UserError file_truncated
 */
export async function readInto(file: number, bytes: Uint8Array, offset: number, path: string): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await readFd(file, bytes, done, bytes.length - done, offset + done);
    if (bytesRead === 0) {
      const what = `ends at byte ${offset + done}, inside a record batch`;
      throw new UserError('file_truncated', { where: path, what, action: REBUILD });
    }
    done += bytesRead;
  }
}

/** A file that does not exist as a UserError; every other error passes unchanged. */
export function missingFile(error: unknown, where: string): unknown {
  if (!isSystemError(error) || error.code !== 'ENOENT') return error;
  return new UserError('artefact_missing', { where, what: 'the file does not exist', action: REBUILD, cause: error });
}

/** Smallest unsigned integer type that holds every id of the vocabulary. */
export function tokenType(vocabSize: number): Uint16 | Uint32 {
  return vocabSize <= 2 ** 16 ? new Uint16() : new Uint32();
}

export function tokenListType(vocabSize: number): List {
  return new List(new Field<DataType>('item', tokenType(vocabSize), false));
}

/** A list column: row i holds `tokens[offsets[i] .. offsets[i + 1])`. */
export function tokensColumn(vocabSize: number, offsets: readonly number[], tokens: ArrayLike<number>): Data {
  const type = tokenType(vocabSize);
  const values = type instanceof Uint16 ? Uint16Array.from(tokens) : Uint32Array.from(tokens);
  const child = makeData({ type, length: values.length, nullCount: 0, data: values }) as Data;
  const valueOffsets = Int32Array.from(offsets);
  return makeData({ type: tokenListType(vocabSize), length: offsets.length - 1, nullCount: 0, valueOffsets, child });
}

export function textColumn(texts: readonly string[]): Data {
  const parts = texts.map((text) => Buffer.from(text));
  const valueOffsets = new Int32Array(texts.length + 1);
  parts.forEach((part, i) => {
    valueOffsets[i + 1] = valueOffsets[i]! + part.length;
  });
  const data = new Uint8Array(Buffer.concat(parts));
  return makeData({ type: new Utf8(), length: texts.length, nullCount: 0, valueOffsets, data });
}

export function int32Column(values: readonly number[]): Data {
  return makeData({ type: new Int32(), length: values.length, nullCount: 0, data: Int32Array.from(values) });
}

export function int64Column(values: readonly number[]): Data {
  const data = BigInt64Array.from(values, BigInt);
  return makeData({ type: new Int64(), length: values.length, nullCount: 0, data });
}

/** All tokens of a list column, rows back to back, without the zeros that fill the buffer up to eight bytes. */
export function tokenValues(batch: RecordBatch, column: number): Uint16Array | Uint32Array {
  const child = batch.data.children[column]?.children[0];
  const values: unknown = child?.values;
  if (values instanceof Uint16Array || values instanceof Uint32Array) return values.subarray(0, child?.length);
  throw new TypeError(`column ${column} is not a list of tokens`);
}

/** Row `row` of a list column, copied. */
export function tokensAt(batch: RecordBatch, column: number, row: number): Int32Array {
  const offsets = offsetsOf(batch, column);
  return Int32Array.from(tokenValues(batch, column).subarray(offsets[row], offsets[row + 1]));
}

/** Row `row` of a text column; decoded from the bytes directly, since `Vector.get` takes 30 µs. */
export function textAt(batch: RecordBatch, column: number, row: number): string {
  const values: unknown = batch.data.children[column]?.values;
  if (!(values instanceof Uint8Array)) throw new TypeError(`column ${column} is not text`);
  const offsets = offsetsOf(batch, column);
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString(
    'utf8',
    offsets[row],
    offsets[row + 1],
  );
}

/** Row `row` of an int64 column, which must be a safe integer. */
export function int64At(batch: RecordBatch, column: number, row: number): number {
  const values: unknown = batch.data.children[column]?.values;
  if (!(values instanceof BigInt64Array)) throw new TypeError(`column ${column} is not int64`);
  return Number(values[row] ?? 0n);
}

/** Row `row` of an int32 column. */
export function int32At(batch: RecordBatch, column: number, row: number): number {
  const values: unknown = batch.data.children[column]?.values;
  if (!(values instanceof Int32Array)) throw new TypeError(`column ${column} is not int32`);
  return values[row] ?? 0;
}

function offsetsOf(batch: RecordBatch, column: number): Int32Array {
  const offsets: unknown = batch.data.children[column]?.valueOffsets;
  if (offsets instanceof Int32Array) return offsets;
  throw new TypeError(`column ${column} has no offsets`);
}
