/**
 * The safetensors format: 8 bytes of header length (little-endian), a JSON header
 * `{name: {dtype, shape, data_offsets: [begin, end]}}`, then the tensors' bytes. Offsets count from the end of the header.
 * Files are written and read one tensor at a time; readers trust nothing that the header says.
 */

import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { z } from 'zod';
import { isSystemError, UserError } from '../errors.ts';
import { writeFileAtomic } from '../io/files.ts';

export type TensorData = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array;

/** Numbers with a shape, row by row (last axis fastest). */
export interface NamedArray<Data extends TensorData = Float32Array> {
  shape: number[];
  data: Data;
}

export interface Safetensors {
  tensors: Map<string, NamedArray<TensorData>>;
  metadata: Record<string, string>;
  /** sha256 of the whole file, of the very bytes that were parsed. */
  sha256: string;
}

/** The `__metadata__` entry of the header is not a tensor. */
const METADATA = '__metadata__';
const LENGTH_BYTES = 8;
/** Bound of the format's reference implementation. */
const LARGEST_HEADER = 100_000_000;
const CHUNK_BYTES = 16 * 2 ** 20;
const BAD_FILE = 'replace the file by a good copy or write it again';

/** How each dtype lies on disk and what it becomes in memory; half precisions are widened to float32 exactly. */
const DTYPES: Record<string, { bytes: number; decode: (buffer: ArrayBuffer) => TensorData }> = {
  F64: { bytes: 8, decode: (buffer) => new Float64Array(buffer) },
  F32: { bytes: 4, decode: (buffer) => new Float32Array(buffer) },
  F16: { bytes: 2, decode: (buffer) => Float32Array.from(new Uint16Array(buffer), halfToNumber) },
  BF16: { bytes: 2, decode: (buffer) => bfloat16ToFloat32(new Uint16Array(buffer)) },
  I64: { bytes: 8, decode: (buffer) => new BigInt64Array(buffer) },
  I32: { bytes: 4, decode: (buffer) => new Int32Array(buffer) },
  U8: { bytes: 1, decode: (buffer) => new Uint8Array(buffer) },
  BOOL: { bytes: 1, decode: (buffer) => new Uint8Array(buffer) },
};

/** The dtype under which an array is written. */
function dtypeOf(data: TensorData): string {
  if (data instanceof Float32Array) return 'F32';
  if (data instanceof Float64Array) return 'F64';
  if (data instanceof Int32Array) return 'I32';
  if (data instanceof BigInt64Array) return 'I64';
  return 'U8';
}

/** The bytes of `data`, without a copy. */
function bytesOf(data: TensorData): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function* pieces(data: TensorData): Generator<Uint8Array> {
  const bytes = bytesOf(data);
  for (let start = 0; start < bytes.byteLength; start += CHUNK_BYTES) {
    yield bytes.subarray(start, start + CHUNK_BYTES);
  }
}

/**
 * Writes `tensors` in the order of the map, atomically.
 * @returns size and sha256 of the file
 * @throws RangeError when a shape does not fit its data; UserError disk_full
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, NamedArray<TensorData>>,
  metadata: Record<string, string> = {},
): Promise<{ bytes: number; sha256: string }> {
  const prefix = encodeHeader(tensors, metadata);
  const hash = createHash('sha256');
  let bytes = 0;
  function* chunks(): Generator<Uint8Array> {
    yield prefix;
    for (const { data } of tensors.values()) yield* pieces(data);
  }
  function* hashed(): Generator<Uint8Array> {
    for (const chunk of chunks()) {
      hash.update(chunk);
      bytes += chunk.byteLength;
      yield chunk;
    }
  }
  await writeFileAtomic(path, hashed());
  return { bytes, sha256: hash.digest('hex') };
}

/** Header length and header, padded with spaces so that the first tensor begins at a multiple of 8. */
function encodeHeader(tensors: ReadonlyMap<string, NamedArray<TensorData>>, metadata: Record<string, string>): Buffer {
  const entries: [string, unknown][] = Object.keys(metadata).length > 0 ? [[METADATA, metadata]] : [];
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    if (elements(shape) !== data.length || name === METADATA) {
      throw new RangeError(`tensor ${name}: shape [${shape}] does not hold ${data.length} numbers`);
    }
    entries.push([name, { dtype: dtypeOf(data), shape, data_offsets: [offset, offset + data.byteLength] }]);
    offset += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Math.ceil(json.byteLength / 8) * 8;
  const prefix = Buffer.alloc(LENGTH_BYTES + length, ' ');
  prefix.writeBigUInt64LE(BigInt(length));
  json.copy(prefix, LENGTH_BYTES);
  return prefix;
}

/**
 * Reads a whole file, verified: header bounds, dtypes, shapes, no gaps, no overlaps, nothing missing, nothing extra.
 * @throws UserError artefact_missing, file_truncated, file_corrupt, input_invalid (a dtype that is not read)
 */
export async function readSafetensors(path: string): Promise<Safetensors> {
  const handle = await openForReading(path);
  try {
    const { size } = await handle.stat();
    const hash = createHash('sha256');
    const { header, bytes } = await readHeader(handle, path, size);
    for (const part of bytes) hash.update(part);
    const { layout, metadata } = parseLayout(header, path);
    const dataStart = bytes.reduce((sum, part) => sum + part.byteLength, 0);
    checkLayout(layout, size - dataStart, path);

    const tensors = new Map<string, NamedArray<TensorData>>();
    for (const { name, dtype, shape, begin, end } of layout) {
      const data = await readExactly(handle, path, dataStart + begin, end - begin, (chunk) => hash.update(chunk));
      tensors.set(name, { shape, data: dtype.decode(data) });
    }
    return { tensors, metadata, sha256: hash.digest('hex') };
  } finally {
    await handle.close();
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    if (!isSystemError(error) || error.code !== 'ENOENT') throw error;
    throw new UserError('artefact_missing', { where: path, what: 'the file does not exist', action: BAD_FILE });
  }
}

