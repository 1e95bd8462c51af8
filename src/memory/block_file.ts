/** Files with a sha256 for each block. A block is checked when it is first touched, so that a read costs its own bytes. */

import { createHash, type Hash } from 'node:crypto';
import { createReadStream, readSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { sha256, writeAll } from '../io/files.ts';
import { unreadable } from './stored_json.ts';

/** Size and checksums of a file, kept beside it. */
export interface BlockSums {
  bytes: number;
  blockBytes: number;
  /** sha256 of each block; the last block may be shorter. */
  blocks: string[];
}

export const blockSums = z.strictObject({
  bytes: z.int().min(0),
  blockBytes: z.int().min(1),
  blocks: z.array(z.string()),
}) satisfies z.ZodType<BlockSums>;

export const BLOCK_BYTES = 2 ** 20;

/** The largest block of at most 1 MiB that holds whole rows, so that no row lies in two blocks; at least one row. */
export function blockBytesFor(rowBytes: number): number {
  return rowBytes * Math.max(1, Math.floor(BLOCK_BYTES / rowBytes));
}

/** Writes a file from its start and hashes it block by block. */
export class BlockFileWriter {
  #handle: FileHandle;
  #sums: BlockSums;
  #hash: Hash = createHash('sha256');
  #filled = 0;

  private constructor(handle: FileHandle, blockBytes: number) {
    this.#handle = handle;
    this.#sums = { bytes: 0, blockBytes, blocks: [] };
  }

  static async create(path: string, blockBytes: number): Promise<BlockFileWriter> {
    return new BlockFileWriter(await open(path, 'wx'), blockBytes);
  }

  /** Writes a file in one call, in blocks of 1 MiB. */
  static async writeFile(path: string, bytes: Uint8Array): Promise<BlockSums> {
    const file = await BlockFileWriter.create(path, BLOCK_BYTES);
    try {
      await file.write(bytes);
      return await file.finish();
    } catch (error) {
      await file.abandon();
      throw error;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let start = 0; start < bytes.byteLength; ) {
      const end = Math.min(bytes.byteLength, start + this.#sums.blockBytes - this.#filled);
      this.#hash.update(bytes.subarray(start, end));
      this.#filled += end - start;
      if (this.#filled === this.#sums.blockBytes) this.#endBlock();
      start = end;
    }
    await writeAll(this.#handle, bytes);
    this.#sums.bytes += bytes.byteLength;
  }

  /** Fsyncs and closes the file. */
  async finish(): Promise<BlockSums> {
    if (this.#filled > 0) this.#endBlock();
    await this.#handle.sync();
    await this.#handle.close();
    return this.#sums;
  }

  /** Closes the file without a promise about its contents. */
  async abandon(): Promise<void> {
    await this.#handle.close().catch(() => undefined);
  }

  #endBlock(): void {
    this.#sums.blocks.push(this.#hash.digest('hex'));
    this.#hash = createHash('sha256');
    this.#filled = 0;
  }
}

/** Fsyncs a file that another library wrote. @returns its size and checksums */
export async function sumsOfFile(path: string): Promise<BlockSums> {
  const handle = await open(path, 'r+');
  try {
    await handle.sync();
    const sums: BlockSums = { bytes: 0, blockBytes: BLOCK_BYTES, blocks: [] };
    const block = new Uint8Array(BLOCK_BYTES);
    for (;;) {
      let filled = 0;
      while (filled < BLOCK_BYTES) {
        const { bytesRead } = await handle.read(block, filled, BLOCK_BYTES - filled, sums.bytes + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      if (filled === 0) return sums;
      sums.bytes += filled;
      sums.blocks.push(sha256(block.subarray(0, filled)));
    }
  } finally {
    await handle.close();
  }
}

/** Reads ranges of a file written by `BlockFileWriter`. */
export class BlockFile {
  readonly path: string;
  readonly bytes: number;
  /** Undefined when the file could not be opened and is salvaged all the same: every read fails. */
  #handle: FileHandle | undefined;
  #sums: BlockSums;
  #action: string;
  #verified: Uint8Array;

  private constructor(path: string, handle: FileHandle | undefined, sums: BlockSums, action: string) {
    this.path = path;
    this.bytes = sums.bytes;
    this.#handle = handle;
    this.#sums = sums;
    this.#action = action;
    this.#verified = new Uint8Array(sums.blocks.length);
  }

  /**
   * Opens the file and checks its size. The handle keeps the contents readable even when the file is removed later.
   * @param action what the user can do when the file turns out to be damaged
   * @throws UserError artefact_missing, file_truncated or file_corrupt, naming the file
   */
  static async open(path: string, sums: BlockSums, action: string): Promise<BlockFile> {
    let handle: FileHandle;
    try {
      handle = await open(path, 'r');
    } catch (cause) {
      throw unreadable(cause, path, action);
    }
    const status = await handle.stat();
    const size = status.isFile() ? status.size : 0;
    if (size !== sums.bytes) {
      await handle.close();
      const code = size < sums.bytes ? 'file_truncated' : 'file_corrupt';
      throw new UserError(code, { where: path, what: `the file has ${size} bytes, not ${sums.bytes}`, action });
    }
    return new BlockFile(path, handle, sums, action);
  }

  /** Opens what is left of a file, of any size or none: reads succeed where whole blocks are right. */
  static async salvage(path: string, sums: BlockSums, action: string): Promise<BlockFile> {
    const handle = await open(path, 'r').catch(() => undefined);
    return new BlockFile(path, handle, sums, action);
  }

  /** Size and checksums of a file as it is. */
  static async sumsOf(path: string, blockBytes: number): Promise<BlockSums> {
    const blocks: string[] = [];
    let bytes = 0;
    for await (const chunk of createReadStream(path, { highWaterMark: blockBytes }) as AsyncIterable<Buffer>) {
      blocks.push(sha256(chunk));
      bytes += chunk.byteLength;
    }
    return { bytes, blockBytes, blocks };
  }

  /**
   * Bytes [offset, offset + length) in a buffer of their own.
   * @throws UserError file_corrupt or file_truncated when a block that is touched for the first time is damaged
   */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const { blockBytes } = this.#sums;
    const out = new Uint8Array(length);
    const end = offset + length;
    for (let block = Math.floor(offset / blockBytes); block * blockBytes < end; block++) {
      const blockStart = block * blockBytes;
      const from = Math.max(offset, blockStart);
      const until = Math.min(end, blockStart + blockBytes);
      const target = out.subarray(from - offset, until - offset);
      if (this.#verified[block] === 1) {
        await this.#readExactly(target, from);
      } else {
        const bytes = await this.#readAndVerify(block);
        target.set(bytes.subarray(from - blockStart, until - blockStart));
      }
    }
    return out;
  }

  /**
   * The descriptor of the file when bytes [offset, offset + length) were checked before, so that reading them needs nothing
   * else: they are likely to be in the page cache. It is valid until `close`.
   */
  checkedDescriptor(offset: number, length: number): number | undefined {
    const { blockBytes } = this.#sums;
    for (let block = Math.floor(offset / blockBytes); block * blockBytes < offset + length; block++) {
      if (this.#verified[block] !== 1) return undefined;
    }
    return this.#handle?.fd;
  }

  /**
   * Reads into `target` at once when all that is asked for was checked before; a promise would take longer than the reading.
   * @returns false when nothing was read
   * @throws UserError file_truncated
   */
  readChecked(target: Uint8Array, offset: number): boolean {
    const descriptor = this.checkedDescriptor(offset, target.byteLength);
    if (descriptor === undefined) return false;
    for (let done = 0; done < target.byteLength; ) {
      const bytesRead = readSync(descriptor, target, done, target.byteLength - done, offset + done);
      if (bytesRead === 0) throw this.#endsAt(offset + done);
      done += bytesRead;
    }
    return true;
  }

  /** Reads the whole file and checks every block, also those that were checked before. */
  async verify(): Promise<void> {
    for (let block = 0; block < this.#sums.blocks.length; block++) await this.#readAndVerify(block);
  }

  async close(): Promise<void> {
    await this.#handle?.close();
  }

  async #readAndVerify(block: number): Promise<Uint8Array> {
    const start = block * this.#sums.blockBytes;
    const bytes = new Uint8Array(Math.min(this.#sums.blockBytes, this.bytes - start));
    await this.#readExactly(bytes, start);
    if (sha256(bytes) !== this.#sums.blocks[block]) {
      throw new UserError('file_corrupt', {
        where: this.path,
        what: `bytes ${start} to ${start + bytes.byteLength} do not match their checksum`,
        action: this.#action,
      });
    }
    this.#verified[block] = 1;
    return bytes;
  }

  #endsAt(position: number): UserError {
    const what = `the file ends at byte ${position}, before ${this.bytes}`;
    return new UserError('file_truncated', { where: this.path, what, action: this.#action });
  }

  async #readExactly(target: Uint8Array, position: number): Promise<void> {
    const handle = this.#handle;
    if (handle === undefined) {
      throw new UserError('artefact_missing', {
        where: this.path,
        what: 'the file does not exist',
        action: this.#action,
      });
    }
    for (let done = 0; done < target.byteLength; ) {
      const { bytesRead } = await handle
        .read(target, done, target.byteLength - done, position + done)
        .catch((error: unknown) => {
          throw unreadable(error, this.path, this.#action);
        });
      if (bytesRead === 0) throw this.#endsAt(position + done);
      done += bytesRead;
    }
  }
}
