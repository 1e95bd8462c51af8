/**
 * The fused operations of src/ops on the native engine, under the names, inputs, attributes and outputs that they have
 * there. Legend: B batch, T tokens, Tk context tokens, H query heads, K key-value heads, D headDim, d hiddenSize,
 * V vocabulary, M memories, S kept tokens per memory, C chunks, R memory slots per chunk.
 */

import * as tf from '../tf.ts';
import type { AttentionArguments } from './addon.ts';
import type { NativeBackend } from './backend.ts';
import { registerFused } from './register.ts';

type Info = tf.TensorInfo;

const NO_FLOATS = new Float32Array();
const NO_INTS = new Int32Array();

/** Dimension `axis` of a tensor. */
const dimension = (x: Info, axis: number): number => x.shape[axis]!;

registerFused<'ids' | 'weight'>('Embedding', (backend, { ids, weight }) => {
  const width = dimension(weight, 1);
  const out = backend.create([tf.util.sizeFromShape(ids.shape), width]);
  backend.addon.embedding(backend.ints(ids), backend.floats(weight), width, backend.floats(out));
  return [out];
});

registerFused<'ids' | 'dy', { rows: number }>('EmbeddingGrad', (backend, { ids, dy }, { rows }) => {
  const dWeight = backend.create([rows, dimension(dy, 1)]);
  backend.addon.embeddingGrad(backend.ints(ids), backend.floats(dy), rows, backend.floats(dWeight));
  return [dWeight];
});

registerFused<'x' | 'weight', { epsilon: number }>('RmsNorm', (backend, { x, weight }, { epsilon }) => {
  const out = backend.create(x.shape);
  backend.addon.rmsNorm(backend.floats(x), backend.floats(weight), epsilon, backend.floats(out));
  return [out];
});

registerFused<'x' | 'weight' | 'dy', { epsilon: number }>('RmsNormGrad', (backend, { x, weight, dy }, { epsilon }) => {
  const dx = backend.create(x.shape);
  const dWeight = backend.create(weight.shape);
  const [values, scale, upstream] = [backend.floats(x), backend.floats(weight), backend.floats(dy)];
  backend.addon.rmsNormGrad(values, scale, upstream, epsilon, backend.floats(dx), backend.floats(dWeight));
  return [dx, dWeight];
});

registerFused<'x' | 'weight'>('Linear', (backend, { x, weight }) => {
  const rows = dimension(x, 0);
  const out = backend.create([rows, dimension(weight, 0)]);
  backend.addon.linear(backend.floats(x), backend.floats(weight), rows, backend.floats(out));
  return [out];
});

registerFused<'x' | 'weight' | 'dy'>('LinearGrad', (backend, { x, weight, dy }) => {
  const dx = backend.create(x.shape);
  const dWeight = backend.create(weight.shape);
  const [values, matrix, upstream] = [backend.floats(x), backend.floats(weight), backend.floats(dy)];
  const rows = dimension(x, 0);
  backend.addon.linearGrad(values, matrix, upstream, rows, backend.floats(dx), backend.floats(dWeight));
  return [dx, dWeight];
});

/** The last tables of rotations; a step uses the same positions in every layer. */
class RopeTables {
  private readonly tables = new Map<string, Float32Array>();
  private readonly capacity = 16;

  get(backend: NativeBackend, positions: Int32Array, dim: number, theta: number): Float32Array {
    const key = `${dim}:${theta}:${positions.join()}`;
    let table = this.tables.get(key);
    if (!table) {
      table = new Float32Array(positions.length * dim);
      backend.addon.ropeTable(positions, dim, theta, table);
    }
    this.tables.delete(key);
    this.tables.set(key, table);
    const [oldest] = this.tables.keys();
    if (this.tables.size > this.capacity) this.tables.delete(oldest!);
    return table;
  }
}

const ropeTables = new RopeTables();

registerFused<'x' | 'positions', { theta: number; inverse: boolean }>(
  'Rope',
  (backend, { x, positions }, { theta, inverse }) => {
    const [, tokens, heads, dim] = x.shape as [number, number, number, number];
    const table = ropeTables.get(backend, backend.ints(positions), dim, theta);
    const out = backend.create(x.shape);
    backend.addon.rope(backend.floats(x), table, tokens, heads, inverse, backend.floats(out));
    return [out];
  },
);

type AttentionNames = 'q' | 'k' | 'v' | 'memoryKeys' | 'memoryValues' | 'lengths' | 'index';
type AttentionAttributes = { start: number; chunkLength: number; memoryGradient: boolean };
type AttentionInfos = Record<'q' | 'k' | 'v', Info> & Partial<Record<AttentionNames, Info>>;

