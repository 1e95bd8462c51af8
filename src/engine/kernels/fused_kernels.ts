/**
 * The fused operations of src/ops, under the names, inputs, attributes and outputs that they have there. Activations and
 * their gradients are made as such; losses, sums, scores, what a gradient keeps and gradients of weights in full precision.
 * Legend: B batch, T tokens, Tk context tokens, H query heads, K key-value heads, D headDim, d hiddenSize, V vocabulary,
 * M memories, S kept tokens per memory, C chunks, R memory slots per chunk.
 */

import * as tf from '../tf.ts';
import type { AttentionArguments, Floats, Ints } from './kernels.ts';
import { type Backend, fusedKernel } from './register.ts';

type Info = tf.TensorInfo;

/** Dimension `axis` of a tensor. */
const dimension = (x: Info, axis: number): number => x.shape[axis]!;

fusedKernel<'ids' | 'weight'>('Embedding', (backend, { ids, weight }) => {
  const width = dimension(weight, 1);
  const out = backend.activation([tf.util.sizeFromShape(ids.shape), width]);
  backend.kernels.embedding(backend.ints(ids), backend.floats(weight), width, backend.floats(out));
  return [out];
});

fusedKernel<'ids' | 'dy', { rows: number }>('EmbeddingGrad', (backend, { ids, dy }, { rows }) => {
  const dWeight = backend.create([rows, dimension(dy, 1)]);
  backend.kernels.embeddingGrad(backend.ints(ids), backend.floats(dy), rows, backend.floats(dWeight));
  return [dWeight];
});

fusedKernel<'x' | 'weight', { epsilon: number }>('RmsNorm', (backend, { x, weight }, { epsilon }) => {
  const out = backend.activation(x.shape);
  backend.kernels.rmsNorm(backend.floats(x), backend.floats(weight), epsilon, backend.floats(out));
  return [out];
});

fusedKernel<'x' | 'weight' | 'dy', { epsilon: number }>('RmsNormGrad', (backend, { x, weight, dy }, { epsilon }) => {
  const dx = backend.activation(x.shape);
  const dWeight = backend.create(weight.shape);
  const [values, scale, upstream] = [backend.floats(x), backend.floats(weight), backend.floats(dy)];
  backend.kernels.rmsNormGrad(values, scale, upstream, epsilon, backend.floats(dx), backend.floats(dWeight));
  return [dx, dWeight];
});

type LinearNames = 'x' | 'residual' | `weight${number}` | `dy${number}`;

/** The inputs that are numbered under a name, in order. */
const numbered = (inputs: Record<string, Info>, name: string): Info[] =>
  [0, 1, 2].map((i) => inputs[`${name}${i}`]).filter((input) => input !== undefined);

for (const name of ['Linear', 'LinearPair', 'LinearTriple', 'LinearResidual']) {
  fusedKernel<LinearNames>(name, (backend, inputs) => {
    const { x, residual } = inputs as { x: Info; residual?: Info };
    const rows = dimension(x, 0);
    const weights = numbered(inputs, 'weight');
    const outs = weights.map((weight) => backend.activation([rows, dimension(weight, 0)]));
    const added = residual ? backend.floats(residual) : backend.noFloats;
    backend.kernels.linear(backend.floats(x), backend.allFloats(weights), added, rows, backend.allFloats(outs));
    return outs;
  });
}

for (const name of ['LinearGrad', 'LinearPairGrad', 'LinearTripleGrad']) {
  fusedKernel<LinearNames>(name, (backend, inputs) => {
    const { x } = inputs;
    const weights = numbered(inputs, 'weight');
    const dx = backend.activation(x.shape);
    const dWeights = weights.map(({ shape }) => backend.create(shape));
    const given = [backend.floats(x), backend.allFloats(weights), backend.allFloats(numbered(inputs, 'dy'))] as const;
    backend.kernels.linearGrad(...given, dimension(x, 0), backend.floats(dx), backend.allFloats(dWeights));
    return [dx, ...dWeights];
  });
}

