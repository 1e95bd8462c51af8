/** Files written whole or not at all, hashes, and the errors of the disk in words. */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';

/** The name under which a file or folder is written before it is renamed into place. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
}

/** Makes a rename or a new entry in `folder` survive a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Turns "no space left" into a user error that names the file; every other error passes unchanged. */
export function diskError(error: unknown, path: string): unknown {
  if (isSystemError(error) && (error.code === 'ENOSPC' || error.code === 'EDQUOT')) {
    return new UserError('disk_full', {
      where: path,
      what: 'no space left on the device while writing; what was saved before is intact',
      action: 'free some space and start again with --resume auto',
      cause: error,
    });
  }
  return error;
}

/**
 * Writes `chunks` to a temporary name, fsyncs, renames it to `path` and fsyncs the folder.
 * @throws UserError disk_full; the temporary file is removed, an older `path` stays as it was
 */
export async function writeFileAtomic(
  path: string,
  chunks: string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = temporaryName(path);
  try {
    const handle = await open(temporary, 'w');
    try {
      if (typeof chunks === 'string' || chunks instanceof Uint8Array) {
        await handle.writeFile(chunks);
      } else {
        for await (const chunk of chunks) await writeAll(handle, chunk);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    throw diskError(error, path);
  }
}

/** Writes every byte of `bytes` at the handle's position; a single `write` may stop early. */
export async function writeAll(handle: Awaited<ReturnType<typeof open>>, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done);
    done += bytesWritten;
  }
}

/** JSON with two-space indentation, written atomically. */
export async function writeJsonAtomic(path: string, value: unknown): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Reads and parses a JSON file.
 * @throws UserError artefact_missing or file_corrupt, naming `action`
 */
export async function readJson(path: string, action: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') {
      throw new UserError('artefact_missing', { where: path, what: 'the file does not exist', action });
    }
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError('file_corrupt', { where: path, what: 'the file is not valid JSON', action, cause: error });
  }
}

/** Lower-case hexadecimal sha256 of `parts`, one after the other. */
export function sha256(...parts: (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}

/** Lower-case hexadecimal sha256 of a file's bytes, streamed. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
