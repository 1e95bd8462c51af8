/**
 * How much memory of a GPU training takes on the cuda engine, from the shape alone, so that it can be known before a card
 * is rented. All figures are bytes.
 *
 * Legend: P parameters, L layers, d hidden size, a = heads × head dimension, k = key-value heads × head dimension, H heads,
 * W MLP width, V vocabulary, N tokens of a micro-batch, s bytes of an activation (2 in bfloat16), C chunks of a micro-batch,
 * R memory slots of a chunk.
 */

import type { RunConfig } from '../config/schema.ts';
import { type CostShape, costShape, PUBLISHED_SHAPE } from './costs.ts';

export interface TrainingShape extends CostShape {
  tieEmbeddings: boolean;
  /** Tokens of a micro-batch, and micro-batches of a step. */
  tokens: number;
  accumulate: number;
  recompute: boolean;
  precision: 'bfloat16' | 'float32';
  /** Memories that a chunk reads; 0 without. */
  memoriesPerChunk: number;
  /** References that are encoded in the step, one a chunk at most (`memories: online`). */
  online: boolean;
}

export interface TrainingMemory {
  /** 4·P: what is trained, in float32. */
  weights: number;
  /** 2·(P − V·d): what products read, in bfloat16; the embedding and the norms are read as they are. */
  copies: number;
  /** 8·P: the two moments of AdamW. */
  moments: number;
  /** 4·P: the sum over the micro-batches before, when there are several. */
  gradients: number;
  /** What the forward pass keeps for the backward pass. */
  activations: number;
  /** Memories that the micro-batch reads, and the rows of the next. */
  memories: number;
  /** What comes on top in the moment in which most is in use: the loss, or new gradients. */
  peak: number;
  total: number;
}

/** The paper's model, with batches of 4 M tokens (configs/paper/2.4b.yaml). */
const PUBLISHED: TrainingShape = {
  ...PUBLISHED_SHAPE,
  ...{ tieEmbeddings: false, tokens: 4 * PUBLISHED_SHAPE.sequenceLength, accumulate: 512, recompute: true },
  ...{ precision: 'bfloat16', memoriesPerChunk: 0, online: false },
};

/** Both stages, each as it is and with the other choice of `recompute`. */
export type WaysOfTraining = Readonly<Record<string, TrainingShape>>;

export function waysOfTraining(warmup: TrainingShape, continual: TrainingShape): WaysOfTraining {
  const stages = Object.entries({ warmup, continual }).flatMap(([name, shape]) => {
    const recompute = !shape.recompute;
    return [
      [name, shape],
      [`${name}, recompute: ${recompute}`, { ...shape, recompute }],
    ] as const;
  });
  return Object.fromEntries(stages);
}

export const PUBLISHED_TRAINING = waysOfTraining(PUBLISHED, { ...PUBLISHED, memoriesPerChunk: 5, online: true });

/** cuBLASLt's workspace. */
const WORKSPACE = 32 * 2 ** 20;
/** Most that the logits of a block of rows take in float32, and what rows are a multiple of (native/cuda/cross_entropy.cu). */
const LOGITS = 256 * 2 ** 20;
const LOGITS_ROWS = 128;

/**
 * The most memory that a step takes at once, without what the driver keeps for itself (about half a GiB) and what lies idle
 * between tensors of different sizes. The moment is one of five: the loss, its gradient, the backward pass of the last layer
 * or of the first, the sum of gradients.
 */
export function trainingMemory(shape: TrainingShape): TrainingMemory {
  const { vocabSize, hiddenSize, accumulate, tieEmbeddings, tokens } = shape;
  const parameters = countParameters(shape);
  const activations = keptActivations(shape);
  const parts = {
    weights: 4 * parameters,
    copies: shape.precision === 'bfloat16' ? 2 * (parameters - norms(shape) - embeddingOnly(shape)) : 0,
    moments: 8 * parameters,
    gradients: accumulate > 1 ? 4 * parameters : 0,
    activations,
    memories: readMemories(shape),
  };
  const inLoss = activations + Math.max(forwardOfLoss(shape), backwardOfLoss(shape));
  const table = 4 * vocabSize * hiddenSize;
  const inLastLayer = activations + table + layerWork(shape);
  const inFirstLayer = 4 * parameters - table + layerWork(shape) - 4 * layerMatrices(shape);
  // The gradient of a tied embedding stands beside that of the head and their sum.
  const atEnd = 4 * parameters + (tieEmbeddings ? 2 * table : 0) + width(shape) * tokens * hiddenSize;
  const inSum = accumulate > 1 ? 4 * parameters + table : 0;
  const peak = WORKSPACE + Math.max(inLoss, inLastLayer, inFirstLayer, atEnd, inSum) - activations;
  return { ...parts, peak, total: Object.values(parts).reduce((sum, part) => sum + part, peak) };
}

function countParameters(shape: TrainingShape): number {
  const { vocabSize, hiddenSize, tieEmbeddings, numLayers } = shape;
  return numLayers * layerMatrices(shape) + norms(shape) + (tieEmbeddings ? 1 : 2) * vocabSize * hiddenSize;
}

