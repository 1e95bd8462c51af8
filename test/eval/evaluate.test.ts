import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { runSchema } from '../../src/config/schema.ts';
import { type EvaluationReport, evaluate, reportTable } from '../../src/eval/evaluate.ts';
import type { Question } from '../../src/eval/questions.ts';
import { generate } from '../../src/infer/generate.ts';
import { Session } from '../../src/infer/session.ts';
import { userErrorOf } from '../data/support.ts';
import { fact, randomRun, writeBank } from '../infer/random_run.ts';
import { filesOf } from '../memory/fixtures.ts';

let session: Session;
afterEach(() => session.close());

async function open(): Promise<void> {
  const run = await randomRun();
  await writeBank(run);
  run.model.dispose();
  session = await Session.open(run.config, run.folder);
}

/** Evaluates with these questions. */
async function evaluateWith(questions: readonly Question[]): Promise<{ report: EvaluationReport; said: string[] }> {
  const path = join(session.folder.root, 'questions.jsonl');
  writeFileSync(path, questions.map((question) => `${JSON.stringify(question)}\n`).join(''));
  const config = runSchema.parse({ ...session.config, evaluation: { questions: path, memoryCounts: [1, 3] } });
  Object.assign(session, { config });
  const said: string[] = [];
  return { report: await evaluate(session, (message) => said.push(message)), said };
}

/** What the random model says after the prompt, one token that is a character: a question it answers right. */
async function answeredQuestions(count: number): Promise<Question[]> {
  const questions: Question[] = [];
  for (let i = 0; i < 30 && questions.length < count; i++) {
    const prompt = fact(i).text.slice(0, 14);
    const { config } = session;
    const { text } = await generate(session, prompt, { ...config.generate, maxTokens: 1, seed: 1, memory: true });
    const tokens = await session.tokenizer.encode(text);
    if (text !== '' && !text.includes('\uFFFD') && tokens.length === 1)
      questions.push({ prompt, answer: text, reference: fact(i).id, edited: ' other.' });
  }
  return questions;
}

describe('evaluate', () => {
  it('scores every way of asking, and counts questions whose reference is not in the bank', async () => {
    await open();
    const questions = [0, 1, 2, 3].map((i) => {
      const { id, text } = fact(i);
      return { prompt: text.slice(0, 14), answer: text.slice(14), reference: i === 3 ? 'unknown' : id };
    });
    const { report, said } = await evaluateWith(questions);
    expect(report.heldOut.questions).toBe(3);
    expect(said.join()).toContain('1 questions left out');
    const { withMemory, withoutMemory, rag, retrieved, byMemories } = report.heldOut;
    for (const scores of Object.values(byMemories)) {
      expect(Object.keys(scores)).toEqual(['1', '3']);
      expect(scores[1]).toEqual(withMemory);
    }
    const losses = [withMemory, withoutMemory, rag, retrieved, byMemories.others[3], byMemories.nearest[3]].map(
      (score) => score!.loss,
    );
    expect(losses.every(Number.isFinite)).toBe(true);
    expect(new Set(losses).size).toBeGreaterThan(3);
    expect(report.retrieval.read).toBeGreaterThanOrEqual(report.retrieval.first);
    expect(report.retrieval.read).toBeGreaterThan(0);
  });

  it('edits facts and deletes others, and leaves the bank as it was', async () => {
    await open();
    const questions = await answeredQuestions(3);
    expect(questions.length).toBeGreaterThan(1);
    const before = await filesOf(session.folder.bank);
    const { report } = await evaluateWith(questions);
    const [edit] = report.edits;
    const [deletion] = report.deletions;
    expect(edit).toMatchObject({ prompt: questions[0]!.prompt, before: questions[0]!.answer });
    expect(edit!.memoryAfter).not.toBe(edit!.memoryBefore);
    expect(edit!.memoryAfter).toContain(' other.');
    expect(edit!.followed).toBe(edit!.after === ' other.');
    expect(deletion).not.toHaveProperty('memoryAfter');
    expect(deletion!.followed).toBe(deletion!.after !== deletion!.before);
    const changed = [...report.edits, ...report.deletions].map(({ prompt }) => prompt);
    expect(new Set(changed).size).toBe(changed.length);
    expect(questions.map(({ prompt }) => prompt)).toEqual(expect.arrayContaining(changed));
    expect(await filesOf(session.folder.bank)).toEqual(before);
    expect(session.bank.folder).toBe(session.folder.bank);
    const table = reportTable(report);
    expect(table).toContain('Facts edited in the bank');
    expect(table).toContain('Facts deleted from the bank');
    expect(table).toContain('the right one among 3');
  });

  it('says when there is nothing to ask', async () => {
    await open();
    expect(await userErrorOf(evaluate(session, () => {}))).toMatchObject({ code: 'config_invalid' });
    const unknown = evaluateWith([{ prompt: 'a', answer: 'b', reference: 'unknown' }]);
    expect(await userErrorOf(unknown)).toMatchObject({ code: 'input_invalid' });
  });
});
