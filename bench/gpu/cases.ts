/**
 * Models and training steps that the check and the benchmark share. The peer in PyTorch reads the same shapes and makes the
 * same tokens.
 * Legend: B batch, T tokens, C chunks, R memory slots of a chunk, M memories, L tokens of a reference, V vocabulary.
 */

import { readFileSync } from 'node:fs';
import { canPutAhead, putAhead } from '../../src/engine/ahead.ts';
import type * as tf from '../../src/engine/tf.ts';
import { disposeMemories, memoryTensors, rowsShape, slotTensor } from '../../src/memory/reading.ts';
import type { StepMemories } from '../../src/memory/step_memories.ts';
import type { LayerMemories } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, type ModelShape, parameterShapes, sizeOf } from '../../src/model/shape.ts';
import { lossAndGradients, type TrainingBatch } from '../../src/model/training.ts';
import { packHalf } from '../../src/ops/index.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

export interface GpuCase {
  shape: ModelShape;
  what: string;
  tokens: number;
  batch: number;
  chunkLength: number;
  perChunk: number;
  keptTokens: number;
  referenceTokens: number;
  /** Tokens in front of a reference that take no part in the selection. */
  prefix: number;
}

/** What a step reads: nothing, memories of a bank, or references that it encodes itself. */
export type Kind = 'warmup' | 'bank' | 'online';

type Described = Omit<GpuCase, 'shape'> & ModelShape;

/** A case of shapes.json. @throws Error naming the cases there are */
export function caseOf(name: string): GpuCase {
  const all = JSON.parse(readFileSync(new URL('shapes.json', import.meta.url), 'utf8')) as Record<string, Described>;
  const found = all[name];
  if (!found) throw new Error(`no shape ${name}; there are ${Object.keys(all).join(', ')}`);
  const { what, tokens, batch, chunkLength, perChunk, keptTokens, referenceTokens, prefix, ...model } = found;
  const rest = { ropeTheta: 10_000, normEpsilon: 1e-5, tieEmbeddings: false, initStd: 0.02, embeddingStd: 0.02 };
  const shape: ModelShape = { ...rest, ...model, init: 'depth' };
  return { shape, what, tokens, batch, chunkLength, perChunk, keptTokens, referenceTokens, prefix };
}

/** The same numbers as on the other side: a linear congruence. */
export const tokensOf = (count: number, vocabulary: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocabulary);

export const range = (length: number, first = 0): Int32Array => Int32Array.from({ length }, (_, i) => first + i);

/** Parameters above which weights are cut out of one array, since making them all takes minutes. */
const MANY = 5e7;
const TILE = 1_000_003;
const STD = 0.01;

/** Initial weights; of large models random numbers that repeat, norms one. */
function weightsOf(shape: ModelShape): Map<string, Float32Array> {
  const sizes = [...parameterShapes(shape)].map(([name, size]) => ({ name, size, count: sizeOf(size) }));
  if (sizes.reduce((sum, { count }) => sum + count, 0) < MANY) return initParameters(shape, 1);
  const tile = randomNormals(1, PURPOSE.test, 0, TILE).map((value) => value * STD);
  const all = new Float32Array(Math.max(...sizes.map(({ count }) => count)) + TILE);
  for (let at = 0; at < all.length; at += TILE) all.set(tile.subarray(0, Math.min(TILE, all.length - at)), at);
  return new Map(
    sizes.map(({ name, size, count }, i) => {
      const from = (i * 7919) % TILE;
      return [name, size.length === 1 ? new Float32Array(count).fill(1) : all.subarray(from, from + count)];
    }),
  );
}

export interface StepResult {
  /** Mean over the tokens. */
  loss: number;
  gradientNorm: number;
}

export interface StepOptions {
  /** First token of the batch, so that steps may differ. */
  seed?: number;
  recompute?: boolean;
  learningRate?: number;
}

/** Training steps of the real code on one micro-batch of made-up tokens, of one model for all kinds of steps. */
export class Steps {
  readonly model: Model;
  readonly optimizer: AdamW;
  private readonly given: GpuCase;
  private stored: StepMemories | undefined;
  /** Rows of the memories of the next step, on their way to the device while a step runs. */
  private coming: tf.Tensor2D | undefined;