/** Elements of 2·d·a + 2·d·k + 3·d·W. */
function layerMatrices({ hiddenSize: d, numHeads, kvHeads, headDim, mlpWidth }: TrainingShape): number {
  return 2 * d * numHeads * headDim + 2 * d * kvHeads * headDim + 3 * d * mlpWidth;
}

const norms = ({ numLayers, hiddenSize }: TrainingShape): number => (2 * numLayers + 1) * hiddenSize;

/** Elements of an embedding that is not the output head too. */
const embeddingOnly = ({ tieEmbeddings, vocabSize, hiddenSize }: TrainingShape): number =>
  tieEmbeddings ? 0 : vocabSize * hiddenSize;

const width = ({ precision }: TrainingShape): number => (precision === 'bfloat16' ? 2 : 4);

/**
 * What a layer keeps of each token: its input and what each norm gives and what stands between attention and MLP (4·d),
 * queries and what attention gives (2·a), keys and values (2·k), gate, up and their product (3·W); and of each head the
 * logarithm of the normaliser in float32.
 */
function layerActivations(shape: TrainingShape): number {
  const { hiddenSize, numHeads, kvHeads, headDim, mlpWidth } = shape;
  const numbers = 4 * hiddenSize + 2 * numHeads * headDim + 2 * kvHeads * headDim + 3 * mlpWidth;
  return width(shape) * numbers + 4 * numHeads;
}

/** Of each layer all of the above, or with `recompute` its input; behind the last layer 2·d a token. */
function keptActivations(shape: TrainingShape): number {
  const { tokens, numLayers, memoryLayers, hiddenSize, recompute } = shape;
  const row = width(shape) * hiddenSize;
  const layer = recompute ? row : layerActivations(shape);
  const references = memoryLayers * layer * referenceTokens(shape);
  return numLayers * layer * tokens + 2 * row * tokens + references;
}

const chunks = ({ tokens, chunkLength }: TrainingShape): number => Math.ceil(tokens / chunkLength);

const referenceTokens = (shape: TrainingShape): number => (shape.online ? chunks(shape) * shape.referenceTokens : 0);

/** One new memory a chunk at most: keys and values of the memory layers, and the rows of the micro-batch to come. */
function readMemories(shape: TrainingShape): number {
  const { memoriesPerChunk, memoryLayers, kvHeads, keptTokens, headDim, online } = shape;
  if (memoriesPerChunk === 0) return 0;
  const numbers = chunks(shape) * memoryLayers * 2 * kvHeads * keptTokens * headDim;
  return numbers * width(shape) * (online ? 1 : 2);
}

/** The gradients of the loss by hidden states and head in float32, kept until they are wanted: 4·(N·d + V·d). */
function stateOfLoss({ tokens, vocabSize, hiddenSize }: TrainingShape): number {
  return 4 * (tokens + vocabSize) * hiddenSize;
}

/** That, the logits of a block of rows and their gradients, and the attention on memories of each layer, N·H·R. */
function forwardOfLoss(shape: TrainingShape): number {
  const { tokens, vocabSize, numHeads, memoriesPerChunk, memoryLayers, precision } = shape;
  const stride = Math.ceil(vocabSize / 64) * 64;
  const most = Math.max(1, Math.floor(LOGITS / (4 * stride)));
  const rows = Math.min(tokens, most >= LOGITS_ROWS ? most - (most % LOGITS_ROWS) : most);
  const logits = rows * stride * (precision === 'bfloat16' ? 6 : 4);
  return stateOfLoss(shape) + logits + 4 * tokens * numHeads * memoriesPerChunk * memoryLayers;
}

/** That once more, as the gradients that go on: the one by hidden states as an activation. */
function backwardOfLoss(shape: TrainingShape): number {
  const { tokens, vocabSize, hiddenSize } = shape;
  return stateOfLoss(shape) + width(shape) * tokens * hiddenSize + 4 * vocabSize * hiddenSize;
}

/**
 * In the backward pass of a layer its MLP's gradients, (d + 2·W) a token, and the gradient of a matrix of the MLP; with
 * `recompute` also the layer's own activations, which are there once more, and the gradients of all its matrices.
 */
function layerWork(shape: TrainingShape): number {
  const { tokens, hiddenSize, mlpWidth, recompute } = shape;
  const mlp = width(shape) * tokens * (2 * mlpWidth - (recompute ? 0 : hiddenSize));
  if (!recompute) return mlp + 4 * hiddenSize * mlpWidth;
  return mlp + layerActivations(shape) * tokens + 4 * layerMatrices(shape);
}

/** A stage of a run as it trains on the cuda engine. @param vocabulary of its tokenizer, when that was made */
export function trainingShape(config: RunConfig, stage: 'warmup' | 'continual', vocabulary?: number): TrainingShape {
  const { batchSize, accumulate, recompute } = config[stage];
  const { memory, model, precision } = config;
  const reads = stage === 'continual';
  return {
    ...costShape(config, vocabulary),
    ...{ tieEmbeddings: model.tieEmbeddings, accumulate, recompute },
    tokens: batchSize * config.data.sequenceLength,
    precision: precision === 'float32' ? 'float32' : 'bfloat16',
    memoriesPerChunk: reads ? memory.memoriesPerChunk : 0,
    online: reads && config.continual.memories === 'online',
  };
}