fusedKernel<'x', { shape: number[] }>('View', (backend, { x }, { shape }) => [backend.share(x, shape)]);

fusedKernel<'x' | 'positions', { theta: number; inverse: boolean }>(
  'Rope',
  (backend, { x, positions }, { theta, inverse }) => {
    const [, , heads, dim] = x.shape as [number, number, number, number];
    const out = backend.activation(x.shape);
    const given = [backend.floats(x), backend.ints(positions), heads, dim, theta, inverse] as const;
    backend.kernels.rope(...given, backend.floats(out));
    return [out];
  },
);

type AttentionNames = 'q' | 'k' | 'v' | 'memoryKeys' | 'memoryValues' | 'lengths' | 'index' | 'firstVisible';
type AttentionAttributes = { start: number; chunkLength: number; memoryGradient: boolean; keyTokens: number };
type AttentionInfos = Record<'q' | 'k' | 'v', Info> & Partial<Record<AttentionNames, Info>>;

function attentionArguments(
  backend: Backend,
  { q, k, v, memoryKeys, memoryValues, lengths, index, firstVisible }: AttentionInfos,
  { start, chunkLength, keyTokens }: AttentionAttributes,
): AttentionArguments<Floats, Ints> {
  const [batch, tokens, heads, dim] = q.shape as [number, number, number, number];
  const [, room, kvHeads] = k.shape as [number, number, number];
  const [, chunks, slots] = index?.shape ?? [0, 0, 0];
  const kept = memoryKeys?.shape[2] ?? 0;
  return [
    backend.floats(q),
    backend.floats(k),
    backend.floats(v),
    memoryKeys ? backend.floats(memoryKeys) : backend.noFloats,
    memoryValues ? backend.floats(memoryValues) : backend.noFloats,
    lengths ? backend.ints(lengths) : backend.noInts,
    index ? backend.ints(index) : backend.noInts,
    firstVisible ? backend.ints(firstVisible) : backend.noInts,
    [batch, tokens, keyTokens, heads, kvHeads, dim, kept, chunks!, slots!, start, chunkLength, room],
  ];
}

// The operation has a name for each of its lists of inputs; the kernel is the same. The third output is what the gradient
// keeps: the logarithm of each row's normaliser, [B, H, T].
for (const name of ['Attention', 'MemoryAttention', 'DocumentAttention', 'DocumentMemoryAttention']) {
  fusedKernel<AttentionNames, AttentionAttributes>(name, (backend, inputs, attributes) => {
    const [batch, tokens, heads] = inputs.q.shape as [number, number, number];
    const out = backend.activation(inputs.q.shape);
    const share = backend.create([batch, tokens, heads, (inputs as AttentionInfos).index?.shape[2] ?? 0]);
    const lse = backend.create([batch, heads, tokens]);
    const given = attentionArguments(backend, inputs, attributes);
    backend.kernels.attention(...given, backend.floats(out), backend.floats(share), backend.floats(lse));
    return [out, share, lse];
  });

  fusedKernel<AttentionNames | 'dy' | 'out' | 'state', AttentionAttributes>(
    `${name}Grad`,
    (backend, inputs, attributes) => {
      const { q, k, v, memoryKeys, memoryValues, dy, out, state } = inputs;
      const wanted = attributes.memoryGradient ? [q, k, v, memoryKeys, memoryValues] : [q, k, v];
      const gradients = wanted.map(({ shape }) => backend.activation(shape));
      const [dq, dk, dv, dMemoryKeys = backend.noFloats, dMemoryValues = backend.noFloats] = gradients.map((x) =>
        backend.floats(x),
      );
      const upstream = [backend.floats(dy), backend.floats(out), backend.floats(state)] as const;
      const given = attentionArguments(backend, inputs, attributes);
      backend.kernels.attentionGrad(...given, ...upstream, dq!, dk!, dv!, dMemoryKeys, dMemoryValues);
      return gradients;
    },
  );
}

