/**
 * What a piece of knowledge costs in each of its three formats, in TFLOP (paper, appendix A): model parameters (trained
 * once, then free), explicit memory (written once, cheap to read) and text in the context (free to write, dear to read).
 * Legend: L layers, L_mem memory layers, d hidden size, a = heads × head dimension (the paper has a = d), W MLP width.
 */

import type { MemoryConfig, ModelConfig } from '../config/schema.ts';

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