  constructor(given: GpuCase, weights: ReadonlyMap<string, Float32Array> = weightsOf(given.shape)) {
    this.given = given;
    this.model = new Model(given.shape, weights);
    const rates = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
    this.optimizer = new AdamW(this.model.parameters, { ...rates, weightDecay: 0.1, clipNorm: 1 });
  }

  async step(kind: Kind, { seed = 0, recompute, learningRate = 1e-4 }: StepOptions = {}): Promise<StepResult> {
    const { batch: sequences, tokens, shape, referenceTokens } = this.given;
    const all = tokensOf(sequences * tokens + 1 + seed, shape.vocabSize).subarray(seed);
    const positions = range(tokens, kind === 'warmup' ? 0 : referenceTokens);
    const read = this.read(kind);
    try {
      const text = { ids: all.subarray(0, -1), targets: all.subarray(1), positions };
      const batch = { ...text, recompute, ...read.batch };
      const { lossSum, count, gradients } = await lossAndGradients(this.model, batch);
      try {
        const options = { learningRate, clipNorm: 1, tokens: count };
        const { gradientNorm } = await clipAndUpdate(this.optimizer, gradients, options);
        return { loss: lossSum / count, gradientNorm };
      } finally {
        disposeGradients(gradients);
      }
    } finally {
      read.dispose();
    }
  }

  dispose(): void {
    this.coming?.dispose();
    this.optimizer.dispose();
    this.model.dispose();
  }

  private read(kind: Kind): { batch: Partial<TrainingBatch>; dispose(): void } {
    if (kind === 'online') return this.online();
    if (kind === 'warmup') return { batch: {}, dispose: () => undefined };
    const memories = this.take();
    if (canPutAhead()) this.coming = putAhead(this.stored!.rows, rowsShape(this.stored!)) as tf.Tensor2D;
    return { batch: { memories }, dispose: () => disposeMemories(memories) };
  }

  private take(): LayerMemories {
    const { shape, chunkLength, perChunk, keptTokens, batch } = this.given;
    const { memoryLayers, kvHeads, headDim } = shape;
    const layout = { memoryLayers, kvHeads, headDim, keptTokens };
    this.stored ??= storedMemories(this.given);
    const reading = { chunkLength, memoriesPerChunk: perChunk };
    return memoryTensors(this.stored, { layout }, reading, batch, 0, this.coming);
  }

  /** As many reference tokens as text tokens, read by several chunks. */
  private online(): { batch: Partial<TrainingBatch>; dispose(): void } {
    const { shape, batch, tokens, chunkLength, perChunk, keptTokens, referenceTokens, prefix } = this.given;
    const count = (batch * tokens) / referenceTokens;
    const ids = tokensOf(Math.floor(count) * referenceTokens, shape.vocabSize);
    const lengths = new Int32Array(Math.floor(count)).fill(referenceTokens);
    const index = slotTensor(slotsOf(this.given, Math.floor(count)), batch, perChunk);
    const rule = { prefixLength: prefix, keptTokens, tokenScores: 'softmax' as const };
    return {
      batch: { onlineReferences: { ids, lengths, ...rule, index, start: 0, chunkLength } },
      dispose: () => index.dispose(),
    };
  }
}

/** The slots [B, C, R] with the memories 0, 1, … in turn. */
function slotsOf({ batch, tokens, chunkLength, perChunk }: GpuCase, memories: number): Int32Array {
  return range(batch * (tokens / chunkLength) * perChunk).map((slot) => slot % memories);
}

/** A memory of its own in each slot, as a bank keeps them: bfloat16. */
function storedMemories(given: GpuCase): StepMemories {
  const { shape, batch, tokens, chunkLength, perChunk, keptTokens } = given;
  const count = batch * (tokens / chunkLength) * perChunk;
  const numbers = count * shape.memoryLayers * 2 * shape.kvHeads * keptTokens * shape.headDim;
  const halves = packHalf(new Float32Array(numbers).fill(0.1), 'bfloat16');
  return {
    ids: [],
    count,
    rows: new Int32Array(halves.buffer),
    type: 'bfloat16',
    lengths: new Int32Array(count).fill(keptTokens),
    index: slotsOf(given, count),
  };
}
