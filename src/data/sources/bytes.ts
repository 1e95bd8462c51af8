/** The bytes of a file, uncompressed, chunk by chunk; what comes before a damaged place is handed on first. */

import { type FileHandle, open } from 'node:fs/promises';
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import { Decompress, ZstdErrorCode } from 'fzstd';
import type { SourceFile } from './files.ts';
import { BrokenFile, type SkipReason } from './problem.ts';

/** Told how many bytes of the file on the disk have been read. */
export type OnBytes = (bytesOnDisk: number) => void;

const CHUNK = 2 ** 20;
/** So much goes into a decompressor at once, so that little can come out: gzip makes at most a thousandfold of it. */
const GZIP_PIECE = 2 ** 14;
/** Of Zstandard, blocks of four bytes can become 128 KiB. */
const ZSTD_PIECE = 2 ** 11;
/** What the `zstd` command reads without `--long`. */
const MAX_WINDOW = 2 ** 27;

/**
 * The same chunks whatever the pace of the reader, so that a damaged file gives the same documents each time.
 * @throws BrokenFile ends too early, damaged, not supported; its offset is the uncompressed byte where reading ended
 */
export async function* readBytes({ path, compression }: SourceFile, onBytes?: OnBytes): AsyncGenerator<Buffer> {
  let offset = 0;
  const chunks = fileChunks(path, onBytes);
  try {
    for await (const bytes of compression === 'none' ? chunks : decompressed(compression, chunks)) {
      offset += bytes.length;
      yield bytes;
    }
  } catch (error) {
    if (error instanceof Failure) throw new BrokenFile(error.reason, offset, `${compression}: ${error.message}`);
    throw error;
  }
}

/** Bytes `start` to `end`, in memory of their own that begins at a multiple of eight; fewer where the file ends before. */
export async function readRange(handle: FileHandle, start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(end - start);
  let length = 0;
  while (length < bytes.length) {
    const { bytesRead } = await handle.read(bytes, length, bytes.length - length, start + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return length === bytes.length ? bytes : bytes.slice(0, length);
}

class Failure extends Error {
  readonly reason: SkipReason;

  constructor(reason: SkipReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

async function* fileChunks(path: string, onBytes?: OnBytes): AsyncGenerator<Buffer> {
  const handle = await open(path);
  try {
    for (let position = 0; ; ) {
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(CHUNK), 0, CHUNK, position);
      if (bytesRead === 0) return;
      position += bytesRead;
      onBytes?.(position);
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

function decompressed(compression: 'gzip' | 'zstd', chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (compression === 'gzip') return transformed(zlib.createGunzip({ chunkSize: 2 ** 17 }), chunks);
  return unzstd(chunks);
}

/** What comes out of a stream of zlib: everything of a piece is taken out before the next one goes in. */
async function* transformed(stream: Transform, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let out: Buffer[] = [];
  let failure: Error | undefined;
  let ended = false;
  let wake = () => {};
  const take = () => out.splice(0);
  stream.on('data', (bytes: Buffer) => out.push(bytes));
  stream.on('error', (error) => {
    failure ??= error;
    wake();
  });
  stream.on('end', () => {
    ended = true;
    wake();
  });
  const settled = (start: (done: (error?: Error | null) => void) => void) =>
    new Promise<void>((resolve) => {
      wake = resolve;
      start((error) => {
        failure ??= error ?? undefined;
        resolve();
      });
    });
  try {
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length && !ended && !failure; at += GZIP_PIECE) {
        await settled((done) => stream.write(chunk.subarray(at, at + GZIP_PIECE), done));
        yield* take();
      }
      if (failure) break;
    }
    if (!ended && !failure) await settled(() => stream.end());
    yield* take();
    if (failure) throw zlibFailure(failure);
  } finally {
    out = [];
    stream.destroy();
  }
}

function zlibFailure(error: NodeJS.ErrnoException): Failure {
  return new Failure(error.code === 'Z_BUF_ERROR' ? 'ends too early' : 'damaged', error.message);
}

async function* unzstd(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const out: Buffer[] = [];
  const decoder = new Decompress((bytes) => out.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)));
  const push = (bytes: Buffer, final: boolean) => {
    try {
      decoder.push(bytes, final);
      return undefined;
    } catch (error) {
      return zstdFailure(error);
    }
  };
  let first = true;
  for await (const chunk of chunks) {
    if (first) checkWindow(chunk);
    first = false;
    for (let at = 0; at < chunk.length; at += ZSTD_PIECE) {
      const failure = push(chunk.subarray(at, at + ZSTD_PIECE), false);
      yield* out.splice(0);
      if (failure) throw failure;
    }
  }
  const failure = push(Buffer.alloc(0), true);
  yield* out.splice(0);
  if (failure) throw failure;
}

function zstdFailure(error: unknown): Failure {
  // The decoder throws nothing but this and what a damaged table makes of its arithmetic.
  const { code, message } = error as Error & { code?: number };
  if (code === ZstdErrorCode.UnexpectedEOF) return new Failure('ends too early', message);
  if (code === ZstdErrorCode.WindowSizeTooLarge) return new Failure('not supported', message);
  return new Failure('damaged', message);
}

/** The decoder holds a window of the size that the first frame says. */
function checkWindow(frame: Buffer): void {
  if (frame.length < 18 || frame.readUInt32LE(0) !== 0xfd2fb528) return;
  const window = windowOf(frame);
  if (window <= MAX_WINDOW) return;
  const what = `compressed with a window of ${window} bytes, of which at most ${MAX_WINDOW} are held`;
  throw new Failure('not supported', `${what}; compress it again without --long`);
}

/** RFC 8878, 3.1.1.1: the window is described by a byte, or is as long as the content. */
function windowOf(frame: Buffer): number {
  const descriptor = frame[4]!;
  if ((descriptor & 0x20) === 0) {
    const base = 2 ** (10 + (frame[5]! >> 3));
    return base + (base / 8) * (frame[5]! & 7);
  }
  const size = 5 + [0, 1, 2, 4][descriptor & 3]!;
  if (descriptor >> 6 === 3) return Number(frame.readBigUInt64LE(size));
  return descriptor >> 6 === 2 ? frame.readUInt32LE(size) : 0;
}
