/** Answers that a run has given, for whoever looks at it later. */

import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSystemError } from '../errors.ts';
import { endsWithLine, makeFolder } from '../io/files.ts';
import type { RunFolder } from '../io/run_folder.ts';
import type { Answer } from './generate.ts';

/** Looks for a whole line at the end, and milliseconds between them: each may meet another process that writes. */
const LOOKS = { count: 8, apart: 10 };

/** One line of `metrics/answers.jsonl`. */
export interface RecordedAnswer extends Pick<Answer, 'text' | 'trace'> {
  /** Seconds since 1970. */
  time: number;
  prompt: string;
}

/**
 * Adds an answer to those of the run. It takes no lock: a line is one write at the end of the file, so that lines of several
 * processes do not mix.
 * @returns false when the run cannot be written to, which is no fault of the answer
 */
export async function recordAnswer(
  folder: RunFolder,
  { prompt, text, trace }: Omit<RecordedAnswer, 'time'>,
): Promise<boolean> {
  const answer: RecordedAnswer = { time: Date.now() / 1000, prompt, text, trace };
  try {
    await makeFolder(dirname(folder.answers));
    const file = await open(folder.answers, 'a+');
    try {
      // What a full disk has cut short is a line of its own.
      const start = (await endsWithWholeLine(file)) ? '' : '\n';
      await file.write(`${start}${JSON.stringify(answer)}\n`);
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    // An error of the disk comes in words of its own, with the system's as its cause.
    if (isSystemError(error) || (error instanceof Error && isSystemError(error.cause))) return false;
    throw error;
  }
}

/** Another process may be in the middle of its write: then its line is whole a moment later. */
async function endsWithWholeLine(file: FileHandle): Promise<boolean> {
  for (let look = 0; look < LOOKS.count; look++) {
    if (await endsWithLine(file)) return true;
    await sleep(LOOKS.apart);
  }
  return false;
}
