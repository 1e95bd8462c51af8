/** Bytes as text, in the encodings that collections of text come in. */

import { isUtf8 } from 'node:buffer';
import type { SourceConfig } from '../../config/schema.ts';

export type Encoding = SourceConfig['encoding'];

/** So many characters decide whether a text reads as Chinese. */
const SAMPLE = 65_536;

/**
 * The text of a file without its byte order mark, or undefined where the bytes are not of that encoding. `auto`: a byte
 * order mark decides; else UTF-8 where it is valid, GB 18030 where it is valid and most letters are Han characters, and
 * Windows-1252 where there is no zero byte, which text of one byte a character does not have.
 */
export function decodeText(bytes: Buffer, encoding: Encoding = 'auto'): string | undefined {
  if (encoding === 'auto') return detected(bytes);
  if (encoding === 'utf-8') return decodeUtf8(bytes);
  if (encoding === 'windows-1252') return decodeWindows1252(bytes);
  return decodeStrictly(bytes, encoding);
}

/** Without a byte order mark; undefined for bytes that are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  if (!isUtf8(bytes)) return undefined;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.toString('utf8', startsWith(bytes, 0xef, 0xbb, 0xbf) ? 3 : 0);
}

export function decodeWindows1252(bytes: Uint8Array): string {
  // Node's decoder of this name leaves out what differs from Latin-1.
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('latin1')
    .replace(/[\x80-\x9f]/g, (character) => WINDOWS_1252[character.charCodeAt(0) - 0x80]!);
}

/** Bytes 80 to 9f. */
const WINDOWS_1252 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

function detected(bytes: Buffer): string | undefined {
  if (startsWith(bytes, 0xff, 0xfe)) return decodeStrictly(bytes, 'utf-16le');
  if (startsWith(bytes, 0xfe, 0xff)) return decodeStrictly(bytes, 'utf-16be');
  const text = decodeUtf8(bytes);
  if (text !== undefined) return text;
  const chinese = decodeStrictly(bytes, 'gb18030');
  if (chinese !== undefined && readsAsChinese(chinese)) return chinese;
  return bytes.includes(0) ? undefined : decodeWindows1252(bytes);
}

function decodeStrictly(bytes: Buffer, encoding: string): string | undefined {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function readsAsChinese(text: string): boolean {
  const sample = text.slice(0, SAMPLE);
  const count = (pattern: RegExp) => sample.match(pattern)?.length ?? 0;
  return count(/\p{Script=Han}/gu) * 2 > count(/\p{L}/gu);
}

const startsWith = (bytes: Uint8Array, ...start: number[]) => start.every((byte, i) => bytes[i] === byte);
