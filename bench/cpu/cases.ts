/** What is measured. Both sides get the same description of a case. */

import { flopsPerToken, type ModelShape, parameterShapes } from '../../src/model/shape.ts';

/** The memories of a training step. */
export interface Reading {
  /** Encoded in the step with gradient, or given from outside. */
  online: boolean;
  /** Different memories of the step. */
  count: number;
  perChunk: number;
  chunkLength: number;
  keptTokens: number;
  referenceTokens: number;
  /** Tokens in front of a reference that take no part in the selection. */
  prefix: number;
}

interface OfModel {
  shape: ModelShape;
  /** Names and sizes of the parameters, in order. */
  parameters: Record<string, number[]>;
  /** A file of their float32 values; random ones without. */
  weights?: string;
  batch: number;
}

export type Case =
  | (OfModel & { kind: 'training'; tokens: number; memories?: Reading })
  | (OfModel & { kind: 'compile'; tokens: number; prefix: number; keptTokens: number })
  | (OfModel & { kind: 'decode'; context: number; room: number; memory: boolean; perChunk: number; keptTokens: number })
  | { kind: 'product'; size: number };

export interface Measured {
  case: Case;
  /** What the rate counts, and how many of it a step makes. */
  unit: string;
  perStep: number;
  /** Floating-point operations of a step, where the formula of `flopsPerToken` says. */
  flops?: number;
  /** Steps of one round. */
  steps: number;
  /** The case of ours that runs in turn with this one: the same without memories, or a plain product. */
  against: string | undefined;
  what: string;
}

function shapeOf(d: number, L: number, heads: [query: number, keyValue: number], W: number, V: number): ModelShape {
  return {
    numLayers: L,
    hiddenSize: d,
    numHeads: heads[0],
    kvHeads: heads[1],
    headDim: d / heads[0],
    mlpWidth: W,
    memoryLayers: L / 2,
    vocabSize: V,
    ropeTheta: 10_000,
    normEpsilon: 1e-5,
    tieEmbeddings: false,
    init: 'depth',
    initStd: 0.02,
    embeddingStd: 0.02,
  };
}

const SHAPES = {
  shape1: { shape: shapeOf(128, 4, [4, 2], 256, 512), tokens: 128, batch: 32 },
  shape2: { shape: shapeOf(256, 6, [8, 4], 512, 4096), tokens: 256, batch: 16 },
  shape3: { shape: shapeOf(512, 8, [8, 4], 1024, 8192), tokens: 512, batch: 4 },
  shape25m: { shape: shapeOf(384, 10, [6, 2], 1536, 4096), tokens: 512, batch: 4 },
} as const;

type ShapeName = keyof typeof SHAPES;

const MEMORIES = { perChunk: 5, keptTokens: 8, referenceTokens: 128, prefix: 3 };

function ofModel(name: ShapeName) {
  const { shape, batch } = SHAPES[name];
  return { shape, batch, parameters: Object.fromEntries(parameterShapes(shape)) };
}

function training(name: ShapeName, steps: number, memories?: Reading): Measured {
  const { shape, tokens, batch } = SHAPES[name];
  const { hiddenSize: d, numLayers: L, mlpWidth: W, vocabSize: V } = shape;
  const reading = memories ? `, ${memories.online ? 'online' : 'bank'} memories, ${memories.perChunk} a chunk` : '';
  return {
    case: { kind: 'training', ...ofModel(name), tokens, ...(memories && { memories }) },
    unit: 'tokens',
    perStep: batch * tokens,
    ...(!memories && { flops: batch * tokens * flopsPerToken(shape, tokens) }),
    steps,
    against: memories ? name : 'product2048',
    what: `step d ${d}, L ${L}, W ${W}, V ${V}, ${tokens} × ${batch}${reading}`,
  };
}

/** Five memories a chunk: in a bank each its own; online as many reference tokens as text tokens, read by several chunks. */
function reading(name: ShapeName, online: boolean): Reading {
  const { tokens, batch } = SHAPES[name];
  const chunkLength = 64;
  const slots = ((batch * tokens) / chunkLength) * MEMORIES.perChunk;
  return { ...MEMORIES, online, chunkLength, count: online ? (batch * tokens) / MEMORIES.referenceTokens : slots };
}

function decode(batch: number, memory: boolean): Measured {
  const { perChunk, keptTokens } = MEMORIES;
  const [context, room] = [256, 64];
  return {
    case: { kind: 'decode', ...ofModel('shape2'), batch, context, room, memory, perChunk, keptTokens },
    unit: 'tokens',
    perStep: batch,
    steps: 32,
    against: memory ? `decode${batch}` : undefined,
    what: `decoding, batch ${batch}, ${context} tokens before${memory ? `, ${perChunk} memories` : ''}`,
  };
}

function compile(): Measured {
  const [batch, tokens] = [32, 128];
  const { prefix, keptTokens } = MEMORIES;
  return {
    case: { kind: 'compile', ...ofModel('shape2'), batch, tokens, prefix, keptTokens },
    unit: 'references',
    perStep: batch,
    steps: 4,
    against: undefined,
    what: `writing memories, ${batch} references of ${tokens} tokens`,
  };
}

function product(size: number): Measured {
  return {
    case: { kind: 'product', size },
    unit: 'products',
    perStep: 1,
    flops: 2 * size ** 3,
    steps: size > 1024 ? 3 : 8,
    against: undefined,
    what: `matrix product, ${size}³`,
  };
}

/** All cases by name, in the order of the table. */
export function cases(): Record<string, Measured> {
  return {
    product1024: product(1024),
    product2048: product(2048),
    shape1: training('shape1', 5),
    shape2: training('shape2', 3),
    shape3: training('shape3', 3),
    shape25m: training('shape25m', 3),
    bank: training('shape2', 3, reading('shape2', false)),
    online: training('shape2', 3, reading('shape2', true)),
    compile: compile(),
    decode8: decode(8, false),
    decode8memory: decode(8, true),
    decode1: decode(1, false),
    decode1memory: decode(1, true),
  };
}

/** A case so small that both sides can be compared number by number; with weights of its own in a file. */
export function checkCase(weights: string, memories: boolean): Case {
  const shape = { ...shapeOf(32, 2, [4, 2], 48, 50), memoryLayers: 1 };
  const parameters = Object.fromEntries(parameterShapes(shape));
  const read = { ...MEMORIES, online: true, count: 4, perChunk: 2, chunkLength: 8, referenceTokens: 12 };
  const base = { kind: 'training' as const, shape, parameters, weights, batch: 2, tokens: 16 };
  return memories ? { ...base, memories: read } : base;
}
