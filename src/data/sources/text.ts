/** Text files: a document each. */

import { type OnBytes, readBytes } from './bytes.ts';
import { decodeText } from './encoding.ts';
import type { SourceFile } from './files.ts';
import { BrokenFile, excerptOf, MAX_RECORD_BYTES, type Report } from './problem.ts';
import type { Document } from './reader.ts';

/** @throws BrokenFile */
export async function* readText(file: SourceFile, report: Report, onBytes?: OnBytes): AsyncGenerator<Document> {
  const { path, source: config } = file;
  const source = { path, offset: 0 };
  const parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of readBytes(file, onBytes)) {
    length += chunk.length;
    parts.push(chunk);
    if (length > MAX_RECORD_BYTES) {
      const detail = `more than ${MAX_RECORD_BYTES} bytes in one document; split the file, or make it JSONL`;
      report({ ...source, reason: 'too long', detail, excerpt: excerptOf(parts[0]!) });
      return;
    }
  }
  if (length === 0) throw new BrokenFile('empty file', 0);
  const bytes = Buffer.concat(parts);
  const text = decodeText(bytes, config.encoding);
  if (text !== undefined) {
    yield { id: path, text, source };
  } else if (config.encoding === 'utf-8') {
    report({ ...source, reason: 'invalid UTF-8', excerpt: excerptOf(bytes) });
  } else {
    const detail = config.encoding === 'auto' ? 'neither UTF-8 nor another encoding of text' : `not ${config.encoding}`;
    report({ ...source, reason: 'unknown encoding', detail });
  }
}
