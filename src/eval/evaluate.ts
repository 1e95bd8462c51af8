/** What the bank is worth: answers about facts that stand in no training text, only in the bank. */

import type { RunConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { type Answer, generate } from '../infer/generate.ts';
import { deleteKnowledge, editKnowledge, withBankCopy } from '../infer/knowledge.ts';
import type { Session } from '../infer/session.ts';
import { cutChunks, type Found } from '../memory/retrieve.ts';
import { type EncodedQuestion, type Score, scoreAnswers } from './answers.ts';
import { type Question, readQuestions } from './questions.ts';

/** A question before and after a change to the bank. */
export interface ChangedAnswer {
  prompt: string;
  /** Reference text before and after; absent after deletion. */
  memoryBefore: string;
  memoryAfter?: string;
  before: string;
  after: string;
  /** Whether the answer follows the change: the new one after an edit, no longer the old one after a deletion. */
  followed: boolean;
}

export interface EvaluationReport {
  heldOut: {
    questions: number;
    /** Reading the one right memory. */
    withMemory: Score;
    /** Plain text, no memory. */
    withoutMemory: Score;
    /** The reference as text in front of the question. */
    rag: Score;
    /** Reading what the retriever found, as `ask` does. */
    retrieved: Score;
    /**
     * Reading the right memory among so many. `others`: the rest are those of the questions before, as in a text whose
     * chunks speak of one thing after another (paper §3.5); `nearest`: they are the nearest wrong ones.
     */
    byMemories: Record<'others' | 'nearest', Record<string, Score>>;
  };
  /** Share of questions whose right memory was found first, and among those that a chunk reads. */
  retrieval: { first: number; read: number };
  /** Facts that were answered right, each changed in a copy of the bank. */
  edits: ChangedAnswer[];
  deletions: ChangedAnswer[];
}

/** A question with what it can be asked with. */
export interface Case {
  question: Question;
  prompt: Int32Array;
  answer: Int32Array;
  /** The right memory and its text. */
  memory: string;
  referenceText: string;
  /** Nearest memories of the prompt. */
  nearest: readonly Found[];
}

/**
 * Asks the questions of `evaluation.questions` in every way, then edits some facts and deletes others in a copy of the
 * bank.
 */
export async function evaluate(session: Session, say: (message: string) => void): Promise<EvaluationReport> {
  const questions = await configuredQuestions(session.config);
  const cases = await prepareCases(session, questions);
  const missing = questions.length - cases.length;
  if (cases.length === 0) {
    throw new UserError('input_invalid', {
      where: session.config.evaluation.questions,
      what: 'the bank holds the reference of no question',
      action: 'a question names in `reference` the id of a document in data.references',
    });
  }
  if (missing > 0) say(`evaluation: ${missing} questions left out, their references are not in the bank`);
  const heldOut = await scoreHeldOut(session, cases);
  const retrieval = retrievalScores(cases, session.config);
  return { heldOut, retrieval, ...(await demonstrateChanges(session, cases)) };
}

/** @throws UserError config_invalid when no file of questions is named; what `readQuestions` throws */
export async function configuredQuestions({ evaluation }: RunConfig): Promise<Question[]> {
  if (evaluation.questions !== undefined) return await readQuestions(evaluation.questions, evaluation.maxQuestions);
  throw new UserError('config_invalid', {
    where: 'evaluation.questions',
    what: 'no file of questions is named',
    action: 'give one, or use `memory3 ask`',
  });
}

async function prepareCases(session: Session, questions: readonly Question[]): Promise<Case[]> {
  const { tokenizer, bank, retriever } = session;
  const wanted = new Set(questions.map(({ reference }) => reference));
  const memoriesOf = new Map<string, Piece[]>();
  for await (const { id, document, text } of bank.list()) {
    if (wanted.has(document)) memoriesOf.set(document, [...(memoriesOf.get(document) ?? []), { id, text }]);
  }
  const known = questions.filter(({ reference }) => memoriesOf.has(reference));
  const prompts = await tokenizer.encodeBatch(known.map(({ prompt }) => prompt));
  const answers = await tokenizer.encodeBatch(known.map(({ answer }) => answer));
  const asked = prompts.map((ids) => Int32Array.of(tokenizer.bos, ...ids));
  // As in answering, the query is the chunk in which the prompt ends.
  const queries = asked.map((ids) => cutChunks(ids, session.config.memory.chunkLength).at(-1) ?? ids);
  const found = await retriever.search(queries, nearestCount(session.config));
  return known.map((question, i) => {
    const { id, text } = pieceWithAnswer(question, memoriesOf.get(question.reference) ?? []);
    return { question, prompt: asked[i]!, answer: answers[i]!, memory: id, referenceText: text, nearest: found[i]! };
  });
}

/** One memory of a document. */
interface Piece {
  id: string;
  text: string;
}

/** The memory of a document that says the answer; a document longer than a reference has several. */
function pieceWithAnswer({ prompt, answer }: Question, pieces: readonly Piece[]): Piece {
  const says = (text: string) => pieces.find((piece) => piece.text.includes(text));
  return says(prompt + answer) ?? says(answer) ?? pieces[0]!;
}

function nearestCount({ evaluation, memory }: RunConfig): number {
  return Math.max(memory.memoriesPerChunk, ...evaluation.memoryCounts) + 1;
}

async function scoreHeldOut(session: Session, cases: readonly Case[]): Promise<EvaluationReport['heldOut']> {
  const { config, tokenizer } = session;
  const reading = (memories: (item: Case) => readonly string[]): Promise<Score> =>
    scoreAnswers(
      session,
      cases.map((item) => ({ ...item, memories: memories(item) })),
    );
  const plain = (item: Case): EncodedQuestion => ({ prompt: item.prompt, answer: item.answer });
  const texts = cases.map(
    ({ referenceText, question }) => referenceText + config.evaluation.ragSeparator + question.prompt,
  );
  const withText = (await tokenizer.encodeBatch(texts)).map((ids, i) => ({
    prompt: Int32Array.of(tokenizer.bos, ...ids),
    answer: cases[i]!.answer,
  }));
  const byMemories: EvaluationReport['heldOut']['byMemories'] = { others: {}, nearest: {} };
  for (const count of config.evaluation.memoryCounts) {
    byMemories.others[count] = await reading((item) => amongOthers(cases, item, count));
    byMemories.nearest[count] = await reading((item) => amongNearest(item, count));
  }
  return {
    questions: cases.length,
    withMemory: await reading(({ memory }) => [memory]),
    withoutMemory: await scoreAnswers(session, cases.map(plain)),
    rag: await scoreAnswers(session, withText),
    retrieved: await reading(({ nearest }) => nearest.slice(0, config.memory.memoriesPerChunk).map(({ id }) => id)),
    byMemories,
  };
}

/** The right memory and the nearest wrong ones, `count` in all. */
function amongNearest({ memory, nearest }: Case, count: number): string[] {
  const wrong = nearest.map(({ id }) => id).filter((id) => id !== memory);
  return [memory, ...wrong.slice(0, count - 1)];
}

/** The right memory and those of the questions before, `count` in all while there are so many different ones. */
function amongOthers(cases: readonly Case[], item: Case, count: number): string[] {
  const ids = new Set([item.memory]);
  const at = cases.indexOf(item);
  for (let back = 1; back < cases.length && ids.size < count; back++) {
    ids.add(cases[(at - back + cases.length) % cases.length]!.memory);
  }
  return [...ids];
}

function retrievalScores(cases: readonly Case[], { memory }: RunConfig): EvaluationReport['retrieval'] {
  const within = (count: number): number =>
    cases.filter((item) => item.nearest.slice(0, count).some(({ id }) => id === item.memory)).length / cases.length;
  return { first: within(1), read: within(memory.memoriesPerChunk) };
}

/** Facts that are edited, and facts that are deleted. */
const CHANGES = 10;

/** Edits some known facts and deletes others in a copy of the bank, asking before and after. */
async function demonstrateChanges(
  session: Session,
  cases: readonly Case[],
): Promise<Pick<EvaluationReport, 'edits' | 'deletions'>> {
  const known = await answeredRight(session, cases, 2 * CHANGES);
  const editable = known.filter(({ question }) => question.edited !== undefined);
  const toEdit = editable.slice(0, Math.min(CHANGES, Math.ceil(known.length / 2)));
  const toDelete = known.filter((item) => !toEdit.includes(item)).slice(0, CHANGES);
  const changes = { edits: [] as ChangedAnswer[], deletions: [] as ChangedAnswer[] };
  if (known.length === 0) return changes;
  await withBankCopy(session, async () => {
    for (const item of toEdit) changes.edits.push(await changed(session, item, editedText(item)));
    for (const item of toDelete) changes.deletions.push(await changed(session, item, undefined));
  });
  return changes;
}

/** The first questions that are answered right now, each of another memory. */
async function answeredRight(session: Session, cases: readonly Case[], count: number): Promise<Case[]> {
  const chosen: Case[] = [];
  for (const item of cases) {
    if (chosen.length === count) break;
    if (chosen.some(({ memory }) => memory === item.memory)) continue;
    if ((await ask(session, item)).text === item.question.answer) chosen.push(item);
  }
  return chosen;
}

async function changed(session: Session, item: Case, text: string | undefined): Promise<ChangedAnswer> {
  const before = (await ask(session, item)).text;
  if (text === undefined) await deleteKnowledge(session, [item.memory]);
  else await editKnowledge(session, item.memory, text);
  const after = (await ask(session, item)).text;
  const { prompt, edited } = item.question;
  const memories = { memoryBefore: item.referenceText, ...(text !== undefined && { memoryAfter: text }) };
  return { prompt, ...memories, before, after, followed: text === undefined ? after !== before : after === edited };
}

/** The reference with the other answer: replaced behind as much of the prompt as stands in front of it there. */
export function editedText({ question, referenceText }: Pick<Case, 'question' | 'referenceText'>): string {
  const { prompt, answer, edited = answer } = question;
  for (let start = 0; start <= prompt.length; start++) {
    const before = prompt.slice(start);
    if (referenceText.includes(before + answer)) return referenceText.replace(before + answer, before + edited);
  }
  return prompt + edited;
}

/** Greedy decoding as long as the answer that is expected. */
function ask(session: Session, { question, answer }: Case): Promise<Answer> {
  const { config } = session;
  const options = { ...config.generate, temperature: 0, maxTokens: answer.length, seed: config.seed, memory: true };
  return generate(session, question.prompt, options);
}

/** The report as a table for a terminal. */
export function reportTable({ heldOut, retrieval, edits, deletions }: EvaluationReport): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`.padStart(9);
  const row = (name: string, { accuracy, loss }: Score): string =>
    `  ${name.padEnd(46)}${percent(accuracy)}${loss.toFixed(3).padStart(10)}`;
  const among = (kind: 'others' | 'nearest', name: string): string[] =>
    Object.entries(heldOut.byMemories[kind])
      .filter(([count]) => count !== '1')
      .map(([count, score]) => row(`the right one among ${count}, ${name}`, score));
  const lines = [
    `Facts that stand in no training text (${heldOut.questions} questions)`,
    `  ${''.padEnd(46)}${'answered'.padStart(9)}${'loss'.padStart(10)}`,
    row('with the right memory', heldOut.withMemory),
    ...among('others', 'others of other chunks'),
    ...among('nearest', 'others nearest'),
    row('with what retrieval finds', heldOut.retrieved),
    row('without memory', heldOut.withoutMemory),
    row('reference as text in front (RAG)', heldOut.rag),
    `Retrieval finds the right memory first: ${percent(retrieval.first).trim()}, among those read: ${percent(retrieval.read).trim()}`,
  ];
  const change = (title: string, done: string, changes: readonly ChangedAnswer[]): string[] => {
    const followed = changes.filter((item) => item.followed);
    const example = followed[0] ?? changes[0];
    if (!example) return [];
    const { prompt, before, after } = example;
    const answers = `"${prompt}" → before "${before.trim()}", after "${after.trim()}"`;
    return [`${title}: ${followed.length} of ${changes.length} ${done}, such as ${answers}`];
  };
  lines.push(...change('Facts edited in the bank', 'answered anew', edits));
  lines.push(...change('Facts deleted from the bank', 'no longer answered', deletions));
  return lines.join('\n');
}
