/** Answers that a run has given, for whoever looks at it later. */

import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isSystemError } from '../errors.ts';
import { makeFolder } from '../io/files.ts';
import type { RunFolder } from '../io/run_folder.ts';
import type { Answer } from './generate.ts';

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
      const start = (await endsWithLine(file)) ? '' : '\n';
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

async function endsWithLine(file: Awaited<ReturnType<typeof open>>): Promise<boolean> {
  const { size } = await file.stat();
  const last = Buffer.alloc(1);
  return size === 0 || ((await file.read(last, 0, 1, size - 1)).bytesRead === 1 && last[0] === 0x0a);
}