function attentionArguments(
  backend: NativeBackend,
  { q, k, v, memoryKeys, memoryValues, lengths, index }: AttentionInfos,
  { start, chunkLength }: AttentionAttributes,
): AttentionArguments {
  const [batch, tokens, heads, dim] = q.shape as [number, number, number, number];
  const [, keyTokens, kvHeads] = k.shape as [number, number, number];
  const [, chunks, slots] = index?.shape ?? [0, 0, 0];
  const kept = memoryKeys?.shape[2] ?? 0;
  return [
    backend.floats(q),
    backend.floats(k),
    backend.floats(v),
    memoryKeys ? backend.floats(memoryKeys) : NO_FLOATS,
    memoryValues ? backend.floats(memoryValues) : NO_FLOATS,
    lengths ? backend.ints(lengths) : NO_INTS,
    index ? backend.ints(index) : NO_INTS,
    Int32Array.of(batch, tokens, keyTokens, heads, kvHeads, dim, kept, chunks!, slots!, start, chunkLength),
  ];
}

// The operation has a name without memories and one with; the kernel is the same. The third output is what the gradient
// keeps: the logarithm of each row's normaliser, [B, H, T].
for (const name of ['Attention', 'MemoryAttention']) {
  registerFused<AttentionNames, AttentionAttributes>(name, (backend, inputs, attributes) => {
    const [batch, tokens, heads] = inputs.q.shape as [number, number, number];
    const out = backend.create(inputs.q.shape);
    const share = backend.create([batch, tokens, heads, (inputs as AttentionInfos).index?.shape[2] ?? 0]);
    const lse = backend.create([batch, heads, tokens]);
    const given = attentionArguments(backend, inputs, attributes);
    backend.addon.attention(...given, backend.floats(out), backend.floats(share), backend.floats(lse));
    return [out, share, lse];
  });

  registerFused<AttentionNames | 'dy' | 'out' | 'state', AttentionAttributes>(
    `${name}Grad`,
    (backend, inputs, attributes) => {
      const { q, k, v, memoryKeys, memoryValues, dy, out, state } = inputs;
      const wanted = attributes.memoryGradient ? [q, k, v, memoryKeys, memoryValues] : [q, k, v];
      const gradients = wanted.map(({ shape }) => backend.create(shape));
      const [dq, dk, dv, dMemoryKeys = NO_FLOATS, dMemoryValues = NO_FLOATS] = gradients.map((x) => backend.floats(x));
      const upstream = [backend.floats(dy), backend.floats(out), backend.floats(state)] as const;
      const given = attentionArguments(backend, inputs, attributes);
      backend.addon.attentionGrad(...given, ...upstream, dq!, dk!, dv!, dMemoryKeys, dMemoryValues);
      return gradients;
    },
  );
}

registerFused<'gate' | 'up'>('Swiglu', (backend, { gate, up }) => {
  const out = backend.create(gate.shape);
  backend.addon.swiglu(backend.floats(gate), backend.floats(up), backend.floats(out));
  return [out];
});

registerFused<'gate' | 'up' | 'dy'>('SwigluGrad', (backend, { gate, up, dy }) => {
  const dGate = backend.create(gate.shape);
  const dUp = backend.create(up.shape);
  const [opened, carried, upstream] = [backend.floats(gate), backend.floats(up), backend.floats(dy)];
  backend.addon.swigluGrad(opened, carried, upstream, backend.floats(dGate), backend.floats(dUp));
  return [dGate, dUp];
});

/** Scores of all blocks of rows, and with `dy` the gradients: dHidden and dWeight. */
function headLoss(
  backend: NativeBackend,
  { hidden, weight, targets }: Record<'hidden' | 'weight' | 'targets', Info>,
  dy: number | undefined,
): { sum: number; losses: Info; dHidden: Float32Array; dWeight: Float32Array; state: Info } {
  const losses = backend.create([dimension(targets, 0)]);
  const [hiddenSize, weightSize] = [hidden, weight].map(({ shape }) => tf.util.sizeFromShape(shape)) as [
    number,
    number,
  ];
  const state = backend.create([dy === undefined ? 0 : hiddenSize + weightSize]);
  const gradients = backend.floats(state);
  const dHidden = gradients.subarray(0, hiddenSize);
  const dWeight = gradients.subarray(hiddenSize);
  const given = [backend.floats(hidden), backend.floats(weight), backend.ints(targets)] as const;
  const sum = backend.addon.crossEntropy(...given, dy ?? 0, backend.floats(losses), dHidden, dWeight);
  return { sum, losses, dHidden, dWeight, state };
}

