/**
 * `withdrawn.json` in the folder of a bank: ids of what was deleted or replaced, so that a cold start does not write it
 * again from the references. It belongs to no version.
 */

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { exists, sha256, writeJsonAtomic } from '../io/files.ts';
import type { BankWriter } from './bank_writer.ts';
import { parseStored, readStored } from './stored_json.ts';

const FORMAT_VERSION = 1;
const WITHDRAWN = 'withdrawn.json';

const schema = z.strictObject({ formatVersion: z.literal(FORMAT_VERSION), ids: z.array(z.string()), hash: z.string() });

/** The ids that are withdrawn from a bank. @throws UserError file_corrupt, naming the file and what to do */
export async function readWithdrawn(folder: string): Promise<Set<string>> {
  const path = join(folder, WITHDRAWN);
  if (!(await exists(path))) return new Set();
  const action = `restore ${path} from a copy, or delete it: a cold start may then write again what was deleted from the bank`;
  const { ids, hash } = parseStored(await readStored(path, action), schema, FORMAT_VERSION, path, action);
  if (hashOf(ids) !== hash) {
    throw new UserError('file_corrupt', { where: path, what: 'the file does not match its own hash', action });
  }
  return new Set(ids);
}

/** Withdraws memories that are about to be deleted; when one is not there, which the deletion will refuse, none. */
export async function withdraw(writer: Pick<BankWriter, 'folder' | 'has'>, ids: readonly string[]): Promise<void> {
  if (!ids.every((id) => writer.has(id))) return;
  const withdrawn = await readWithdrawn(writer.folder);
  await write(writer.folder, new Set([...withdrawn, ...ids]), withdrawn);
}

/** Takes back the withdrawal of memories that are in the bank again. */
export async function readmit(folder: string, ids: readonly string[]): Promise<void> {
  const withdrawn = await readWithdrawn(folder);
  const back = new Set(ids);
  await write(folder, new Set([...withdrawn].filter((id) => !back.has(id))), withdrawn);
}

async function write(folder: string, next: ReadonlySet<string>, before: ReadonlySet<string>): Promise<void> {
  if (next.size === before.size) return;
  const ids = [...next].sort();
  await writeJsonAtomic(join(folder, WITHDRAWN), { formatVersion: FORMAT_VERSION, ids, hash: hashOf(ids) });
}

function hashOf(ids: readonly string[]): string {
  return sha256(JSON.stringify(ids));
}
