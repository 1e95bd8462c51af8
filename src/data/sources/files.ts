/** The files of the sources: by extension, folders in the order of names. */

import type { Stats } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { SourceConfig } from '../../config/schema.ts';
import { isSystemError, UserError } from '../../errors.ts';
import type { Problem, Report } from './problem.ts';

export type Format = Exclude<SourceConfig['format'], 'auto'>;
export type Compression = 'none' | 'gzip' | 'zstd';

export interface SourceFile {
  path: string;
  format: Format;
  compression: Compression;
  source: SourceConfig;
}

const EXTENSIONS: Record<string, Format> = {
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.json': 'jsonl',
  '.txt': 'text',
  '.text': 'text',
  '.md': 'text',
  '.markdown': 'text',
  '.rst': 'text',
  '.adoc': 'text',
  '.tex': 'text',
  '.parquet': 'parquet',
  '.arrow': 'arrow',
  '.arrows': 'arrow',
  '.feather': 'arrow',
  '.ipc': 'arrow',
};
const COMPRESSIONS: Record<string, Compression> = { '.gz': 'gzip', '.zst': 'zstd' };
const COMPRESSIBLE: readonly Format[] = ['jsonl', 'text'];

/**
 * The files of `sources`, in the order of the configuration and inside a folder by name (code units). Folders are
 * walked through links; entries whose name starts with a dot and files of other extensions are left out, of the format
 * `auto` plain `.json` as well, since in a folder that is rarely a corpus. What is not there or cannot be opened is reported.
 * @throws UserError input_invalid (a file whose format cannot be told), input_empty (a folder without files)
 */
export async function findFiles(sources: readonly SourceConfig[], report: Report): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for (const source of sources) {
    let problems = 0;
    const counted: Report = (problem) => {
      problems += 1;
      report(problem);
    };
    const stats = await attempt(source.path, counted, () => stat(source.path));
    if (stats?.isDirectory()) {
      const before = files.length;
      for await (const path of walk(source.path, [], counted)) {
        const file = ofFolder(path, source);
        if (file) files.push(file);
      }
      if (files.length === before && problems === 0) throw emptyFolder(source);
    } else if (stats && isRegular(source.path, stats, counted)) {
      files.push(named(source));
    }
  }
  return files;
}

/** Runs `work`; an error of the operating system becomes a problem of `path`, and undefined. */
async function attempt<T>(path: string, report: Report, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!isSystemError(error)) throw error;
    report(systemProblem(path, error));
    return undefined;
  }
}

export function systemProblem(path: string, error: NodeJS.ErrnoException): Problem {
  const at = { path, offset: 0 };
  if (error.code === 'ENOENT') return { ...at, reason: 'no such file', detail: 'no such file or folder' };
  if (error.code === 'ELOOP') return { ...at, reason: 'loop of links', detail: 'a link that leads to itself' };
  return { ...at, reason: 'cannot be opened', detail: error.message };
}

/** Pipes and devices cannot be read twice, and opening a pipe may wait for ever. */
function isRegular(path: string, stats: Stats, report: Report): boolean {
  if (!stats.isFile()) {
    report({ reason: 'cannot be opened', path, offset: 0, detail: 'neither a file nor a folder' });
  }
  return stats.isFile();
}

/** Files below `folder`; `above` are the real paths of the folders that lead to it. */
async function* walk(folder: string, above: readonly string[], report: Report): AsyncGenerator<string> {
  const here = await attempt(folder, report, () => realpath(folder));
  if (here === undefined) return;
  if (above.includes(here)) {
    report({ reason: 'loop of links', path: folder, offset: 0, detail: `leads back to ${here}` });
    return;
  }
  const entries = (await attempt(folder, report, () => readdir(folder, { withFileTypes: true }))) ?? [];
  const names = new Map(entries.map((entry) => [entry.name, entry]));
  for (const name of [...names.keys()].sort()) {
    if (name.startsWith('.')) continue;
    const path = join(folder, name);
    const entry = names.get(name)!;
    if (entry.isFile()) {
      yield path;
      continue;
    }
    const stats = entry.isDirectory() ? entry : await attempt(path, report, () => stat(path));
    if (stats?.isDirectory()) yield* walk(path, [...above, here], report);
    else if (stats?.isFile()) yield path;
    else if (stats && formatOf(path).format) isRegular(path, stats as Stats, report);
  }
}

function formatOf(path: string): { format?: Format; compression: Compression } {
  const last = extname(path).toLowerCase();
  const compression = COMPRESSIONS[last] ?? 'none';
  if (compression === 'none') return { format: EXTENSIONS[last], compression };
  const format = EXTENSIONS[extname(path.slice(0, -last.length)).toLowerCase()];
  return { format: format && COMPRESSIBLE.includes(format) ? format : undefined, compression };
}

function ofFolder(path: string, source: SourceConfig): SourceFile | undefined {
  const { format, compression } = formatOf(path);
  if (!format || (source.format !== 'auto' && source.format !== format)) return undefined;
  if (source.format === 'auto' && extname(path).toLowerCase() === '.json') return undefined;
  return { path, format, compression, source };
}

/** The file that `source` names itself. @throws UserError input_invalid */
function named(source: SourceConfig): SourceFile {
  const { path } = source;
  const { format, compression } = formatOf(path);
  if (source.format !== 'auto') {
    return {
      path,
      format: source.format,
      compression: COMPRESSIBLE.includes(source.format) ? compression : 'none',
      source,
    };
  }
  if (format) return { path, format, compression, source };
  throw new UserError('input_invalid', {
    where: path,
    what: `the format cannot be told from the extension (known: ${Object.keys(EXTENSIONS).join(' ')}; JSONL and text also with .gz, .zst)`,
    action: 'set `format` of the source: jsonl, text, parquet or arrow',
  });
}

function emptyFolder({ path, format }: SourceConfig): UserError {
  const wanted = Object.keys(EXTENSIONS).filter((e) => format === 'auto' || format === EXTENSIONS[e]);
  return new UserError('input_empty', {
    where: path,
    what: `the folder holds no file named ${wanted.map((extension) => `*${extension}`).join(', ')}`,
    action: 'check the path and `format` of the source',
  });
}
