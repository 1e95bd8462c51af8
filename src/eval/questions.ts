/** Questions about facts, read from a JSONL file: `{prompt, answer, reference, edited?}`. */

import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { isSystemError, UserError } from '../errors.ts';

const questionSchema = z.strictObject({
  /** Text before the answer. */
  prompt: z.string().min(1),
  /** The answer as it goes on from the prompt, its end mark included. */
  answer: z.string().min(1),
  /** Id of the document whose reference holds the answer. */
  reference: z.string().min(1),
  /** Another answer that the fact is edited to in the demonstration. */
  edited: z.string().min(1).optional(),
});
export type Question = z.infer<typeof questionSchema>;

/**
 * Reads at most `limit` questions.
 * @throws UserError input_missing, input_invalid naming the line, input_empty
 */
export async function readQuestions(path: string, limit: number): Promise<Question[]> {
  const questions: Question[] = [];
  let line = 0;
  try {
    for await (const text of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
      line++;
      if (text.trim() !== '') questions.push(parseQuestion(text, `${path}:${line}`));
      if (questions.length === limit) break;
    }
  } catch (error) {
    if (!isSystemError(error)) throw error;
    const missing = error.code === 'ENOENT';
    throw new UserError(missing ? 'input_missing' : 'input_invalid', {
      where: path,
      what: missing ? 'the file does not exist' : `it cannot be read (${error.code})`,
      action: 'check evaluation.questions',
    });
  }
  if (questions.length === 0) throw new UserError('input_empty', { where: path, what: 'it holds no question' });
  return questions;
}

function parseQuestion(text: string, where: string): Question {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (cause) {
    throw new UserError('input_invalid', { where, what: 'the line is not JSON', action: 'correct the line', cause });
  }
  const parsed = questionSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const what = z.prettifyError(parsed.error).replaceAll('\n', ' ');
  throw new UserError('input_invalid', { where, what, action: 'a question is {prompt, answer, reference, edited?}' });
}
