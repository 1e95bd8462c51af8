/** Files of unpacked packages; one that is not as expected is told by its name. */

import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { z } from 'zod';
import { isSystemError, UserError } from '../../errors.ts';
import { exists } from '../../io/files.ts';
import { decodeUtf8, decodeWindows1252 } from '../sources/encoding.ts';

const FETCH_AGAIN = 'fetch it anew with --force; if that does not help, the package has changed: please report it';

/**
 * A file of the package.
 * @param path inside the folder; `*` in the name of a folder stands for what differs by release
 * @throws UserError input_missing
 */
export async function packageFile(folder: string, path: string): Promise<Buffer> {
  return await found(folder, path, async () => await readFile(join(folder, await packagePath(folder, path))));
}

/**
 * Paths of the regular files at any depth below a folder of the package, sorted, relative to it; links are left out.
 * @param path inside the folder, as for `packageFile`
 * @throws UserError input_missing
 */
export async function packageFiles(folder: string, path: string): Promise<string[]> {
  return await found(folder, path, async () => {
    const top = join(folder, await packagePath(folder, path));
    const entries = await readdir(top, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    return files.map((file) => relative(top, file)).sort();
  });
}

/**
 * The path with what each `*` stands for: of all that are there, the first by name; the path itself when none is there.
 */
export async function packagePath(folder: string, path: string): Promise<string> {
  let candidates = [''];
  for (const part of path.split('/')) {
    const [before = '', after] = part.split('*');
    const fits = (name: string) => name.startsWith(before) && name.endsWith(after!);
    const longer = async (candidate: string): Promise<string[]> => {
      const names = after === undefined ? [part] : (await folderNames(join(folder, candidate))).filter(fits).sort();
      return names.map((name) => join(candidate, name));
    };
    candidates = (await Promise.all(candidates.map(longer))).flat();
  }
  for (const candidate of candidates) if (await exists(join(folder, candidate))) return candidate;
  return path;
}

/** Empty for what is no folder. */
async function folderNames(folder: string): Promise<string[]> {
  return (await exists(folder)) && (await stat(folder)).isDirectory() ? await readdir(folder) : [];
}

async function found<T>(folder: string, path: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (cause) {
    if (!isSystemError(cause) || !['ENOENT', 'ENOTDIR'].includes(cause.code ?? '')) throw cause;
    const what = `the package holds no ${path}`;
    throw new UserError('input_missing', { where: folder, what, action: FETCH_AGAIN, cause });
  }
}

/** UTF-8, or Windows-1252 where it is not UTF-8, as in older collections. */
export function decodeText(bytes: Uint8Array): string {
  return decodeUtf8(bytes) ?? decodeWindows1252(bytes);
}

/** @throws UserError input_invalid, naming the file and what was expected */
export function unexpected(file: string, what: string): UserError {
  return new UserError('input_invalid', { where: file, what, action: FETCH_AGAIN });
}

/**
 * A JSON array of the package.
 * @param entry what each entry is
 * @throws UserError input_missing, input_invalid
 */
export async function packageList<T>(folder: string, path: string, entry: z.ZodType<T>): Promise<T[]> {
  return checked(parseJson(await packageFile(folder, path), path), path, z.array(entry));
}

/** @throws UserError input_invalid, naming the file and the first field that is not as the schema says */
export function checked<T>(value: unknown, file: string, schema: z.ZodType<T>): T {
  const { data, error } = schema.safeParse(value);
  if (!error) return data as T;
  const [{ path, message }] = error.issues as [z.core.$ZodIssue];
  throw unexpected(file, `${path.length > 0 ? `${path.join('.')}: ` : ''}${message}`);
}

/** @throws UserError input_invalid, naming the file */
export function parseJson(bytes: Uint8Array, file: string): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw unexpected(file, `the file is not JSON: ${error.message}`);
  }
}

/** @throws UserError input_invalid, naming the file */
export async function unzip(bytes: Uint8Array, file: string): Promise<Buffer> {
  try {
    return await promisify(gunzip)(bytes);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    throw unexpected(file, `the file is not whole gzip: ${error.message}`);
  }
}