// Inside a gradient the gradients are computed along with the loss, while the logits of a block are at hand, and kept as
// the state: [N·d + V·d] values instead of the logits or a second product with the output head.
registerFused<'hidden' | 'weight' | 'targets'>('CrossEntropy', (backend, inputs) => {
  const differentiating = tf.engine().state.gradientDepth > 0;
  const { sum, losses, state } = headLoss(backend, inputs, differentiating ? 1 : undefined);
  const total = backend.create([]);
  backend.floats(total)[0] = sum;
  return [total, losses, state];
});

registerFused<'hidden' | 'weight' | 'targets' | 'dy' | 'state'>('CrossEntropyGrad', (backend, inputs) => {
  const { hidden, weight, dy, state } = inputs;
  const dHidden = backend.create(hidden.shape);
  const dWeight = backend.create(weight.shape);
  const factor = backend.floats(dy)[0]!;
  const hiddenSize = tf.util.sizeFromShape(hidden.shape);
  const gradients = backend.floats(state);
  backend.addon.scale(gradients.subarray(0, hiddenSize), factor, backend.floats(dHidden));
  backend.addon.scale(gradients.subarray(hiddenSize), factor, backend.floats(dWeight));
  return [dHidden, dWeight];
});

registerFused<'q' | 'k' | 'lengths', { skip: number; rule: string }>(
  'TokenScores',
  (backend, { q, k, lengths }, { skip, rule }) => {
    const [batch, tokens, heads] = q.shape as [number, number, number];
    const kvHeads = dimension(k, 2);
    const out = backend.create([batch, kvHeads, tokens]);
    const given = [backend.floats(q), backend.floats(k), backend.ints(lengths)] as const;
    backend.addon.tokenScores(...given, tokens, heads, kvHeads, skip, rule === 'softmax', backend.floats(out));
    return [out];
  },
);

registerFused<'scores', { count: number }>('SelectTokens', (backend, { scores }, { count }) => {
  const [batch, heads, tokens] = scores.shape as [number, number, number];
  const out = backend.create([batch, heads, count], 'int32');
  const values = backend.floats(scores);
  const indices = backend.ints(out).fill(0);
  for (let row = 0; row < batch * heads; row++) {
    indices.set(bestTokens(values.subarray(row * tokens, (row + 1) * tokens), count), row * count);
  }
  return [out];
});

/** Places of the `count` best scores in text order; of equal ones the earlier; negative ones never. */
function bestTokens(scores: Float32Array, count: number): Int32Array {
  const real = Int32Array.from(scores.keys()).filter((token) => scores[token]! >= 0);
  return real
    .sort((a, b) => scores[b]! - scores[a]! || a - b)
    .slice(0, count)
    .sort();
}

registerFused<'x' | 'indices'>('GatherTokens', (backend, { x, indices }) => {
  const [, tokens, heads, dim] = x.shape as [number, number, number, number];
  const out = backend.create([...indices.shape, dim]);
  const [values, places] = [backend.floats(x), backend.ints(indices)];
  backend.addon.gatherTokens(values, places, tokens, heads, dimension(indices, 2), backend.floats(out));
  return [out];
});

registerFused<'indices' | 'dy', { tokens: number }>('GatherTokensGrad', (backend, { indices, dy }, { tokens }) => {
  const [batch, heads, kept, dim] = dy.shape as [number, number, number, number];
  const dx = backend.create([batch, tokens, heads, dim]);
  backend.addon.gatherTokensGrad(backend.ints(indices), backend.floats(dy), tokens, heads, kept, backend.floats(dx));
  return [dx];
});

type AdamwAttributes = Record<'lr' | 'beta1' | 'beta2' | 'epsilon' | 'weightDecay' | 'step' | 'gradScale', number>;

registerFused<'parameter' | 'gradient' | 'm' | 'v', AdamwAttributes>('Adamw', (backend, inputs, attributes) => {
  const { parameter, gradient, m, v } = inputs;
  const { lr, beta1, beta2, epsilon, weightDecay, step, gradScale } = attributes;
  const outputs = [parameter, m, v].map(({ shape }) => backend.create(shape));
  const [newParameter, newM, newV] = outputs.map((x) => backend.floats(x)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const given = [backend.floats(parameter), backend.floats(gradient), backend.floats(m), backend.floats(v)] as const;
  const numbers = [lr, beta1, beta2, epsilon, weightDecay, step, gradScale] as const;
  backend.addon.adamw(...given, ...numbers, newParameter, newM, newV);
  return outputs;
});

registerFused<string>('GlobalNorm', (backend, tensors) => {
  let sum = 0;
  for (const tensor of Object.values(tensors)) sum += backend.addon.sumOfSquares(backend.floats(tensor));
  const out = backend.create([]);
  backend.floats(out)[0] = Math.sqrt(sum);
  return [out];
});
