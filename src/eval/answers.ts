/**
 * Whether a model gives the right answers, measured in one forward pass: greedy decoding yields an answer exactly when
 * every token of it is the likeliest one after those before it.
 *
 * Legend: n questions of a batch, T tokens of the longest, V vocabulary, d hiddenSize.
 */

import * as tf from '../engine/tf.ts';
import type { Session } from '../infer/session.ts';
import { disposeMemories, memoryTensors, readingPositions, withPrefix, withPrefixIgnored } from '../memory/reading.ts';
import { stepMemories } from '../memory/step_memories.ts';
import { forward, type LayerMemories, logits, loss } from '../model/forward.ts';

/** A question as tokens. */
export interface EncodedQuestion {
  /** `<s>` and the text before the answer. */
  prompt: Int32Array;
  answer: Int32Array;
  /** Memories to read, right or wrong; undefined reads plain text without prefix and interval. */
  memories?: readonly string[];
}

export interface Score {
  /** Share of questions whose whole answer is what greedy decoding gives. */
  accuracy: number;
  /** Mean loss in nats per token of the answers. */
  loss: number;
}

/** Questions computed at once. */
const BATCH = 32;

/** Scores questions; all or none of them read memories. */
export async function scoreAnswers(session: Session, questions: readonly EncodedQuestion[]): Promise<Score> {
  let right = 0;
  let lossSum = 0;
  let tokens = 0;
  for (let from = 0; from < questions.length; from += BATCH) {
    const batch = questions.slice(from, from + BATCH);
    const scored = await scoreBatch(session, batch);
    right += scored.right;
    lossSum += scored.lossSum;
    tokens += batch.reduce((sum, { answer }) => sum + answer.length, 0);
  }
  return { accuracy: right / questions.length, loss: lossSum / tokens };
}

async function scoreBatch(
  session: Session,
  batch: readonly EncodedQuestion[],
): Promise<{ right: number; lossSum: number }> {
  const { model } = session;
  const { ids, targets, positions, memories } = await modelInput(session, batch);
  const { likeliest, lossSum } = tf.tidy(() => {
    const { hidden } = forward(model, { ids, positions, memories });
    return {
      likeliest: logits(model, hidden).argMax(1),
      lossSum: loss(model, hidden, targets).lossSum,
    };
  });
  const guesses = await likeliest.data<'int32'>();
  const [sum = Number.NaN] = await lossSum.data<'float32'>();
  tf.dispose([likeliest, lossSum]);
  if (memories) disposeMemories(memories);
  const width = targets.length / batch.length;
  let right = 0;
  for (let row = 0; row < batch.length; row++) {
    let all = true;
    for (let i = row * width; i < (row + 1) * width; i++) all &&= targets[i]! < 0 || guesses[i] === targets[i];
    if (all) right++;
  }
  return { right, lossSum: sum };
}

interface ModelInput {
  ids: Int32Array;
  targets: Int32Array;
  positions: Int32Array;
  memories?: LayerMemories;
}

/** Prompt and answer in rows `[n, T]`; only the answers' tokens are targets. */
async function modelInput(session: Session, batch: readonly EncodedQuestion[]): Promise<ModelInput> {
  const { config, tokenizer } = session;
  const width = Math.max(...batch.map(({ prompt, answer }) => prompt.length + answer.length - 1));
  const ids = new Int32Array(batch.length * width).fill(tokenizer.pad);
  const targets = new Int32Array(batch.length * width).fill(-1);
  batch.forEach(({ prompt, answer }, row) => {
    ids.set(prompt, row * width);
    ids.set(answer.subarray(0, -1), row * width + prompt.length);
    targets.set(answer, row * width + prompt.length - 1);
  });
  if (batch.every(({ memories }) => memories === undefined)) {
    return { ids, targets, positions: Int32Array.from({ length: width }, (_, position) => position) };
  }
  const { bank } = session;
  const prefix = tokenizer.referencePrefix;
  const slots = batch.map(({ memories = [] }) => [memories]);
  const memoriesPerChunk = Math.max(...slots.map(([memories = []]) => memories.length));
  const step = await stepMemories(bank, slots, { memoriesPerChunk });
  // Prompt and answer are one chunk here, whatever their length: all of it reads the memories given.
  const reading = { memoriesPerChunk, chunkLength: width };
  return {
    ids: withPrefix(ids, prefix, width),
    targets: withPrefixIgnored(targets, prefix.length, width),
    positions: readingPositions(prefix.length, width, config.memory.referenceTokens),
    memories: memoryTensors(step, bank.identity, reading, batch.length, prefix.length),
  };
}
