/**
 * Our side of the benchmark: a process that speaks the same lines of JSON as bench/peers/memory3_torch.py.
 * Argument: threads. Answers to `steps` also tell the processor time of the JavaScript thread and, with `profile`, the
 * time of each kernel.
 */

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { openEngine } from '../../src/engine/engine.ts';
import type { NativeBackend } from '../../src/engine/native/backend.ts';
import * as tf from '../../src/engine/tf.ts';
import { KeyValueCache } from '../../src/model/cache.ts';
import { encodeReferences } from '../../src/model/encode.ts';
import { forward, type LayerMemories, logits } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, sizeOf } from '../../src/model/shape.ts';
import { lossAndGradients, type TrainingBatch } from '../../src/model/training.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import type { Case } from './cases.ts';

interface Running {
  step(): Promise<void>;
  /** What the last step found. */
  result(): Record<string, number>;
  dispose(): void;
}

type Of<K extends Case['kind']> = Extract<Case, { kind: K }>;

function modelOf({ shape, parameters, weights }: Of<'training' | 'compile' | 'decode'>): Model {
  if (!weights) return new Model(shape, initParameters(shape, 1));
  const values = new Float32Array(Uint8Array.from(readFileSync(weights)).buffer);
  let at = 0;
  return new Model(
    shape,
    new Map(
      Object.entries(parameters).map(([name, size]) => {
        at += sizeOf(size);
        return [name, values.subarray(at - sizeOf(size), at)];
      }),
    ),
  );
}

/** The same numbers as on the other side: a linear congruence. */
const tokensOf = (count: number, vocabulary: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocabulary);

const count = (length: number, first = 0): Int32Array => Int32Array.from({ length }, (_, i) => first + i);

function training(given: Of<'training'>): Running {
  const model = modelOf(given);
  const optimizer = new AdamW(model.parameters, {
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0.1,
    clipNorm: 1,
  });
  const all = tokensOf(given.batch * given.tokens + 1, given.shape.vocabSize);
  const text = { ids: all.subarray(0, -1), targets: all.subarray(1) };
  const read = readingOf(given);
  let result = {};
  return {
    async step() {
      const memories = read();
      const positions = count(given.tokens, given.memories?.referenceTokens);
      const { lossSum, count: tokens, gradients } = await lossAndGradients(model, { ...text, positions, ...memories });
      const options = { learningRate: 1e-4, clipNorm: 1, tokens };
      const { gradientNorm } = await clipAndUpdate(optimizer, gradients, options);
      disposeGradients(gradients);
      const { keys, values, lengths, index } = memories.memories ?? {};
      tf.dispose([keys, values, lengths, index, memories.onlineReferences?.index] as never);
      result = { loss: lossSum / tokens, gradientNorm };
    },
    result: () => result,
    dispose: () => {
      optimizer.dispose();
      model.dispose();
    },
  };
}

/** Makes the memories of a step as a trainer does: out of arrays that are not on the engine. */
function readingOf({ shape, batch, tokens, memories }: Of<'training'>): () => Partial<TrainingBatch> {
  if (!memories) return () => ({});
  const { count: different, chunkLength, keptTokens, perChunk, referenceTokens, prefix } = memories;
  const chunks = tokens / chunkLength;
  const slots = count(batch * chunks * perChunk).map((slot) => slot % different);
  const index = () => tf.tensor3d(slots, [batch, chunks, perChunk], 'int32');
  if (memories.online) {
    const ids = tokensOf(different * referenceTokens, shape.vocabSize);
    const lengths = new Int32Array(different).fill(referenceTokens);
    const rule = { prefixLength: prefix, keptTokens, tokenScores: 'softmax' as const };
    return () => ({ onlineReferences: { ids, lengths, ...rule, index: index(), start: 0, chunkLength } });
  }
  const size = [different, shape.kvHeads, keptTokens, shape.headDim] as [number, number, number, number];
  const stored = Array.from({ length: 2 * shape.memoryLayers }, () => new Float32Array(sizeOf(size)).fill(0.1));
  const layers = (from: number): tf.Tensor4D[] =>
    Array.from({ length: shape.memoryLayers }, (_, layer) => tf.tensor4d(stored[2 * layer + from]!, size));
  const full = new Int32Array(different).fill(keptTokens);
  return () => ({
    memories: {
      keys: layers(0),
      values: layers(1),
      lengths: tf.tensor1d(full, 'int32'),
      index: index(),
      start: 0,
      chunkLength,
      gradient: false,
    },
  });
}

