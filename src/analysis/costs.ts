/**
 * What a piece of knowledge costs in each of its three formats, in TFLOP (paper, appendix A): model parameters (trained
 * once, then free), explicit memory (written once, cheap to read) and text in the context (free to write, dear to read).
 * Legend: L layers, L_mem memory layers, d hidden size, a = heads × head dimension (the paper has a = d), W MLP width.
 */

import type { MemoryConfig, ModelConfig, RunConfig } from '../config/schema.ts';

/** The sizes that costs depend on. */
export type CostShape = Pick<
  ModelConfig,
  'numLayers' | 'hiddenSize' | 'numHeads' | 'kvHeads' | 'headDim' | 'mlpWidth' | 'memoryLayers'
> &
  Pick<MemoryConfig, 'referenceTokens' | 'keptTokens' | 'chunkLength'> & { vocabSize: number; sequenceLength: number };

/** TFLOP of writing a reference once, and of each use of it. */
export interface Cost {
  write: number;
  read: number;
}

/** The model of the paper, of 2.4 billion parameters (§3.4). */
export const PUBLISHED_SHAPE: CostShape = {
  ...{ numLayers: 44, hiddenSize: 3200, numHeads: 40, kvHeads: 8, headDim: 80, mlpWidth: 3200, memoryLayers: 22 },
  ...{ referenceTokens: 128, keptTokens: 8, chunkLength: 64, vocabSize: 60_416, sequenceLength: 2048 },
};

/**
 * The sizes of a run.
 * @param tokens in the vocabulary of its tokenizer; by default as many as are to be trained
 */
export function costShape(
  { model, memory, data }: Pick<RunConfig, 'model' | 'memory' | 'data'>,
  tokens = data.tokenizer.vocabSize,
): CostShape {
  const { numLayers, hiddenSize, numHeads, kvHeads, headDim, mlpWidth, memoryLayers, vocabSize = tokens } = model;
  const { referenceTokens, keptTokens, chunkLength } = memory;
  const { sequenceLength } = data;
  return {
    ...{ numLayers, hiddenSize, numHeads, kvHeads, headDim, mlpWidth, memoryLayers },
    ...{ referenceTokens, keptTokens, chunkLength, vocabSize, sequenceLength },
  };
}

const TERA = 1e12;

/** Multiply-adds of a token in the projections for queries, keys, values and output of one layer. */
function projections(shape: CostShape): number {
  const { hiddenSize, numHeads, kvHeads, headDim } = shape;
  return 2 * hiddenSize * numHeads * headDim + 2 * hiddenSize * kvHeads * headDim;
}

/** Multiply-adds of a token in the gated MLP of one layer. */
function mlp({ hiddenSize, mlpWidth }: CostShape): number {
  return 3 * hiddenSize * mlpWidth;
}

function attentionWidth({ numHeads, headDim }: CostShape): number {
  return numHeads * headDim;
}

/** Training on the reference once, as part of a sequence; a model that knows it reads it at no extra cost. */
export function parameterCost(shape: CostShape): Cost {
  const { numLayers, referenceTokens, sequenceLength, vocabSize, hiddenSize } = shape;
  const attention = 2 * referenceTokens * (sequenceLength / 2) * attentionWidth(shape);
  const layer = referenceTokens * (projections(shape) + mlp(shape)) + attention;
  const head = referenceTokens * vocabSize * hiddenSize;
  return { write: (6 * (numLayers * layer + head)) / TERA, read: 0 };
}

/** Encoding the reference through the memory layers (the last without its MLP); attending to the kept tokens. */
export function memoryCost(shape: CostShape): Cost {
  const { memoryLayers, referenceTokens, keptTokens, chunkLength } = shape;
  const square = referenceTokens ** 2 * attentionWidth(shape);
  // One square for causal attention (two products, half of the pairs), one for the scores that choose the tokens.
  const attention = memoryLayers * (referenceTokens * projections(shape) + square);
  const mlps = Math.max(0, memoryLayers - 1) * referenceTokens * mlp(shape);
  const scores = memoryLayers * square;
  const read = 2 * memoryLayers * 2 * chunkLength * keptTokens * attentionWidth(shape);
  return { write: (2 * (attention + mlps + scores)) / TERA, read: read / TERA };
}

/** Reading the reference as text in front of a chunk, as retrieval-augmented generation does. */
export function textCost(shape: CostShape): Cost {
  const { numLayers, referenceTokens, chunkLength } = shape;
  const attention = 2 * referenceTokens * (referenceTokens / 2 + chunkLength) * attentionWidth(shape);
  const layers = numLayers * (referenceTokens * projections(shape) + attention);
  const mlps = (numLayers - 1) * referenceTokens * mlp(shape);
  return { write: 0, read: (2 * (layers + mlps)) / TERA };
}

/** Cost of a reference that is used `uses` times. */
export function totalCost({ write, read }: Cost, uses: number): number {
  return write + uses * read;
}

/** Numbers of uses between which explicit memory is the cheapest format; empty when `from` ≥ `to`. */
export function memoryIsCheapest(shape: CostShape): { from: number; to: number } {
  const memory = memoryCost(shape);
  const text = textCost(shape);
  const parameters = parameterCost(shape);
  return {
    from: text.read > memory.read ? memory.write / (text.read - memory.read) : Number.POSITIVE_INFINITY,
    to: memory.read > 0 ? (parameters.write - memory.write) / memory.read : Number.POSITIVE_INFINITY,
  };
}

export const FORMATS = ['parameters', 'memory', 'text'] as const;
export type Format = (typeof FORMATS)[number];

export function formatCosts(shape: CostShape): Record<Format, Cost> {
  return { parameters: parameterCost(shape), memory: memoryCost(shape), text: textCost(shape) };
}

export interface CostCurves {
  /** Numbers of uses, ascending, each as many times the one before. */
  uses: number[];
  /** TFLOP of a reference that is used so often. */
  totals: Record<Format, number[]>;
}

/** Figure 4 of the paper for a shape: total costs over uses, from a tenth of the first break-even to ten times the last. */
export function costCurves(shape: CostShape, points = 121): CostCurves {
  const costs = formatCosts(shape);
  const { from, to } = memoryIsCheapest(shape);
  const bounds = [from, to].filter((uses) => uses > 0 && Number.isFinite(uses));
  // Where nothing breaks even there are still decades to look at.
  const low = Math.min(1, ...bounds) / 10;
  const high = Math.max(1000, ...bounds) * 10;
  const uses = Array.from({ length: points }, (_, i) => low * (high / low) ** (i / (points - 1)));
  return { uses, totals: totalsOver(costs, uses) };
}

/** TFLOP of a reference in each format, over numbers of uses. */
export function totalsOver(costs: Record<Format, Cost>, uses: readonly number[]): Record<Format, number[]> {
  const totals = (format: Format): number[] => uses.map((count) => totalCost(costs[format], count));
  return { parameters: totals('parameters'), memory: totals('memory'), text: totals('text') };
}
