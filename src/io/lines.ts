/** Lines of a file, streamed. */

import { createReadStream } from 'node:fs';
import { isSystemError } from '../errors.ts';

const READ_BYTES = 1 << 18;
const NEWLINE = 0x0a;

/**
 * The complete lines of a file, without their line breaks, each with the byte behind its line break. Half a line at the end is
 * left out; a file that does not exist has no lines.
 */
export async function* completeLines(path: string): AsyncGenerator<{ bytes: Buffer; end: number }> {
  let rest: Buffer = Buffer.alloc(0);
  let end = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES })) {
      const bytes = Buffer.concat([rest, chunk as Buffer]);
      let start = 0;
      for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, start)) {
        end += at + 1 - start;
        yield { bytes: bytes.subarray(start, at), end };
        start = at + 1;
      }
      rest = bytes.subarray(start);
    }
  } catch (error) {
    if (!isSystemError(error) || error.code !== 'ENOENT') throw error;
  }
}
