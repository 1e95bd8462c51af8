/** Decoding token by token, with memories, against one pass over the whole text; and what an answer tells. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { scoreAnswers } from '../../src/eval/answers.ts';
import { type Answer, generate } from '../../src/infer/generate.ts';
import { Session } from '../../src/infer/session.ts';
import { fact, randomRun, writeBank } from './random_run.ts';

let session: Session;
afterEach(() => session.close());

async function open(memory: object): Promise<void> {
  const run = await randomRun({ memory });
  await writeBank(run);
  run.model.dispose();
  session = await Session.open(run.config, run.folder);
}

/** Greedy decoding; the token ids too, which an answer does not tell. */
async function decode(prompt: string, memory: boolean, maxTokens = 6): Promise<Answer & { ids: Int32Array }> {
  const spy = vi.spyOn(session.tokenizer, 'decode');
  const options = { maxTokens, temperature: 0, topP: 1, stop: [], seed: 1, memory };
  const answer = await generate(session, prompt, options);
  const [generated = []] = spy.mock.calls[0] ?? [];
  spy.mockRestore();
  const ids = Int32Array.from(generated).slice(0, answer.generatedTokens);
  return { ...answer, ids };
}

const prompts = Array.from({ length: 8 }, (_, i) => fact(i).text.slice(0, 6 + i));

async function encoded(prompt: string): Promise<Int32Array> {
  return Int32Array.of(session.tokenizer.bos, ...(await session.tokenizer.encode(prompt)));
}

describe('incremental decoding', () => {
  // One chunk, as scoring reads one set of memories from prompt to answer.
  beforeEach(() => open({ chunkLength: 64 }));

  it('gives what a pass over the whole text gives, with memories', async () => {
    let moved = 0;
    for (const prompt of prompts) {
      const { ids, trace } = await decode(prompt, true);
      expect(trace).toHaveLength(1);
      const memories = trace[0]!.memories.map(({ id }) => id);
      expect(memories).toHaveLength(2);
      const question = { prompt: await encoded(prompt), answer: ids };
      expect(await scoreAnswers(session, [{ ...question, memories }]), prompt).toMatchObject({ accuracy: 1 });
      const others = session.bank
        .ids()
        .filter((id) => !memories.includes(id))
        .slice(0, 2);
      if ((await scoreAnswers(session, [{ ...question, memories: others }])).accuracy === 0) moved++;
    }
    // The test could not fail if memories did not decide what is said.
    expect(moved).toBeGreaterThan(3);
  });

  it('gives what a pass over the whole text gives, without memories', async () => {
    for (const prompt of prompts) {
      const { ids } = await decode(prompt, false);
      const question = { prompt: await encoded(prompt), answer: ids };
      expect(await scoreAnswers(session, [question]), prompt).toMatchObject({ accuracy: 1 });
      const wrong = Int32Array.from(ids, (id, i) => (i === ids.length - 1 ? (id + 1) % 280 : id));
      expect(await scoreAnswers(session, [{ ...question, answer: wrong }]), prompt).toMatchObject({ accuracy: 0 });
    }
  });

  it('scores a batch as it scores each question alone', async () => {
    const questions = await Promise.all(
      prompts.map(async (prompt, i) => ({
        prompt: await encoded(prompt),
        answer: (await session.tokenizer.encode(fact(i).text.slice(prompt.length))).slice(0, 1 + i),
        memories: session.bank.ids().slice(i, i + 1 + (i % 3)),
      })),
    );
    const together = await scoreAnswers(session, questions);
    let sum = 0;
    let tokens = 0;
    for (const question of questions) {
      const { loss } = await scoreAnswers(session, [question]);
      sum += loss * question.answer.length;
      tokens += question.answer.length;
    }
    expect(together.loss).toBeCloseTo(sum / tokens, 4);
  });
});

describe('generate', () => {
  beforeEach(() => open({ chunkLength: 8 }));

  it('reads other memories in each chunk and shows what they were', async () => {
    const prompt = `${fact(3).text} ${fact(14).text}`;
    const answer = await decode(prompt, true, 12);
    const tokens = answer.promptTokens + answer.generatedTokens;
    expect(answer.trace.length).toBeGreaterThanOrEqual(Math.floor(tokens / 8));
    const used = answer.trace.flatMap(({ memories }) => memories);
    expect(new Set(used.map(({ id }) => id)).size).toBeGreaterThan(2);
    for (const { memories } of answer.trace) {
      expect(memories.every(({ share }) => share > 0)).toBe(true);
      expect(memories.reduce((sum, { share }) => sum + share, 0)).toBeLessThan(1);
    }
    for (const { id, text, document, title, keptTokens, score } of used) {
      expect(await session.bank.get(id)).toMatchObject({ text, document, title });
      expect(keptTokens.length).toBeGreaterThan(0);
      for (const token of keptTokens) expect(text).toContain(token.trim());
      expect(Math.abs(score)).toBeLessThanOrEqual(1.001);
    }
    expect(answer.trace[0]!.memories[0]!.document).toBe('e3');
  });

  it('streams the text in pieces, ends at a stop text, leaves no tensors', async () => {
    const options = { maxTokens: 20, temperature: 1, topP: 1, stop: [], seed: 3, memory: true };
    await generate(session, 'bada', options); // Operations keep tables for each shape.
    const tensors = tf.memory().numTensors;
    const pieces: string[] = [];
    const { text } = await generate(session, 'bada', { ...options, onText: (piece) => pieces.push(piece) });
    expect(pieces.join('')).toBe(text);
    expect(pieces.length).toBeGreaterThan(1);
    const stop = [...text.slice(1)].find((character) => character !== '\uFFFD') ?? '';
    expect(stop).not.toBe('');
    const stopped = await generate(session, 'bada', { ...options, stop: ['never said', stop] });
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop) + stop.length));
    expect((await generate(session, 'bada', { ...options, seed: 4 })).text).not.toBe(text);
    expect(tf.memory().numTensors).toBe(tensors);
  });

  it('answers an empty prompt', async () => {
    const answer = await decode('', true, 3);
    expect(answer.promptTokens).toBe(1);
    expect(answer.generatedTokens).toBeLessThanOrEqual(3);
  });
});
