/** Text corpora as a stream of documents. What cannot be used is counted by reason and named, never dropped silently. */

import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { SourceConfig } from '../config/schema.ts';
import { isSystemError, UserError } from '../errors.ts';

export interface Document {
  /** The record's own id, or `path:offset` (JSONL) or the path (text file). */
  id: string;
  title?: string;
  url?: string;
  text: string;
  /**
   * Where the record is: file, as reached from the configured path, and its place in it: the byte where it starts (of the
   * uncompressed text), in tables the number of the row.
   */
  source: { path: string; offset: number };
}

export type SkipReason =
  | 'invalid UTF-8'
  | 'invalid Unicode'
  | 'invalid JSON'
  | 'no text field'
  | 'empty text'
  | 'too short'
  | 'too long'
  | 'duplicate id';

export interface DataCounters {
  /** Documents handed on. */
  documents: number;
  /** UTF-8 bytes of their texts. */
  bytes: number;
  skipped: Partial<Record<SkipReason, number>>;
  /** The first few skipped records of each reason. */
  examples: { reason: SkipReason; path: string; offset: number; detail: string }[];
}

export interface ReadOptions {
  /** Documents with fewer characters (code units, white space at the ends not counted) are skipped. */
  minCharacters?: number;
  /** Skip documents whose id was met before; costs memory for every id. */
  uniqueIds?: boolean;
}

export interface SourceFile {
  path: string;
  format: SourceConfig['format'];
  source: SourceConfig;
}

const EXTENSIONS: Record<string, SourceFile['format']> = {
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.txt': 'text',
  '.md': 'text',
};
/** Longer records are skipped: a JavaScript string ends at half a gigabyte, and a record is held whole. */
const MAX_RECORD_BYTES = 256 * 2 ** 20;
const EXAMPLES_PER_REASON = 3;

export function newCounters(): DataCounters {
  return { documents: 0, bytes: 0, skipped: {}, examples: [] };
}

/** Counts a record that is not used; `detail` says more than the reason. */
export function countSkipped(
  counters: DataCounters,
  reason: SkipReason,
  at: Document['source'],
  detail: string = reason,
): void {
  const before = counters.skipped[reason] ?? 0;
  counters.skipped[reason] = before + 1;
  if (before < EXAMPLES_PER_REASON) counters.examples.push({ reason, path: at.path, offset: at.offset, detail });
}

/**
 * The files of `sources`, in the order of the configuration and inside a folder by name (code units). Folders are
 * walked; entries whose name starts with a dot and files of other extensions are left out.
 * @throws UserError input_missing, input_invalid (a file whose format cannot be told), input_empty (a folder without files)
 */
export async function listSourceFiles(sources: readonly SourceConfig[]): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for (const source of sources) {
    if ((await statOf(source.path)).isDirectory()) {
      const found = (await walk(source.path)).flatMap((path): SourceFile[] => {
        const format = EXTENSIONS[extname(path).toLowerCase()];
        return format && (source.format === 'auto' || source.format === format) ? [{ path, format, source }] : [];
      });
      if (found.length === 0) {
        const wanted = Object.keys(EXTENSIONS).filter(
          (e) => source.format === 'auto' || source.format === EXTENSIONS[e],
        );
        throw new UserError('input_empty', {
          where: source.path,
          what: `the folder holds no file named ${wanted.map((extension) => `*${extension}`).join(', ')}`,
          action: 'check the path and `format` of the source',
        });
      }
      files.push(...found);
    } else {
      files.push({ path: source.path, format: formatOf(source), source });
    }
  }
  return files;
}

async function statOf(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new UserError('input_missing', {
      where: path,
      what: error.code === 'ENOENT' ? 'no such file or folder' : error.message,
      action: 'check the path; relative paths are taken from the working directory',
      cause: error,
    });
  }
}

function formatOf(source: SourceConfig): SourceFile['format'] {
  if (source.format !== 'auto') return source.format;
  const format = EXTENSIONS[extname(source.path).toLowerCase()];
  if (format) return format;
  throw new UserError('input_invalid', {
    where: source.path,
    what: `the format cannot be told from the extension (known: ${Object.keys(EXTENSIONS).join(' ')})`,
    action: 'set `format: jsonl` or `format: text` on the source',
  });
}

