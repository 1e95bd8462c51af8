/** Generated answers and the memories that each of their chunks read. */

import { z } from 'zod';
import type { AnswerDetail, AnswerSummary } from './api.ts';
import { Refused } from './refused.ts';
import { LONGEST_LINE, linesIn, rowOf } from './rows.ts';
import { type RunFile, withFile } from './run_file.ts';
import type { Run } from './runs.ts';

/** Answers are looked for in so many bytes at the end of the file. */
const MOST_BYTES = 64 * 2 ** 20;

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

/** The newest first. A line that is no answer is left out. */
export function newestAnswers(run: Run, limit: number): AnswerSummary[] {
  return withAnswers(run, (lines) => {
    const answers: AnswerSummary[] = [];
    for (let i = lines.length - 1; i >= 0 && answers.length < limit; i--) {
      const answer = lines[i]!.read();
      if (answer === undefined) continue;
      const { trace: _, ...summary } = answer;
      answers.push(summary);
    }
    return answers;
  });
}

/** @throws Refused 404 when there is no such answer */
export function answerDetail(run: Run, number: number): AnswerDetail {
  return withAnswers(run, (lines) => {
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

function withAnswers<T>(run: Run, work: (lines: AnswerLine[]) => T): T {
  return withFile(run.folder.answers, run.within, (file) => work(answerLines(file))) ?? work([]);
}

/** The lines of the file, of which the last ones are within reach. */
function answerLines(file: RunFile): AnswerLine[] {
  const step = 2 ** 20;
  const lines: AnswerLine[] = [];
  const first = file.size - MOST_BYTES;
  let [number, start] = [0, 0];
  for (let at = 0; at < file.size; at += step) {
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
