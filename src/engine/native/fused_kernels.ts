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

type LinearNames = 'x' | 'residual' | `weight${number}` | `dy${number}`;

/** The inputs that are numbered under a name, in order. */
const numbered = (inputs: Record<string, Info>, name: string): Info[] =>
  [0, 1, 2].map((i) => inputs[`${name}${i}`]).filter((input) => input !== undefined);

for (const name of ['Linear', 'LinearPair', 'LinearTriple', 'LinearResidual']) {
  registerFused<LinearNames>(name, (backend, inputs) => {
    const { x, residual } = inputs as { x: Info; residual?: Info };
    const rows = dimension(x, 0);
    const weights = numbered(inputs, 'weight');
    const outs = weights.map((weight) => backend.create([rows, dimension(weight, 0)]));
    const added = residual ? backend.floats(residual) : NO_FLOATS;
    backend.addon.linear(backend.floats(x), backend.allFloats(weights), added, rows, backend.allFloats(outs));
    return outs;
  });
}

for (const name of ['LinearGrad', 'LinearPairGrad', 'LinearTripleGrad']) {
  registerFused<LinearNames>(name, (backend, inputs) => {
    const { x } = inputs;
    const weights = numbered(inputs, 'weight');
    const dx = backend.create(x.shape);
    const dWeights = weights.map(({ shape }) => backend.create(shape));
    const given = [backend.floats(x), backend.allFloats(weights), backend.allFloats(numbered(inputs, 'dy'))] as const;
    backend.addon.linearGrad(...given, dimension(x, 0), backend.floats(dx), backend.allFloats(dWeights));
    return [dx, ...dWeights];
  });
}

registerFused<'x' | 'positions', { theta: number; inverse: boolean }>(
  'Rope',
  (backend, { x, positions }, { theta, inverse }) => {
    const [, , heads, dim] = x.shape as [number, number, number, number];
    const out = backend.create(x.shape);
    const given = [backend.floats(x), backend.ints(positions), heads, dim, theta, inverse] as const;
    backend.addon.rope(...given, backend.floats(out));
    return [out];
  },
);

type AttentionNames = 'q' | 'k' | 'v' | 'memoryKeys' | 'memoryValues' | 'lengths' | 'index' | 'firstVisible';
type AttentionAttributes = { start: number; chunkLength: number; memoryGradient: boolean; keyTokens: number };
type AttentionInfos = Record<'q' | 'k' | 'v', Info> & Partial<Record<AttentionNames, Info>>;

function attentionArguments(
  backend: NativeBackend,
  { q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible }: AttentionInfos,
  { start, chunkLength, keyTokens }: AttentionAttributes,
): AttentionArguments {
  const [batch, tokens, heads, dim] = q.shape as [number, number, number, number];
  const [, room, kvHeads] = k.shape as [number, number, number];
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
    firstVisible ? backend.ints(firstVisible) : NO_INTS,
    [batch, tokens, keyTokens, heads, kvHeads, dim, kept, chunks!, slots!, start, chunkLength, room],
  ];
}

