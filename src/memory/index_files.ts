/**
 * The folders of indexes in a bank:
 *
 *   index-<id>/index.faiss   the index; the id of a vector is the number of its segment · 2³² + its row
 *   index-<id>/index.json    written last: how it is searched, the segments that it covers, size and checksums
 */

import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ignoreUserError, UserError } from '../errors.ts';
import { diskError, sha256, syncFolder, temporaryName, writeJsonAtomic } from '../io/files.ts';
import { BlockFile, blockSums, sumsOfFile } from './block_file.ts';
import { parseStored, readStored } from './stored_json.ts';

const FORMAT_VERSION = 1;
const PREFIX = 'index-';
const INDEX = 'index.faiss';
const DESCRIPTION = 'index.json';

const descriptionSchema = z.strictObject({
  format: z.literal('memory3-index'),
  formatVersion: z.literal(FORMAT_VERSION),
  factory: z.string(),
  parameters: z.record(z.string(), z.number()),
  reason: z.string(),
  dimensions: z.int().min(1),
  segments: z.array(z.string()),
  file: blockSums,
});
export type IndexDescription = z.infer<typeof descriptionSchema>;

/**
 * Writes an index beside the segments and removes the others. The same index always has the same name.
 * @param write writes the index itself to a path
 */
export async function saveIndex(
  folder: string,
  facts: Omit<IndexDescription, 'format' | 'formatVersion' | 'file'>,
  write: (path: string) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(join(folder, 'index'));
  try {
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary);
    await write(join(temporary, INDEX));
    const file = await sumsOfFile(join(temporary, INDEX));
    const description: IndexDescription = { format: 'memory3-index', formatVersion: FORMAT_VERSION, ...facts, file };
    await writeJsonAtomic(join(temporary, DESCRIPTION), description);
    for (const other of await indexesOnDisk(folder)) await removeIndex(folder, other);
    await rename(temporary, join(folder, nameOf(description)));
    await syncFolder(folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw diskError(error, folder);
  }
}

function nameOf(description: IndexDescription): string {
  return `${PREFIX}${sha256(JSON.stringify(descriptionSchema.parse(description))).slice(0, 16)}`;
}

/** What an index says of itself. @throws UserError naming the file and what to do */
export async function readIndexDescription(folder: string, name: string): Promise<IndexDescription> {
  const path = join(folder, name, DESCRIPTION);
  const action = actionFor(join(folder, name));
  const description = parseStored(await readStored(path, action), descriptionSchema, FORMAT_VERSION, path, action);
  if (nameOf(description) === name) return description;
  throw new UserError('file_corrupt', { where: path, what: 'the file does not match the name of its folder', action });
}

/** Compares an index with its checksums. @returns the path of the index itself @throws UserError naming the file */
export async function verifiedIndex(folder: string, name: string): Promise<string> {
  const { file } = await readIndexDescription(folder, name);
  const path = join(folder, name, INDEX);
  const opened = await BlockFile.open(path, file, actionFor(join(folder, name)));
  try {
    await opened.verify();
    return path;
  } finally {
    await opened.close();
  }
}

/** Names of the index folders in a bank's folder. */
export async function indexesOnDisk(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.startsWith(PREFIX)).sort();
}

/** Removes an index so that its name never stands for half of it. */
export async function removeIndex(folder: string, name: string): Promise<void> {
  const temporary = temporaryName(join(folder, name));
  await rename(join(folder, name), temporary);
  await rm(temporary, { recursive: true, force: true });
}

/** Removes the indexes that cover a segment which is not among `segments`, and those that cannot be read. */
export async function removeIndexesBeyond(folder: string, segments: ReadonlySet<string>): Promise<void> {
  for (const name of await indexesOnDisk(folder)) {
    const description = await readIndexDescription(folder, name).catch(ignoreUserError);
    if (description?.segments.every((id) => segments.has(id))) continue;
    await removeIndex(folder, name);
  }
}

function actionFor(index: string): string {
  return `delete the folder ${index}; \`memory3 bank tune\` makes an index anew`;
}
