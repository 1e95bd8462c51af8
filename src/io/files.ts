/** Files written whole or not at all, hashes, and the errors of the disk in words. */

import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { access, copyFile, link, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';

/** One `write` takes at most 2 GiB − 1 bytes. */
const LARGEST_WRITE = 2 ** 30;

/** The name under which a file or folder is written before it is renamed into place. */
export function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
}

/** The name of the old folder while `replaceFolder` puts the new one in its place. */
function asideName(path: string): string {
  return join(dirname(path), `.${basename(path)}.old`);
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

/**
 * Creates `folder` and its parents so that they survive a power cut.
 * @throws UserError disk_full
 */
export async function makeFolder(folder: string): Promise<void> {
  try {
    const first = await mkdir(folder, { recursive: true });
    if (first === undefined) return;
    const top = dirname(resolve(first));
    for (let parent = dirname(resolve(folder)); parent.length >= top.length; parent = dirname(parent)) {
      await syncFolder(parent);
      if (parent === top) return;
    }
  } catch (error) {
    throw diskError(error, folder);
  }
}

/**
 * Puts the complete folder `temporary` at `target`, whether or not a folder is there. A folder cannot be renamed over
 * another, so the old one stands aside for a moment; killed in that moment, `cleanLeftovers` puts it back.
 */
export async function replaceFolder(temporary: string, target: string): Promise<void> {
  const aside = asideName(target);
  const replaced = await renameIfThere(target, aside);
  try {
    await rename(temporary, target);
  } catch (error) {
    if (replaced) await rename(aside, target);
    throw error;
  }
  try {
    await syncFolder(dirname(target));
  } catch (error) {
    throw diskError(error, target);
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}

/**
 * Makes the folder `to` with the same files as `from`, shared where the file system can (hard links): for files that are
 * replaced but never written to.
 * @throws UserError disk_full
 */
export async function linkFolder(from: string, to: string): Promise<void> {
  await makeFolder(to);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await linkFolder(source, target);
    else await link(source, target).catch(() => copyWhole(source, target));
  }
}

async function copyWhole(source: string, target: string): Promise<void> {
  try {
    await copyFile(source, target);
  } catch (error) {
    throw diskError(error, target);
  }
}

/** Renames `from` to `to`, over a leftover of that name; false when there is no `from`. */
async function renameIfThere(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if (!isSystemError(error)) throw error;
    if (error.code === 'ENOENT') return false;
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    await rm(to, { recursive: true });
    await rename(from, to);
    return true;
  }
}

/**
 * Removes what a killed process left under `root`: `.*.tmp` files and folders at any depth; a folder that stood aside
 * goes back to its name when the new one never arrived. Only for the process that may write there.
 * @returns the paths removed or put back
 */
export async function cleanLeftovers(root: string): Promise<string[]> {
  const cleaned: string[] = [];
  for (const entry of await readdir(root, { withFileTypes: true })) {
    const path = join(root, entry.name);
    const aside = /^\.(.+)\.old$/.exec(entry.name)?.[1];
    if (/^\..*\.tmp$/.test(entry.name)) {
      await rm(path, { recursive: true, force: true });
    } else if (aside !== undefined && entry.isDirectory()) {
      if (existsSync(join(root, aside))) await rm(path, { recursive: true });
      else await rename(path, join(root, aside));
    } else {
      if (entry.isDirectory()) cleaned.push(...(await cleanLeftovers(path)));
      continue;
    }
    cleaned.push(path);
  }
  if (cleaned.length > 0) await syncFolder(root);
  return cleaned;
}

/** Turns "no space left" into a user error that names the file; every other error passes unchanged. */
export function diskError(error: unknown, path: string): unknown {
  if (isSystemError(error) && (error.code === 'ENOSPC' || error.code === 'EDQUOT')) {
    return new UserError('disk_full', {
      where: path,
      what: 'no space left on the device while writing; what was saved before is intact',
      action: 'free some space and start the command again, a training with --resume auto',
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
  const temporary = temporaryName(path);
  try {
    await makeFolder(dirname(path));
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
export async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.byteLength - done, LARGEST_WRITE));
    done += bytesWritten;
  }
}

/**
 * Adds `bytes` behind the first `size` bytes of a file, all of them or none.
 * @throws UserError disk_full; the file is cut back to `size`, and if it cannot be, the next call writes over the rest
 */
export async function appendWhole(handle: FileHandle, bytes: Uint8Array, size: number, path: string): Promise<void> {
  try {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, size + done);
      done += bytesWritten;
    }
  } catch (error) {
    await handle.truncate(size).catch(() => undefined);
    throw diskError(error, path);
  }
}

/** True when the file is empty or its last byte is a line break. */
export async function endsWithLine(handle: FileHandle): Promise<boolean> {
  const { size } = await handle.stat();
  const last = Buffer.alloc(1);
  return size === 0 || ((await handle.read(last, 0, 1, size - 1)).bytesRead === 1 && last[0] === 0x0a);
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

/** True when `path` can be reached. */
export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
