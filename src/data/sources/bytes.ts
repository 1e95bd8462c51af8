/** The bytes of a file, uncompressed, chunk by chunk; what comes before a damaged place is handed on first. */

import { type FileHandle, open } from 'node:fs/promises';
import type { Transform } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import zlib from 'node:zlib';
import { Decompress, ZstdErrorCode } from 'fzstd';
import type { SourceFile } from './files.ts';
import { BrokenFile, type SkipReason } from './problem.ts';

/** Told how many bytes of the file on the disk have been read. */
export type OnBytes = (bytesOnDisk: number) => void;

const CHUNK = 2 ** 20;
/** So much goes into a decompressor at once, so that little can come out: gzip makes at most a thousandfold of it. */
const GZIP_PIECE = 2 ** 14;
const OUTPUT = 2 ** 17;
/** Of Zstandard, blocks of four bytes can become 128 KiB. */
const ZSTD_PIECE = 2 ** 11;
const ZSTD_MAGIC = 0xfd2fb528;
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

type Engine = Transform & { bytesWritten: number };

/** In Node since 22.15. */
const { createZstdDecompress } = zlib as { createZstdDecompress?: (options: zlib.ZlibOptions) => Engine };

function decompressed(compression: 'gzip' | 'zstd', chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (compression === 'gzip') return inflated(() => zlib.createGunzip({ chunkSize: OUTPUT }), chunks);
  const checked = ofBoundedWindow(chunks);
  return createZstdDecompress
    ? inflated(() => createZstdDecompress({ chunkSize: OUTPUT }), checked, true)
    : unzstd(checked);
}

/** An engine ends before its input does at the zeros that fill up a gzip file, and with `frames` after each frame. */
async function* inflated(create: () => Engine, chunks: AsyncIterable<Buffer>, frames = false): AsyncGenerator<Buffer> {
  let inflater = new Inflater(create());
  try {
    for await (const chunk of chunks) {
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + GZIP_PIECE);
        yield* await inflater.push(piece);
        inflater.check();
        at += inflater.ended ? inflater.consumed : piece.length;
        if (!inflater.ended) continue;
        if (!frames) return;
        inflater.destroy();
        inflater = new Inflater(create());
      }
    }
    yield* await inflater.push();
    inflater.check();
  } finally {
    inflater.destroy();
  }
}

/** Gives everything that comes of a piece before it takes the next one. */
class Inflater {
  ended = false;
  /** Bytes of the last piece that were read. */
  consumed = 0;
  readonly #engine: Engine;
  readonly #out: Buffer[] = [];
  #failure: NodeJS.ErrnoException | undefined;
  #settle = () => {};

  constructor(engine: Engine) {
    this.#engine = engine;
    engine.on('data', (bytes: Buffer) => this.#out.push(bytes));
    engine.on('error', (error) => this.#fail(error));
    engine.on('end', () => {
      this.ended = true;
      this.#settle();
    });
  }

  /** Without a piece: the input ends. */
  async push(piece?: Buffer): Promise<Buffer[]> {
    const before = this.#engine.bytesWritten;
    await new Promise<void>((resolve) => {
      this.#settle = resolve;
      if (piece) this.#engine.write(piece, (error) => (error ? this.#fail(error) : resolve()));
      else this.#engine.end();
    });
    this.consumed = this.#engine.bytesWritten - before;
    return this.#out.splice(0);
  }

  /** @throws Failure */
  check(): void {
    if (this.#failure) throw zlibFailure(this.#failure);
  }

  destroy(): void {
    this.#engine.destroy();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#settle();
  }
}

function zlibFailure({ code, message }: NodeJS.ErrnoException): Failure {
  if (code === 'Z_BUF_ERROR') return new Failure('ends too early', message);
  return new Failure('damaged', message);
}

async function* unzstd(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const out: Buffer[] = [];
  let made = 0;
  const decoder = new Decompress((bytes) => {
    made += bytes.length;
    out.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  });
  const push = (bytes: Buffer, final: boolean) => {
    try {
      decoder.push(bytes, final);
      return undefined;
    } catch (error) {
      return zstdFailure(error);
    }
  };
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += ZSTD_PIECE) {
      const failure = push(chunk.subarray(at, at + ZSTD_PIECE), false);
      yield* out.splice(0);
      if (failure) throw failure;
      // All of it is arithmetic, so that other work has its turn here only.
      if (made > CHUNK) {
        made = 0;
        await setImmediate();
      }
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

/** The decoder holds a window of the size that the first frame says. @throws Failure */
async function* ofBoundedWindow(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let first = true;
  for await (const chunk of chunks) {
    const window = first && chunk.length >= 18 && chunk.readUInt32LE(0) === ZSTD_MAGIC ? windowOf(chunk) : 0;
    if (window > MAX_WINDOW) {
      const what = `compressed with a window of ${window} bytes, of which at most ${MAX_WINDOW} are held`;
      throw new Failure('not supported', `${what}; compress it again without --long`);
    }
    first = false;
    yield chunk;
  }
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