fusedKernel<'store' | 'x', { at: number }>('AppendTokens', (backend, { store, x }, { at }) => {
  const [batch, room, heads, dim] = store.shape as [number, number, number, number];
  const inPlace = backend.isSole(store) && backend.isActivation(store);
  const out = inPlace ? backend.share(store, store.shape) : backend.activation(store.shape);
  if (!inPlace) backend.kernels.cast(backend.floats(store), backend.floats(out));
  const [width, from] = [heads * dim, dimension(x, 1) * heads * dim];
  const [values, target] = [backend.floats(x), backend.floats(out)];
  backend.kernels.copyRows(values, 0, from, batch, from, room * width, at * width, target);
  return [out];
});

fusedKernel<'gate' | 'up'>('Swiglu', (backend, { gate, up }) => {
  const out = backend.activation(gate.shape);
  backend.kernels.swiglu(backend.floats(gate), backend.floats(up), backend.floats(out));
  return [out];
});

fusedKernel<'gate' | 'up' | 'dy'>('SwigluGrad', (backend, { gate, up, dy }) => {
  const dGate = backend.activation(gate.shape);
  const dUp = backend.activation(up.shape);
  const [opened, carried, upstream] = [backend.floats(gate), backend.floats(up), backend.floats(dy)];
  backend.kernels.swigluGrad(opened, carried, upstream, backend.floats(dGate), backend.floats(dUp));
  return [dGate, dUp];
});

/** Both gradients stand in one tensor, the state that a loss keeps: dHidden `[N, d]`, then dWeight `[V, d]`. */
function headGradients(backend: Backend, state: Info, hidden: Info): [dHidden: Floats, dWeight: Floats] {
  const size = dimension(state, 0);
  const hiddenSize = size > 0 ? tf.util.sizeFromShape(hidden.shape) : 0;
  return [backend.part(state, 0, hiddenSize), backend.part(state, hiddenSize, size)];
}

// Inside a gradient the gradients are computed along with the loss, while the logits of a block are at hand, and kept as
// the state: [N·d + V·d] values instead of the logits or a second product with the output head.
fusedKernel<'hidden' | 'weight' | 'targets'>('CrossEntropy', (backend, { hidden, weight, targets }) => {
  const differentiating = tf.engine().state.gradientDepth > 0;
  const sum = backend.create([]);
  const losses = backend.create([dimension(targets, 0)]);
  const state = backend.create([
    differentiating ? tf.util.sizeFromShape(hidden.shape) + tf.util.sizeFromShape(weight.shape) : 0,
  ]);
  const given = [backend.floats(hidden), backend.floats(weight), backend.ints(targets)] as const;
  const gradients = headGradients(backend, state, hidden);
  backend.kernels.crossEntropy(...given, backend.floats(sum), backend.floats(losses), ...gradients);
  return [sum, losses, state];
});

fusedKernel<'hidden' | 'weight' | 'targets' | 'dy' | 'state'>('CrossEntropyGrad', (backend, inputs) => {
  const { hidden, weight, dy, state } = inputs;
  const outputs = [backend.activation(hidden.shape), backend.create(weight.shape)] as const;
  for (const [i, gradient] of headGradients(backend, state, hidden).entries()) {
    backend.kernels.scale(gradient, backend.floats(dy), backend.floats(outputs[i]!));
  }
  return [...outputs];
});

fusedKernel<'q' | 'k' | 'lengths', { skip: number; rule: string }>(
  'TokenScores',
  (backend, { q, k, lengths }, { skip, rule }) => {
    const [batch, tokens, heads] = q.shape as [number, number, number];
    const kvHeads = dimension(k, 2);
    const out = backend.create([batch, kvHeads, tokens]);
    const given = [backend.floats(q), backend.floats(k), backend.ints(lengths)] as const;
    backend.kernels.tokenScores(...given, tokens, heads, kvHeads, skip, rule === 'softmax', backend.floats(out));
    return [out];
  },
);