async function readHeader(
  handle: FileHandle,
  path: string,
  size: number,
): Promise<{ header: unknown; bytes: Buffer[] }> {
  if (size < LENGTH_BYTES) throw truncated(path, `${size} bytes are too few for a safetensors file`);
  const prefix = Buffer.from(await readExactly(handle, path, 0, LENGTH_BYTES));
  const length = Number(prefix.readBigUInt64LE());
  if (length > LARGEST_HEADER)
    throw corrupt(path, `a header of ${length} bytes is claimed; this is no safetensors file`);
  if (length > size - LENGTH_BYTES) throw truncated(path, `the header of ${length} bytes is longer than the file`);
  const json = Buffer.from(await readExactly(handle, path, LENGTH_BYTES, length));
  try {
    return { header: JSON.parse(json.toString('utf8')), bytes: [prefix, json] };
  } catch (error) {
    throw corrupt(path, 'the header is not valid JSON', error);
  }
}

interface Entry {
  name: string;
  dtype: { bytes: number; decode: (buffer: ArrayBuffer) => TensorData };
  shape: number[];
  begin: number;
  end: number;
}

const natural = z.int().min(0);
const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(natural),
  data_offsets: z.tuple([natural, natural]),
});

/** By hand: a record of zod passes over a key named __proto__. */
function isTextTable(value: unknown): value is Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  return Object.values(value).every((text) => typeof text === 'string');
}

/** The tensors of a header in the order of their bytes. */
function parseLayout(header: unknown, path: string): { layout: Entry[]; metadata: Record<string, string> } {
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw corrupt(path, 'the header is not a JSON object');
  }
  const layout: Entry[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(header)) {
    if (name === METADATA) {
      if (!isTextTable(value)) throw corrupt(path, `${METADATA} is not a table of strings`);
      metadata = value;
      continue;
    }
    const parsed = entrySchema.safeParse(value);
    if (!parsed.success) throw corrupt(path, `tensor ${name} is described wrongly in the header`);
    const { dtype: code, shape, data_offsets } = parsed.data;
    const dtype = Object.hasOwn(DTYPES, code) ? DTYPES[code] : undefined;
    if (dtype === undefined) {
      throw new UserError('input_invalid', {
        where: path,
        what: `tensor ${name} has the type ${code}, which is not read`,
        action: `convert it to one of ${Object.keys(DTYPES).join(', ')}`,
      });
    }
    layout.push({ name, dtype, shape, begin: data_offsets[0], end: data_offsets[1] });
  }
  layout.sort((a, b) => a.begin - b.begin || a.end - b.end);
  return { layout, metadata };
}

function checkLayout(layout: Entry[], available: number, path: string): void {
  let expected = 0;
  for (const { name, dtype, shape, begin, end } of layout) {
    if (begin !== expected) throw corrupt(path, `tensor ${name} begins at byte ${begin}, not at ${expected}`);
    if (end - begin !== elements(shape) * dtype.bytes) {
      throw corrupt(path, `tensor ${name} of shape [${shape}] cannot fill ${end - begin} bytes`);
    }
    expected = end;
  }
  if (available < expected)
    throw truncated(path, `${expected - available} of ${expected} bytes of tensors are missing`);
  if (available > expected) throw corrupt(path, `${available - expected} bytes follow the last tensor`);
}

function elements(shape: number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** `length` bytes from `start`, in a buffer of their own, so that any typed array can lie over them. */
async function readExactly(
  handle: FileHandle,
  path: string,
  start: number,
  length: number,
  seen?: (chunk: Uint8Array) => void,
): Promise<ArrayBuffer> {
  const buffer = new ArrayBuffer(length);
  let done = 0;
  while (done < length) {
    const chunk = new Uint8Array(buffer, done, Math.min(CHUNK_BYTES, length - done));
    const { bytesRead } = await handle.read(chunk, 0, chunk.byteLength, start + done);
    if (bytesRead === 0) throw truncated(path, `the file ends at byte ${start + done}`);
    seen?.(chunk.subarray(0, bytesRead));
    done += bytesRead;
  }
  return buffer;
}

function truncated(path: string, what: string): UserError {
  return new UserError('file_truncated', { where: path, what, action: BAD_FILE });
}

function corrupt(path: string, what: string, cause?: unknown): UserError {
  return new UserError('file_corrupt', { where: path, what, action: BAD_FILE, cause });
}

/** IEEE half precision: sign, 5 bits of exponent, 10 of fraction. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** bfloat16 is the upper half of a float32. */
function bfloat16ToFloat32(values: Uint16Array): Float32Array {
  return new Float32Array(Uint32Array.from(values, (bits) => (bits << 16) >>> 0).buffer);
}

/**
 * The identity of a set of weights: sha256 over names, types, shapes and bytes, in the order of the names. What order
 * the map has, or which file the weights came from, does not matter.
 */
export function weightsHash(tensors: ReadonlyMap<string, NamedArray<TensorData>>): string {
  const hash = createHash('sha256');
  const sorted = [...tensors].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [name, { shape, data }] of sorted) {
    hash.update(`${JSON.stringify([name, dtypeOf(data), shape])}\n`);
    for (const piece of pieces(data)) hash.update(piece);
  }
  return hash.digest('hex');
}
