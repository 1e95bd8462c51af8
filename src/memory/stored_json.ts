/** The small JSON files of a bank: read, checked against a schema, and refused in words. */

import { readFile } from 'node:fs/promises';
import type { z } from 'zod';
import { isSystemError, UserError } from '../errors.ts';

/** What a user can do about a damaged bank. */
export function repairAction(bankFolder: string): string {
  return `run \`memory3 bank verify --repair\`; or restore ${bankFolder} from a copy, or delete it and run \`memory3 compile\``;
}

/** Text of a file that must be there. @throws UserError artefact_missing */
export async function readStored(path: string, action: string): Promise<string> {
  return new TextDecoder().decode(await readStoredBytes(path, action));
}

/** Bytes of a file that must be there. @throws UserError artefact_missing */
export async function readStoredBytes(path: string, action: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (cause) {
    throw unreadable(cause, path, action);
  }
}

/** What it means for the user that a file of a bank cannot be opened; an error that means something else is passed on. */
export function unreadable(error: unknown, path: string, action: string): unknown {
  if (!isSystemError(error)) return error;
  const details = { where: path, action, cause: error };
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') {
    return new UserError('artefact_missing', { ...details, what: 'the file does not exist' });
  }
  if (error.code === 'EISDIR') return new UserError('file_corrupt', { ...details, what: 'a folder is in its place' });
  if (error.code !== 'EACCES' && error.code !== 'EIO' && error.code !== 'ELOOP') return error;
  return new UserError('file_corrupt', { ...details, what: `the file cannot be read (${error.message})` });
}

/**
 * Parses `text` as JSON of the given schema.
 * @param formatVersion the version this program reads; the file's own is looked at before anything else
 * @throws UserError file_corrupt or version_unsupported, naming the file
 */
export function parseStored<T>(
  text: string,
  schema: z.ZodType<T>,
  formatVersion: number,
  path: string,
  action: string,
): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UserError('file_corrupt', { where: path, what: 'the file is not valid JSON', action, cause });
  }
  const found =
    typeof value === 'object' && value !== null ? (value as Record<string, unknown>).formatVersion : undefined;
  if (typeof found === 'number' && found !== formatVersion) {
    const what = `format version ${found}; this program reads version ${formatVersion}`;
    throw new UserError('version_unsupported', {
      where: path,
      what,
      action: `use the memory3 that wrote it, or ${action}`,
    });
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const problem = parsed.error.issues[0];
    const what = `${problem?.path.join('.') || 'the file'} is not what a bank holds there: ${problem?.message}`;
    throw new UserError('file_corrupt', { where: path, what, action });
  }
  return parsed.data;
}
