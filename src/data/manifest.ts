/** Manifests: JSON that names its version and carries a hash of its own content. */

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readJson, sha256, writeJsonAtomic } from '../io/files.ts';
import { exampleSchema } from './report.ts';

export const MANIFEST = 'manifest.json';
export const REBUILD = 'build the data again with `memory3 data build`';

/** zod shape of a `DataCounters`. */
export const countersSchema = z.strictObject({
  documents: z.int(),
  bytes: z.int(),
  skipped: z.record(z.string(), z.int()),
  examples: z.array(exampleSchema),
});

/** Writes `body` with its version and content hash to `<folder>/manifest.json`; returns the content hash. */
export async function writeManifest(folder: string, version: number, body: object): Promise<string> {
  const content = { version, ...body };
  const contentHash = hashOf(content);
  await writeJsonAtomic(join(folder, MANIFEST), { ...content, contentHash });
  return contentHash;
}

/**
 * Reads `<folder>/manifest.json`, checks its content hash and its shape.
 * @throws UserError artefact_missing, version_unsupported, file_corrupt
 */
export async function readManifest<T>(
  folder: string,
  version: number,
  schema: z.ZodType<T>,
): Promise<T & { contentHash: string }> {
  const where = join(folder, MANIFEST);
  const raw = await readJson(where, REBUILD);
  const { contentHash, ...content } = (typeof raw === 'object' && raw !== null ? raw : {}) as Record<string, unknown>;
  if (typeof content.version === 'number' && content.version !== version) {
    const what = `written in format version ${content.version}, this program reads ${version}`;
    throw new UserError('version_unsupported', { where, what, action: REBUILD });
  }
  if (typeof contentHash !== 'string' || hashOf(content) !== contentHash) {
    throw new UserError('file_corrupt', { where, what: 'the content does not match its hash', action: REBUILD });
  }
  const { version: _, ...body } = content;
  const parsed = schema.safeParse(body);
  if (!parsed.success) {
    throw new UserError('file_corrupt', { where, what: z.prettifyError(parsed.error), action: REBUILD });
  }
  return { ...parsed.data, contentHash };
}

const hashOf = (content: object) => sha256(JSON.stringify(content));
