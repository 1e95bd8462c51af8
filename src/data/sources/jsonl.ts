/** JSON Lines: a JSON object a line, in UTF-8. */

import { type OnBytes, readBytes } from './bytes.ts';
import { decodeUtf8 } from './encoding.ts';
import type { SourceFile } from './files.ts';
import { BrokenFile, excerptOf, MAX_RECORD_BYTES, type Report } from './problem.ts';
import { type Document, documentOf, noText } from './reader.ts';

interface Line {
  /** Byte where it begins. */
  offset: number;
  /** Without its line feed; of a line above MAX_RECORD_BYTES only the beginning. */
  bytes: Buffer;
  tooLong: boolean;
}

const BEGINNING = 1024;

/** @throws BrokenFile */
export async function* readJsonl(file: SourceFile, report: Report, onBytes?: OnBytes): AsyncGenerator<Document> {
  for await (const lines of readLines(file, onBytes)) {
    for (const line of lines) {
      const document = documentOfLine(line, file, report);
      if (document) yield document;
    }
  }
}

function documentOfLine({ offset, bytes, tooLong }: Line, file: SourceFile, report: Report): Document | undefined {
  const { path, source: config } = file;
  const at = { path, offset };
  if (tooLong) {
    const detail = `more than ${MAX_RECORD_BYTES} bytes in one line`;
    report({ ...at, reason: 'too long', detail, excerpt: excerptOf(bytes) });
    return undefined;
  }
  const line = decodeUtf8(bytes);
  if (line === undefined) {
    report({ ...at, reason: 'invalid UTF-8', excerpt: excerptOf(bytes) });
    return undefined;
  }
  if (line.trim() === '') return undefined;
  const row = parse(line);
  if (row instanceof SyntaxError) {
    report({ ...at, reason: 'invalid JSON', detail: row.message, excerpt: excerptOf(line) });
    return undefined;
  }
  const fields = (typeof row === 'object' && row !== null ? row : {}) as Record<string, unknown>;
  const own = (name: string) => (Object.hasOwn(fields, name) ? fields[name] : undefined);
  const text = own(config.textField);
  if (typeof text !== 'string') {
    const detail = noText(config, Object.keys(fields));
    report({ ...at, reason: 'no text field', detail, excerpt: excerptOf(line) });
    return undefined;
  }
  return documentOf(text, { id: own(config.idField), title: own(config.titleField), url: own(config.urlField) }, at);
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    if (error instanceof SyntaxError) return error;
    throw error;
  }
}

/** The lines of a file, those that end in one chunk together; what a damaged file holds after its last line feed is not one. */
async function* readLines(file: SourceFile, onBytes?: OnBytes): AsyncGenerator<Line[]> {
  let parts: Buffer[] = [];
  let length = 0;
  let offset = 0;
  const add = (part: Buffer) => {
    if (length + part.length <= MAX_RECORD_BYTES) parts.push(part);
    else if (length <= MAX_RECORD_BYTES) parts = [Buffer.from((parts[0] ?? part).subarray(0, BEGINNING))];
    length += part.length;
  };
  const take = (): Line => {
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    const line = { offset, bytes, tooLong: length > MAX_RECORD_BYTES };
    offset += length + 1;
    parts = [];
    length = 0;
    return line;
  };
  for await (const chunk of readBytes(file, onBytes)) {
    const lines: Line[] = [];
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      add(chunk.subarray(start, end));
      lines.push(take());
      start = end + 1;
    }
    add(chunk.subarray(start));
    yield lines;
  }
  if (length > 0) yield [take()];
  else if (offset === 0) throw new BrokenFile('empty file', 0);
}
