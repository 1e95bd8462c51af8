/**
 * The file that `wandb sync` uploads, as a sequence of records (each some bytes). It is LevelDB's log format
 * (github.com/google/leveldb, doc/log_format.md) with two changes: seven bytes of its own stand at the begin of the first
 * block, and the checksum is the CRC-32 of zlib.
 */

import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';

/** `:W&B`, the number 0xBEE1 and version 0. */
export const FILE_HEADER = Buffer.from([0x3a, 0x57, 0x26, 0x42, 0xe1, 0xbe, 0x00]);

const BLOCK = 32768;
/** Checksum (4 bytes), length (2), type (1). */
const CHUNK_HEADER = 7;
const FULL = 1;
const FIRST = 2;
const MIDDLE = 3;
const LAST = 4;
/** Read at once: whole blocks. */
const READ_BYTES = 32 * BLOCK;

/** The bytes that add `records` to a file of `offset` bytes. */
export function encodeRecords(records: readonly Uint8Array[], offset: number): Buffer {
  const parts: Uint8Array[] = [];
  let at = offset;
  const add = (part: Uint8Array): void => {
    parts.push(part);
    at += part.byteLength;
  };
  for (const record of records) {
    for (let done = 0, isFirst = true; ; isFirst = false) {
      const left = BLOCK - (at % BLOCK);
      // No header fits: the rest of the block is zeros.
      if (left < CHUNK_HEADER) add(new Uint8Array(left));
      const room = BLOCK - (at % BLOCK) - CHUNK_HEADER;
      const data = record.subarray(done, done + room);
      done += data.byteLength;
      const isLast = done === record.byteLength;
      add(chunkHeader(isFirst ? (isLast ? FULL : FIRST) : isLast ? LAST : MIDDLE, data));
      add(data);
      if (isLast) break;
    }
  }
  return Buffer.concat(parts);
}

function chunkHeader(type: number, data: Uint8Array): Buffer {
  const header = Buffer.alloc(CHUNK_HEADER);
  header.writeUInt16LE(data.byteLength, 4);
  header[6] = type;
  // zlib begins anew where it is given nothing.
  const checksum = crc32(header.subarray(6));
  header.writeUInt32LE(data.byteLength === 0 ? checksum : crc32(data, checksum), 0);
  return header;
}

/** True when the file begins as one of these does. */
export async function hasFileHeader(handle: FileHandle): Promise<boolean> {
  const bytes = Buffer.alloc(FILE_HEADER.length);
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
  return bytesRead === bytes.length && bytes.equals(FILE_HEADER);
}

/**
 * The records of a file with the places where each begins and ends, streamed. Ends without an error at the first one that
 * is cut off or damaged.
 */
export async function* readRecords(
  handle: FileHandle,
): AsyncGenerator<{ start: number; end: number; bytes: Buffer }, void, undefined> {
  let parts: Buffer[] = [];
  let start = 0;
  for await (const { type, data, at } of readChunks(handle)) {
    const begins = type === FULL || type === FIRST;
    // A record that begins inside another, or goes on without having begun.
    if (begins !== (parts.length === 0)) return;
    if (begins) start = at;
    // A part that stays while the next bytes are read needs a place of its own.
    parts.push(type === FULL ? data : Buffer.from(data));
    if (type !== FULL && type !== LAST) continue;
    yield { start, end: at + CHUNK_HEADER + data.byteLength, bytes: parts.length === 1 ? data : Buffer.concat(parts) };
    parts = [];
  }
}

/** Chunks up to the first that is not whole; `data` holds until the next one is asked for. */
async function* readChunks(
  handle: FileHandle,
): AsyncGenerator<{ type: number; data: Buffer; at: number }, void, undefined> {
  const buffer = Buffer.alloc(READ_BYTES);
  for (let base = 0; ; base += READ_BYTES) {
    const size = await fill(handle, buffer, base);
    let at = base === 0 ? FILE_HEADER.length : 0;
    while (at < size) {
      const left = BLOCK - (at % BLOCK);
      if (left < CHUNK_HEADER) {
        at += left;
        continue;
      }
      const end = at + CHUNK_HEADER + (at + CHUNK_HEADER <= size ? buffer.readUInt16LE(at + 4) : 0);
      const type = buffer[at + 6]!;
      const isWhole = end <= size && end - at <= left && type >= FULL && type <= LAST;
      if (!isWhole || crc32(buffer.subarray(at + 6, end)) !== buffer.readUInt32LE(at)) return;
      yield { type, data: buffer.subarray(at + CHUNK_HEADER, end), at: base + at };
      at = end;
    }
    if (size < READ_BYTES) return;
  }
}

async function fill(handle: FileHandle, buffer: Buffer, position: number): Promise<number> {
  let size = 0;
  while (size < buffer.length) {
    const { bytesRead } = await handle.read(buffer, size, buffer.length - size, position + size);
    if (bytesRead === 0) break;
    size += bytesRead;
  }
  return size;
}