async function walk(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();
  const paths: string[] = [];
  for (const name of names) {
    const path = join(folder, name);
    if ((await statOf(path)).isDirectory()) paths.push(...(await walk(path)));
    else paths.push(path);
  }
  return paths;
}

/**
 * Streams the documents of `sources` in a fixed order, one record in memory at a time, and counts them in `counters`.
 * @throws UserError as {@link listSourceFiles}; a record that cannot be used is counted instead
 */
export async function* readDocuments(
  sources: readonly SourceConfig[],
  counters: DataCounters,
  { minCharacters = 1, uniqueIds = false }: ReadOptions = {},
): AsyncGenerator<Document> {
  const ids = new Set<string>();
  for (const file of await listSourceFiles(sources)) {
    for await (const document of file.format === 'jsonl' ? readJsonl(file, counters) : readText(file, counters)) {
      const length = document.text.trim().length;
      if (length === 0) {
        countSkipped(counters, 'empty text', document.source);
      } else if (length < minCharacters) {
        countSkipped(counters, 'too short', document.source, `${length} characters`);
      } else if (/\p{Surrogate}/u.test(document.text)) {
        countSkipped(counters, 'invalid Unicode', document.source, 'half of a surrogate pair');
      } else if (ids.has(document.id)) {
        countSkipped(counters, 'duplicate id', document.source, document.id);
      } else {
        if (uniqueIds) ids.add(document.id);
        counters.documents += 1;
        counters.bytes += Buffer.byteLength(document.text);
        yield document;
      }
    }
  }
}

async function* readText({ path }: SourceFile, counters: DataCounters): AsyncGenerator<Document> {
  const source = { path, offset: 0 };
  const { size } = await statOf(path);
  if (size > MAX_RECORD_BYTES) {
    countSkipped(counters, 'too long', source, `${size} bytes; at most ${MAX_RECORD_BYTES} in one document`);
    return;
  }
  const text = decodeUtf8(await readFile(path));
  if (text === undefined) countSkipped(counters, 'invalid UTF-8', source);
  else yield { id: path, text, source };
}

async function* readJsonl({ path, source: config }: SourceFile, counters: DataCounters): AsyncGenerator<Document> {
  for await (const { offset, bytes } of readLines(path)) {
    const source = { path, offset };
    if (bytes === undefined) {
      countSkipped(counters, 'too long', source, `more than ${MAX_RECORD_BYTES} bytes in one line`);
      continue;
    }
    const line = decodeUtf8(bytes);
    if (line === undefined) {
      countSkipped(counters, 'invalid UTF-8', source);
      continue;
    }
    if (line.trim() === '') continue;
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (error) {
      countSkipped(counters, 'invalid JSON', source, error instanceof Error ? error.message : String(error));
      continue;
    }
    const fields: Record<string, unknown> = typeof row === 'object' && row !== null ? { ...row } : {};
    const text = fields[config.textField];
    if (typeof text !== 'string') {
      const found = Object.keys(fields).slice(0, 8).join(', ') || 'none';
      countSkipped(counters, 'no text field', source, `no string "${config.textField}"; fields: ${found}`);
      continue;
    }
    const id = fields[config.idField];
    const title = fields[config.titleField];
    yield {
      id: typeof id === 'string' || typeof id === 'number' ? String(id) : `${path}:${offset}`,
      ...(typeof title === 'string' && title !== '' ? { title } : {}),
      text,
      source,
    };
  }
}

/** Lines without their line feed, with byte offsets; `bytes` is undefined for a line above MAX_RECORD_BYTES. */
async function* readLines(path: string): AsyncGenerator<{ offset: number; bytes: Buffer | undefined }> {
  let parts: Buffer[] = [];
  let length = 0;
  let offset = 0;
  const add = (part: Buffer) => {
    length += part.length;
    if (length <= MAX_RECORD_BYTES) parts.push(part);
    else parts = [];
  };
  const line = () => ({ offset, bytes: length <= MAX_RECORD_BYTES ? Buffer.concat(parts) : undefined });
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 }) as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      add(chunk.subarray(start, end));
      yield line();
      offset += length + 1;
      start = end + 1;
      parts = [];
      length = 0;
    }
    add(chunk.subarray(start));
  }
  if (length > 0) yield line();
}

function decodeUtf8(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
