/**
 * A file of TensorFlow records: length as u64le, masked CRC of the length, data, masked CRC of the data. It is only added to;
 * opened again it is cut to what is whole and wanted.
 */

import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { appendWhole, makeFolder } from '../../io/files.ts';
import { maskedCrc32c } from './crc32c.ts';
import { readEventHead } from './events.ts';

const HEADER_BYTES = 12;
const FRAME_BYTES = HEADER_BYTES + 4;
const READ_BYTES = 1 << 20;

/** What a file holds that was cut. */
export interface Kept {
  /** Time of the first event: the file's begin. Absent when nothing is kept. */
  startedAt?: number;
  /** Greatest step; 0 when there are none but first events. */
  last: number;
  /** Time of the first event of that step. */
  lastTime?: number;
}

export class EventFile {
  readonly path: string;
  readonly #handle: FileHandle;
  #size: number;

  private constructor(path: string, handle: FileHandle, size: number) {
    this.path = path;
    this.#handle = handle;
    this.#size = size;
  }

  /**
   * Opens or makes the file and cuts it behind the last step that is not above `lastStep`, at the latest where a record is
   * torn or damaged or steps go down. What follows the last step under the same number goes, too: it is made again.
   */
  static async open(path: string, lastStep: number): Promise<{ file: EventFile; kept: Kept }> {
    await makeFolder(dirname(path));
    const handle = await open(path, 'a').then(async (made) => {
      await made.close();
      return await open(path, 'r+');
    });
    try {
      const { size, ...kept } = await measure(handle, lastStep);
      await handle.truncate(size);
      return { file: new EventFile(path, handle, size), kept };
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Adds events, all of them or none. @throws UserError disk_full */
  async append(events: readonly Uint8Array[]): Promise<void> {
    const bytes = Buffer.concat(events.map(frame));
    await appendWhole(this.#handle, bytes, this.#size, this.path);
    this.#size += bytes.length;
  }

  /** Empties the file and begins it with `events`. */
  async restart(events: readonly Uint8Array[]): Promise<void> {
    await this.#handle.truncate(0);
    this.#size = 0;
    await this.append(events);
  }

  async sync(): Promise<void> {
    await this.#handle.sync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function frame(data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(FRAME_BYTES + data.length);
  bytes.writeBigUInt64LE(BigInt(data.length));
  bytes.writeUInt32LE(maskedCrc32c(bytes.subarray(0, 8)), 8);
  bytes.set(data, HEADER_BYTES);
  bytes.writeUInt32LE(maskedCrc32c(data), HEADER_BYTES + data.length);
  return bytes;
}

async function measure(handle: FileHandle, lastStep: number): Promise<Kept & { size: number }> {
  const kept: Kept & { size: number } = { last: 0, size: 0 };
  for await (const { data, end } of records(handle)) {
    const head = readEventHead(data);
    if (head === undefined || head.step < kept.last || head.step > lastStep) break;
    const isFirst = kept.startedAt === undefined;
    kept.startedAt ??= head.time;
    if (!isFirst && head.step === kept.last) continue;
    [kept.last, kept.lastTime] = [head.step, head.time];
    kept.size = end;
  }
  return kept;
}

/** The records from the begin of a file, up to the first that is not whole. */
async function* records(handle: FileHandle): AsyncGenerator<{ data: Buffer; end: number }> {
  const { size } = await handle.stat();
  let [block, start] = [Buffer.alloc(0), 0];
  /** Bytes [at, at + length) of the file; fewer at its end. */
  const read = async (at: number, length: number): Promise<Buffer> => {
    if (at < start || at + length > start + block.length) {
      block = Buffer.allocUnsafe(Math.max(length, READ_BYTES));
      start = at;
      const { bytesRead } = await handle.read(block, 0, block.length, at);
      block = block.subarray(0, bytesRead);
    }
    return block.subarray(at - start, at - start + length);
  };
  for (let at = 0; at + FRAME_BYTES <= size; ) {
    const header = await read(at, HEADER_BYTES);
    if (header.length < HEADER_BYTES || header.readUInt32LE(8) !== maskedCrc32c(header.subarray(0, 8))) return;
    const length = Number(header.readBigUInt64LE());
    if (length > size - at - FRAME_BYTES) return;
    const body = await read(at + HEADER_BYTES, length + 4);
    if (body.length < length + 4) return;
    const data = body.subarray(0, length);
    if (body.readUInt32LE(length) !== maskedCrc32c(data)) return;
    at += FRAME_BYTES + length;
    yield { data, end: at };
  }
}
