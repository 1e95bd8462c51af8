/** What a build of data is made from: settings and input files. Two builds of one plan give the same bytes. */

import { stat } from 'node:fs/promises';
import { z } from 'zod';
import type { DataConfig, MemoryConfig, SourceConfig } from '../config/schema.ts';
import { isSystemError, UserError } from '../errors.ts';
import { sha256File } from '../io/files.ts';
import { listSourceFiles } from './documents.ts';

/** Raised whenever the same inputs would give other data. */
export const VERSION = 2;

const fileSchema = z.strictObject({ path: z.string(), size: z.int(), modified: z.number(), sha256: z.string() });
export type InputFile = z.infer<typeof fileSchema>;
/** What a build is made from. */
export const planSchema = z.strictObject({
  version: z.literal(VERSION),
  settings: z.record(z.string(), z.unknown()),
  files: z.array(fileSchema),
});
export type Plan = z.infer<typeof planSchema>;

/** Everything in the configuration that the data depends on. */
export function settingsOf(data: DataConfig, memory: MemoryConfig, seed: number): Record<string, unknown> {
  // Weights are for reading.
  const unweighted = (sources: readonly SourceConfig[]) => sources.map(({ weight: _, ...source }) => source);
  const { cleaning, deduplication, tokenizer, shardBytes, validationShare, minDocumentCharacters } = data;
  return {
    data: {
      sources: unweighted(data.sources),
      continual: { ...data.continual, sources: unweighted(data.continual.sources) },
      references: data.references,
      ...{ cleaning, deduplication, tokenizer, shardBytes, validationShare, minDocumentCharacters },
    },
    memory: { referenceTokens: memory.referenceTokens },
    seed,
  };
}

/** Input files with their hashes; a file of the same size and time as in `known` is not read again. */
export async function inputFiles(data: DataConfig, known: readonly InputFile[]): Promise<InputFile[]> {
  const { sources, continual, references, tokenizer } = data;
  const listed = await listSourceFiles([...sources, ...continual.sources, ...tokenizer.sources, ...references]);
  const given = [tokenizer.path, tokenizer.extend].filter((path) => path !== undefined);
  const keyOf = ({ path, size, modified }: Omit<InputFile, 'sha256'>) => `${size} ${modified} ${path}`;
  const hashes = new Map(known.map((file) => [keyOf(file), file.sha256]));
  const files: InputFile[] = [];
  for (const path of new Set([...listed.map((file) => file.path), ...given])) {
    try {
      const { size, mtimeMs: modified } = await stat(path);
      const hash = hashes.get(keyOf({ path, size, modified })) ?? (await sha256File(path));
      files.push({ path, size, modified, sha256: hash });
    } catch (cause) {
      if (!isSystemError(cause)) throw cause;
      // Of a corpus it is counted when it is to be read.
      if (!given.includes(path)) continue;
      throw new UserError('input_missing', { where: path, what: cause.message, action: 'check the path', cause });
    }
  }
  return files;
}

/** What makes two plans give other data, in words. */
export function planDifference(before: Plan, now: Plan): string | undefined {
  const setting = firstDifference(before.settings, now.settings);
  if (setting) return setting;
  const hashes = new Map(before.files.map((file) => [file.path, file.sha256]));
  const changed = now.files.find((file) => hashes.get(file.path) !== file.sha256);
  if (changed) return `${changed.path} is ${hashes.has(changed.path) ? 'another file than before' : 'new'}`;
  return now.files.length === before.files.length ? undefined : 'input files were removed';
}

/** The first leaf where two JSON values differ, as `path changed from a to b`. */
function firstDifference(before: unknown, now: unknown, path = ''): string | undefined {
  const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
  if (isObject(before) && isObject(now)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
    for (const key of keys) {
      const difference = firstDifference(before[key], now[key], path === '' ? key : `${path}.${key}`);
      if (difference) return difference;
    }
    return undefined;
  }
  const [a, b] = [JSON.stringify(before), JSON.stringify(now)];
  return a === b ? undefined : `${path} changed from ${a ?? 'nothing'} to ${b ?? 'nothing'}`;
}