fusedKernel<'scores', { count: number }>('SelectTokens', (backend, { scores }, { count }) => {
  const [batch, heads, tokens] = scores.shape as [number, number, number];
  const out = backend.create([batch, heads, count], 'int32');
  backend.kernels.selectTokens(backend.floats(scores), tokens, count, backend.ints(out));
  return [out];
});

fusedKernel<'x' | 'indices'>('GatherTokens', (backend, { x, indices }) => {
  const [, tokens, heads, dim] = x.shape as [number, number, number, number];
  const out = backend.activation([...indices.shape, dim]);
  const [values, places] = [backend.floats(x), backend.ints(indices)];
  backend.kernels.gatherTokens(values, places, tokens, heads, dimension(indices, 2), backend.floats(out));
  return [out];
});

fusedKernel<'indices' | 'dy', { tokens: number }>('GatherTokensGrad', (backend, { indices, dy }, { tokens }) => {
  const [batch, heads, kept, dim] = dy.shape as [number, number, number, number];
  const dx = backend.activation([batch, tokens, heads, dim]);
  backend.kernels.gatherTokensGrad(backend.ints(indices), backend.floats(dy), tokens, heads, kept, backend.floats(dx));
  return [dx];
});

const STORAGE_TYPES = ['float32', 'float16', 'bfloat16'];
type UnpackAttributes = Record<'memoryLayers' | 'kvHeads' | 'keptTokens' | 'headDim', number> & { type: string };

fusedKernel<'rows', UnpackAttributes>('UnpackMemories', (backend, { rows }, { type, memoryLayers, ...part }) => {
  const memories = dimension(rows, 0);
  const shape = [memories, part.kvHeads, part.keptTokens, part.headDim];
  const parts = Array.from({ length: 2 * memoryLayers }, () => backend.activation(shape));
  backend.kernels.unpackMemories(backend.ints(rows), STORAGE_TYPES.indexOf(type), memories, backend.allFloats(parts));
  return parts;
});

type AdamwAttributes = Record<'lr' | 'beta1' | 'beta2' | 'epsilon' | 'weightDecay' | 'step' | 'gradScale', number> & {
  inPlace: boolean;
  count: number;
};

/** The same of parameters, first and second moments. */
const eachOf = <A, B>([parameters, m, v]: readonly [A, A, A], f: (x: A) => B): [B, B, B] => [f(parameters), f(m), f(v)];

fusedKernel<string, AdamwAttributes>('Adamw', (backend, inputs, attributes) => {
  const { lr, beta1, beta2, epsilon, weightDecay, step, gradScale, inPlace, count } = attributes;
  const all = (name: string): Info[] => Array.from({ length: count }, (_, i) => inputs[`${name}${i}`]!);
  const before = [all('parameter'), all('m'), all('v')] as const;
  const after = eachOf(before, (infos) =>
    infos.map((x) => (inPlace && backend.isSole(x) ? backend.share(x, x.shape) : backend.create(x.shape))),
  );
  const [parameters, m, v] = eachOf(before, (infos) => backend.allFloats(infos));
  const [newParameters, newM, newV] = eachOf(after, (infos) => backend.allFloats(infos));
  const numbers = [lr, beta1, beta2, epsilon, weightDecay, step, gradScale] as const;
  backend.kernels.adamw(parameters, backend.allFloats(all('gradient')), m, v, ...numbers, newParameters, newM, newV);
  return after[0].flatMap((parameter, i) => [parameter, after[1][i]!, after[2][i]!]);
});

fusedKernel<string>('GlobalNorm', (backend, tensors) => {
  const out = backend.create([]);
  backend.kernels.globalNorm(backend.allFloats(Object.values(tensors)), backend.floats(out));
  return [out];
});
