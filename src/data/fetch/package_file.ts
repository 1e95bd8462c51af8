/** Files of unpacked packages; one that is not as expected is told by its name. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isSystemError, UserError } from '../../errors.ts';
import { decodeUtf8, decodeWindows1252 } from '../sources/encoding.ts';

const FETCH_AGAIN = 'fetch it anew with --force; if that does not help, the package has changed: please report it';

/** @throws UserError input_missing */
export async function packageFile(folder: string, path: string): Promise<Buffer> {
  try {
    return await readFile(join(folder, path));
  } catch (cause) {
    if (!isSystemError(cause) || cause.code !== 'ENOENT') throw cause;
    throw new UserError('input_missing', {
      where: folder,
      what: `the package holds no ${path}`,
      action: FETCH_AGAIN,
      cause,
    });
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

/** A JSON array of the package. @throws UserError input_missing, input_invalid */
export async function packageList<T extends object>(folder: string, path: string): Promise<T[]> {
  const bytes = await packageFile(folder, path);
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    if (Array.isArray(value)) return value as T[];
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw unexpected(join(folder, path), 'the file is not a JSON array');
}