function compile(given: Of<'compile'>): Running {
  const model = modelOf(given);
  const ids = tokensOf(given.batch * given.tokens, given.shape.vocabSize);
  const lengths = new Int32Array(given.batch).fill(given.tokens);
  const options = { prefixLength: given.prefix, keptTokens: given.keptTokens, tokenScores: 'softmax' as const };
  return {
    async step() {
      const { keys, values, indices } = encodeReferences(model, ids, lengths, options);
      await Promise.all([...keys, ...values].map((tensor) => tensor.data()));
      tf.dispose([keys, values, indices] as never);
    },
    result: () => ({}),
    dispose: () => model.dispose(),
  };
}

function decode(given: Of<'decode'>): Running {
  const { shape, batch, context, room } = given;
  const model = modelOf(given);
  const memories = given.memory ? decodeMemories(given) : undefined;
  let cache = new KeyValueCache();
  let ids = tokensOf(batch, shape.vocabSize);
  const restart = (): void => {
    cache.dispose();
    cache = new KeyValueCache();
    const prompt = tokensOf(batch * context, shape.vocabSize);
    tf.dispose(forward(model, { ids: prompt, positions: count(context), cache }).hidden);
  };
  return {
    async step() {
      if (cache.length === 0 || cache.length === context + room) restart();
      const best = tf.tidy(() => {
        const { hidden } = forward(model, { ids, positions: count(1, cache.length), memories, cache });
        return tf.argMax(logits(model, hidden), 1);
      });
      ids = Int32Array.from(await best.data<'int32'>());
      best.dispose();
    },
    result: () => ({}),
    dispose: () => {
      cache.dispose();
      model.dispose();
      const { keys = [], values = [], lengths, index } = memories ?? {};
      tf.dispose([...keys, ...values, lengths, index] as never);
    },
  };
}

function decodeMemories({ shape, batch, perChunk, keptTokens }: Of<'decode'>): LayerMemories {
  const size: [number, number, number, number] = [batch * perChunk, shape.kvHeads, keptTokens, shape.headDim];
  const layers = (): tf.Tensor4D[] =>
    Array.from({ length: shape.memoryLayers }, () => tf.fill(size, 0.1) as tf.Tensor4D);
  return {
    keys: layers(),
    values: layers(),
    lengths: tf.fill([batch * perChunk], keptTokens, 'int32') as tf.Tensor1D,
    index: tf.tensor3d(count(batch * perChunk), [batch, 1, perChunk], 'int32'),
    start: 0,
    chunkLength: 1,
    gradient: false,
  };
}

function product({ size }: Of<'product'>): Running {
  const matrices = [1, 2].map(() => tf.fill([size, size], 0.5)) as [tf.Tensor2D, tf.Tensor2D];
  return {
    async step() {
      const first = tf.tidy(() => tf.slice(tf.matMul(...matrices).reshape([size * size]), [0], [1]));
      await first.data();
      first.dispose();
    },
    result: () => ({}),
    dispose: () => tf.dispose(matrices as never),
  };
}

function prepare(given: Case): Running {
  switch (given.kind) {
    case 'training':
      return training(given);
    case 'compile':
      return compile(given);
    case 'decode':
      return decode(given);
    case 'product':
      return product(given);
  }
}

/** Seconds that the thread of JavaScript has been on a processor; its number is that of the process. */
function javascriptSeconds(): number {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e9;
}

function peakBytes(): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
}

async function run(running: Running, steps: number): Promise<Record<string, unknown>> {
  const { addon } = tf.backend() as NativeBackend;
  addon.takeProfile();
  const seconds: number[] = [];
  const before = javascriptSeconds();
  for (let i = 0; i < steps; i++) {
    const start = performance.now();
    await running.step();
    addon.wait();
    seconds.push((performance.now() - start) / 1000);
  }
  const javascript = javascriptSeconds() - before;
  return { seconds, javascript, profile: addon.takeProfile(), ...running.result() };
}

type Request = { prepare: Case } | { steps: number } | { memory: true };

await openEngine('native', Number(process.argv[2] ?? 0));
let running: Running | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as Request;
  let answer: Record<string, unknown> = {};
  if ('prepare' in request) {
    running?.dispose();
    running = prepare(request.prepare);
  } else if ('steps' in request) answer = await run(running!, request.steps);
  else answer = { peakBytes: peakBytes() };
  console.log(JSON.stringify(answer));
}
