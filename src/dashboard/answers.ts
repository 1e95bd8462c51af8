/** Generated answers and the memories that each of their chunks read. */

import { setImmediate } from 'node:timers/promises';
import { z } from 'zod';
import { rowOf } from '../tracking/values.ts';
import type { AnswerDetail, AnswerSummary } from './api.ts';
import { Refused } from './refused.ts';
import { LONGEST_LINE, linesIn } from './rows.ts';
import { RunFile } from './run_file.ts';
import type { Run } from './runs.ts';

/** Answers are looked for in so many bytes at the end of the file. */
const MOST_BYTES = 64 * 2 ** 20;
/** The lines of a larger file are not counted. */
const LARGEST_FILE = 2 ** 29;

const memorySchema = z.object({
  id: z.string(),
  document: z.string(),
  title: z.string(),
  text: z.string(),
  score: z.number(),
  share: z.number(),
  keptTokens: z.array(z.string()),
});

/** A row of `metrics/answers.jsonl`. */
const answerSchema = z.object({
  time: z.number(),
  prompt: z.string(),
  text: z.string(),
  trace: z.array(z.object({ text: z.string(), memories: z.array(memorySchema) })),
});

/** The newest first. A line that is no answer is left out. Long ones take a while, in which others are answered. */
export async function newestAnswers(run: Run, limit: number): Promise<AnswerSummary[]> {
  return await withAnswers(run, async (lines) => {
    const answers: AnswerSummary[] = [];
    for (let i = lines.length - 1; i >= 0 && answers.length < limit; i--) {
      const answer = lines[i]!.read();
      await setImmediate();
      if (answer === undefined) continue;
      const { trace: _, ...summary } = answer;
      answers.push(summary);
    }
    return answers;
  });
}

/** @throws Refused 404 when there is no such answer */
export async function answerDetail(run: Run, number: number): Promise<AnswerDetail> {
  return await withAnswers(run, async (lines) => {
    const answer = lines.find((line) => line.number === number)?.read();
    if (answer === undefined) throw new Refused(404, 'answer_unknown', 'there is no such answer');
    return answer;
  });
}

interface AnswerLine {
  /** Its line in the file, from 0. */
  number: number;
  read(): AnswerDetail | undefined;
}

async function withAnswers<T>(run: Run, work: (lines: AnswerLine[]) => Promise<T>): Promise<T> {
  const file = RunFile.open(run.folder.answers, run.within);
  if (file === undefined) return await work([]);
  try {
    return await work(await answerLines(file));
  } finally {
    file.close();
  }
}

/** The lines of the file, of which the last ones are within reach. */
async function answerLines(file: RunFile): Promise<AnswerLine[]> {
  if (file.size > LARGEST_FILE)
    throw new Refused(413, 'too_large', `answers.jsonl is larger than ${LARGEST_FILE} bytes`);
  const step = 2 ** 20;
  const lines: AnswerLine[] = [];
  const first = file.size - MOST_BYTES;
  let [number, start] = [0, 0];
  for (let at = 0; at < file.size; at += step) {
    await setImmediate();
    for (const { end } of linesIn(file.read(at, step))) {
      const [from, length] = [start, at + end - start];
      const place = number++;
      start = at + end + 1;
      if (from >= first && length <= LONGEST_LINE)
        lines.push({ number: place, read: () => answerAt(file, place, from, length) });
    }
  }
  return lines;
}

function answerAt(file: RunFile, number: number, from: number, length: number): AnswerDetail | undefined {
  const parsed = answerSchema.safeParse(rowOf(file.read(from, length).toString('utf8')));
  if (!parsed.success) return undefined;
  const ids = new Set(parsed.data.trace.flatMap(({ memories }) => memories.map(({ id }) => id)));
  return { number, memories: ids.size, ...parsed.data };
}