// The operation has a name for each of its lists of inputs; the kernel is the same. The third output is what the gradient
// keeps: the logarithm of each row's normaliser, [B, H, T].
for (const name of ['Attention', 'MemoryAttention', 'DocumentAttention', 'DocumentMemoryAttention']) {
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

registerFused<'store' | 'x', { at: number }>('AppendTokens', (backend, { store, x }, { at }) => {
  const [batch, room, heads, dim] = store.shape as [number, number, number, number];
  const sole = backend.isSole(store);
  const out = sole ? backend.share(store, store.shape) : backend.create(store.shape);
  if (!sole) backend.addon.cast(backend.floats(store), backend.floats(out));
  const [width, from] = [heads * dim, dimension(x, 1) * heads * dim];
  const [values, target] = [backend.floats(x), backend.floats(out)];
  backend.addon.copyRows(values, 0, from, batch, from, room * width, at * width, target);
  return [out];
});

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

/** Both gradients stand in one tensor, the state that a loss keeps: dHidden `[N, d]`, then dWeight `[V, d]`. */
function headGradients(
  backend: NativeBackend,
  state: Info,
  hidden: Info,
): [dHidden: Float32Array, dWeight: Float32Array] {
  const gradients = backend.floats(state);
  const hiddenSize = gradients.length > 0 ? tf.util.sizeFromShape(hidden.shape) : 0;
  return [gradients.subarray(0, hiddenSize), gradients.subarray(hiddenSize)];
}

// Inside a gradient the gradients are computed along with the loss, while the logits of a block are at hand, and kept as
// the state: [N·d + V·d] values instead of the logits or a second product with the output head.
registerFused<'hidden' | 'weight' | 'targets'>('CrossEntropy', (backend, { hidden, weight, targets }) => {
  const differentiating = tf.engine().state.gradientDepth > 0;
  const sum = backend.create([]);
  const losses = backend.create([dimension(targets, 0)]);
  const state = backend.create([
    differentiating ? tf.util.sizeFromShape(hidden.shape) + tf.util.sizeFromShape(weight.shape) : 0,
  ]);
  const given = [backend.floats(hidden), backend.floats(weight), backend.ints(targets)] as const;
  const gradients = headGradients(backend, state, hidden);
  backend.addon.crossEntropy(...given, backend.floats(sum), backend.floats(losses), ...gradients);
  return [sum, losses, state];
});

registerFused<'hidden' | 'weight' | 'targets' | 'dy' | 'state'>('CrossEntropyGrad', (backend, inputs) => {
  const { hidden, weight, dy, state } = inputs;
  const outputs = [backend.create(hidden.shape), backend.create(weight.shape)] as const;
  for (const [i, gradient] of headGradients(backend, state, hidden).entries()) {
    backend.addon.scale(gradient, backend.floats(dy), backend.floats(outputs[i]!));
  }
  return [...outputs];
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
  backend.addon.selectTokens(backend.floats(scores), tokens, count, backend.ints(out));
  return [out];
});

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

const STORAGE_TYPES = ['float32', 'float16', 'bfloat16'];
type UnpackAttributes = Record<'memoryLayers' | 'kvHeads' | 'keptTokens' | 'headDim', number> & { type: string };

registerFused<'rows', UnpackAttributes>('UnpackMemories', (backend, { rows }, { type, memoryLayers, ...part }) => {
  const memories = dimension(rows, 0);
  const shape = [memories, part.kvHeads, part.keptTokens, part.headDim];
  const parts = Array.from({ length: 2 * memoryLayers }, () => backend.create(shape));
  backend.addon.unpackMemories(backend.ints(rows), STORAGE_TYPES.indexOf(type), memories, backend.allFloats(parts));
  return parts;
});

type AdamwAttributes = Record<'lr' | 'beta1' | 'beta2' | 'epsilon' | 'weightDecay' | 'step' | 'gradScale', number> & {
  inPlace: boolean;
  count: number;
};

registerFused<string, AdamwAttributes>('Adamw', (backend, inputs, attributes) => {
  const { lr, beta1, beta2, epsilon, weightDecay, step, gradScale, inPlace, count } = attributes;
  const all = (name: string): Info[] => Array.from({ length: count }, (_, i) => inputs[`${name}${i}`]!);
  const before = [all('parameter'), all('m'), all('v')] as const;
  const after = before.map((infos) =>
    infos.map((x) => (inPlace && backend.isSole(x) ? backend.share(x, x.shape) : backend.create(x.shape))),
  );
  const [parameters, m, v] = before.map((infos) => backend.allFloats(infos)) as [
    Float32Array[],
    Float32Array[],
    Float32Array[],
  ];
  const [newParameters, newM, newV] = after.map((infos) => backend.allFloats(infos)) as [
    Float32Array[],
    Float32Array[],
    Float32Array[],
  ];
  const numbers = [lr, beta1, beta2, epsilon, weightDecay, step, gradScale] as const;
  backend.addon.adamw(parameters, backend.allFloats(all('gradient')), m, v, ...numbers, newParameters, newM, newV);
  return after[0]!.flatMap((parameter, i) => [parameter, after[1]![i]!, after[2]![i]!]);
});

registerFused<string>('GlobalNorm', (backend, tensors) => {
  const out = backend.create([]);
  const arrays = Object.values(tensors).map((tensor) => backend.floats(tensor));
  backend.addon.globalNorm(arrays, backend.floats(out));
  return [out];
});
