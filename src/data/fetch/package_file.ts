/** Files of unpacked packages; one that is not as expected is told by its name. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isSystemError, UserError } from '../../errors.ts';

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
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    // Node's decoder of this name leaves out what differs from Latin-1.
    return Buffer.from(bytes)
      .toString('latin1')
      .replace(/[\x80-\x9f]/g, (character) => WINDOWS_1252[character.charCodeAt(0) - 0x80]!);
  }
}

/** Bytes 80 to 9f. */
const WINDOWS_1252 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

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
