/** What the readers of all formats share. */

import type { SourceConfig } from '../../config/schema.ts';
import type { OnBytes } from './bytes.ts';
import { decodeUtf8 } from './encoding.ts';
import type { SourceFile } from './files.ts';
import { excerptOf, MAX_RECORD_BYTES, type Report } from './problem.ts';

export interface Document {
  /** The record's own id, or `path:offset` (a record of several in a file) or the path (text file). */
  id: string;
  title?: string;
  url?: string;
  text: string;
  /**
   * Where the record is: file, as reached from the configured path, and its place in it: the byte where it starts (of the
   * uncompressed text), in tables the number of the row, from 0.
   */
  source: { path: string; offset: number };
}

/**
 * The documents of a file; records that cannot be used are reported.
 * @throws BrokenFile where the file cannot be read on
 */
export type Reader = (file: SourceFile, report: Report, onBytes?: OnBytes) => AsyncGenerator<Document>;

/** A document of a record whose fields are named by the source. */
export function documentOf(
  text: string,
  fields: { id: unknown; title: unknown; url: unknown },
  source: Document['source'],
): Document {
  const { id, title, url } = fields;
  return {
    id: isId(id) ? String(id) : `${source.path}:${source.offset}`,
    ...(isText(title) ? { title } : {}),
    ...(isText(url) ? { url } : {}),
    text,
    source,
  };
}

/** Values of a row as a table's decoder gives them: the bytes of a text, or a number. */
export interface RowValues {
  text: unknown;
  id: unknown;
  title: unknown;
  url: unknown;
}

/** The document of a row of a table; undefined, and reported, when it has none. */
export function rowDocument(
  { text: bytes, id, title, url }: RowValues,
  at: Document['source'],
  { textField }: SourceConfig,
  report: Report,
): Document | undefined {
  const text = asText(bytes);
  if (!(bytes instanceof Uint8Array)) {
    report({ ...at, reason: 'no text field', detail: `"${textField}" is null` });
  } else if (bytes.length > MAX_RECORD_BYTES) {
    const detail = `${bytes.length} bytes; at most ${MAX_RECORD_BYTES} in one document`;
    report({ ...at, reason: 'too long', detail });
  } else if (typeof text !== 'string') {
    report({ ...at, reason: 'invalid UTF-8', excerpt: excerptOf(Buffer.from(bytes)) });
  } else {
    return documentOf(text, { id: asText(id), title: asText(title), url: asText(url) }, at);
  }
  return undefined;
}

const asText = (value: unknown) => (value instanceof Uint8Array ? decodeUtf8(value) : value);

/** What is said of a record, or a table, without text. */
export function noText({ textField }: SourceConfig, found: readonly string[]): string {
  return `no string "${textField}"; fields: ${found.slice(0, 8).join(', ') || 'none'}`;
}

const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';
const isId = (value: unknown) => isText(value) || typeof value === 'number' || typeof value === 'bigint';
