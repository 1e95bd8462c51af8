/** Reads the golden files of the PyTorch oracle; their format is described in test/oracle/README.md. */

import { readFileSync } from 'node:fs';
import * as tf from '../../src/engine/tf.ts';
import type { LayerMemories } from '../../src/model/forward.ts';
import { Model } from '../../src/model/model.ts';
import type { ModelShape } from '../../src/model/shape.ts';
import type { OnlineReferences, TrainingBatch } from '../../src/model/training.ts';

export interface GoldenArray {
  shape: number[];
  data: number[];
}

/** A tensor that both sides make from integers. */
export interface GeneratedArray {
  shape: number[];
  offset: number;
  scale: number;
  a: number;
  b: number;
  c: number;
}

interface GoldenReferences {
  ids: GoldenArray;
  lengths: GoldenArray;
  prefixLength: number;
  keptTokens: number;
  tokenScores: 'softmax' | 'exp';
}

interface GoldenReading {
  index: GoldenArray;
  start: number;
  chunkLength: number;
}

export interface GoldenSelection {
  scores: GoldenArray[];
  kept: GoldenArray;
  keys: GoldenArray[];
  values: GoldenArray[];
}

export interface GoldenParameter {
  sum: number;
  sumOfSquares: number;
  first: number[];
}

export interface GoldenCase {
  case: string;
  model: ModelShape;
  parameters: Record<string, GeneratedArray>;
  inputs: {
    ids: GoldenArray;
    targets: GoldenArray;
    positions: GoldenArray;
    firstVisible?: GoldenArray;
    memories: GoldenReading & { keys: GeneratedArray[]; values: GeneratedArray[]; lengths: GoldenArray };
    references: GoldenReferences;
    reading: GoldenReading;
    optimizer: { beta1: number; beta2: number; epsilon: number; weightDecay: number; clipNorm: number };
    learningRates: number[];
  };
  expected: GoldenSelection & {
    hidden: GoldenArray;
    logits: GoldenArray;
    tokenLosses: GoldenArray;
    loss: number;
    lossSum: number;
    validTargets: number;
    gradients: Record<string, GoldenArray>;
    shares: GoldenArray[];
    memoryKeyGradients: GoldenArray[];
    memoryValueGradients: GoldenArray[];
    keptLengths: GoldenArray;
    softmax: GoldenSelection;
    exp: GoldenSelection;
    losses: number[];
    gradientNorms: number[];
    finalLoss: number;
    parametersAfter1: Record<string, GoldenParameter>;
    parametersAfter10: Record<string, GoldenParameter>;
    firstMomentsAfter10: Record<string, GoldenParameter>;
    secondMomentsAfter10: Record<string, GoldenParameter>;
  };
}

export function readGolden(name: string): GoldenCase {
  return JSON.parse(readFileSync(new URL(`../oracle/golden/${name}.json`, import.meta.url), 'utf8')) as GoldenCase;
}

function generate({ shape, offset, scale, a, b, c }: GeneratedArray): Float32Array {
  const count = shape.reduce((product, dimension) => product * dimension, 1);
  return Float32Array.from({ length: count }, (_, i) =>
    Math.fround(offset + scale * ((2 * ((a * i * i + b * i + c) % 65521)) / 65520 - 1)),
  );
}

export function goldenModel({ model, parameters }: GoldenCase): Model {
  const weights = Object.entries(parameters).map(([name, spec]) => [name, generate(spec)] as const);
  return new Model(model, new Map(weights));
}

export function goldenText({
  inputs,
}: GoldenCase): Pick<TrainingBatch, 'positions' | 'firstVisible'> & { ids: Int32Array; targets: Int32Array } {
  return {
    ids: Int32Array.from(inputs.ids.data),
    targets: Int32Array.from(inputs.targets.data),
    positions: Int32Array.from(inputs.positions.data),
    ...(inputs.firstVisible && { firstVisible: Int32Array.from(inputs.firstVisible.data) }),
  };
}

const int32 = <R extends tf.Rank>({ data, shape }: GoldenArray): tf.Tensor<R> =>
  tf.tensor(data, shape as never, 'int32');

export function goldenMemories({ inputs }: GoldenCase, gradient: boolean): LayerMemories {
  const { keys, values, lengths, index, start, chunkLength } = inputs.memories;
  const tensors = (specs: GeneratedArray[]) => specs.map((spec) => tf.tensor4d(generate(spec), spec.shape as never));
  return {
    keys: tensors(keys),
    values: tensors(values),
    lengths: int32<tf.Rank.R1>(lengths),
    index: int32<tf.Rank.R3>(index),
    start,
    chunkLength,
    gradient,
  };
}

export function goldenReferences({
  inputs,
}: GoldenCase): Omit<OnlineReferences, 'index' | 'start' | 'chunkLength'> & { ids: Int32Array } {
  const { ids, lengths, prefixLength, keptTokens, tokenScores } = inputs.references;
  return { ids: Int32Array.from(ids.data), lengths: lengths.data, prefixLength, keptTokens, tokenScores };
}

export function goldenReading({ inputs }: GoldenCase): Pick<OnlineReferences, 'index' | 'start' | 'chunkLength'> {
  const { index, start, chunkLength } = inputs.reading;
  return { index: int32<tf.Rank.R3>(index), start, chunkLength };
}

/** The largest difference, relative to the largest magnitude expected (absolute where all is zero). */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>, scale = 1): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i]! - scale * expected[i]!);
    worst = Math.max(worst, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference);
    largest = Math.max(largest, Math.abs(scale * expected[i]!));
  }
  return largest === 0 ? worst : worst / largest;
}
