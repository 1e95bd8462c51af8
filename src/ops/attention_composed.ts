/**
 * The portable composition of attention with memories. Queries are cut into chunks, every chunk gets the keys of its
 * memories in front of a copy of the context's, and each (sequence, key-value head, chunk) is one matrix product.
 * Legend: B batch, T query tokens, Tk context tokens, H query heads, K key-value heads, G = H/K, D headDim, M memories,
 * S kept tokens per memory, R memory slots per chunk, C' chunks as cut here, L tokens of such a chunk,
 * P = B·K·C' products, Z = R·S + Tk keys of a product.
 */

import * as tf from '../engine/tf.ts';
import type { AttentionAttributes, AttentionGradInputs, AttentionInputs } from './attention.ts';
import { gatherRows, rowIndex, scatterRows } from './composition.ts';
import { ConstantCache } from './kernel.ts';

/** Added to the scores of keys that are not to be seen; finite, so that no row can become NaN. */
const HIDDEN = -1e9;
/** Probabilities of more elements than this are computed again in the backward pass instead of kept. */
const MAX_STATE_SIZE = 2 ** 24;

interface Layout {
  batch: number;
  tokens: number;
  keyTokens: number;
  kvHeads: number;
  group: number;
  dim: number;
  /** L */
  chunkLength: number;
  /** C' */
  chunks: number;
  /** Empty rows in front of the queries, so that `start` falls on a chunk border, and behind them. */
  padding: [front: number, back: number];
  /** R and S; 0 without memories. */
  slots: number;
  kept: number;
  /** Memory of each slot, −1 for none, `[B, C', R]`. */
  memoryOfSlot: Int32Array;
  /** Valid tokens of each memory, `[M]`. */
  lengths: Int32Array;
  /** First key of the context that each query sees, `[B, T]`; absent: all from the start. */
  firstVisible: Int32Array | undefined;
}

function layoutOf(
  { q, k, memoryKeys, lengths, index, firstVisible }: AttentionInputs,
  attributes: AttentionAttributes,
): Layout {
  const [batch, tokens, heads, dim] = q.shape as [number, number, number, number];
  const [, keyTokens, kvHeads] = k.shape as [number, number, number];
  const { start } = attributes;
  const chunkLength = Math.min(attributes.chunkLength, tokens - start);
  const frontChunks = Math.ceil(start / chunkLength);
  const chunks = frontChunks + Math.ceil((tokens - start) / chunkLength);
  const front = frontChunks * chunkLength - start;
  const sizes = { batch, tokens, keyTokens, kvHeads, group: heads / kvHeads, dim, chunkLength, chunks };
  const base = { ...sizes, firstVisible: firstVisible?.dataSync<'int32'>() };
  const padding: Layout['padding'] = [front, chunks * chunkLength - front - tokens];
  if (!memoryKeys || !lengths || !index) {
    return { ...base, padding, slots: 0, kept: 0, memoryOfSlot: new Int32Array(), lengths: new Int32Array() };
  }
  const [, indexChunks, slots] = index.shape as [number, number, number];
  const given = index.dataSync<'int32'>();
  const memoryOfSlot = new Int32Array(batch * chunks * slots).fill(-1);
  for (let b = 0; b < batch; b++) {
    for (let c = frontChunks; c < chunks; c++) {
      const from = (b * indexChunks + Math.min(c - frontChunks, indexChunks - 1)) * slots;
      memoryOfSlot.set(given.subarray(from, from + slots), (b * chunks + c) * slots);
    }
  }
  return { ...base, padding, slots, kept: memoryKeys.shape[2]!, memoryOfSlot, lengths: lengths.dataSync<'int32'>() };
}

/** `[B, T, H, width]` → `[P, G·L, width]`. */
function groupRows(x: tf.Tensor, layout: Layout): tf.Tensor3D {
  const { batch, tokens, kvHeads, group, chunks, chunkLength, padding } = layout;
  const width = x.shape[3]!;
  let rows: tf.Tensor = x.reshape([batch, tokens, kvHeads * group * width]);
  if (padding[0] + padding[1] > 0) rows = tf.pad(rows, [[0, 0], padding, [0, 0]]);
  return tf
    .transpose(rows.reshape([batch, chunks, chunkLength, kvHeads, group, width]), [0, 3, 1, 4, 2, 5])
    .reshape([batch * kvHeads * chunks, group * chunkLength, width]);
}

/** The way back: `[P, G·L, width]` → `[B, T, H, width]`. */
function ungroupRows(x: tf.Tensor, layout: Layout): tf.Tensor4D {
  const { batch, tokens, kvHeads, group, chunks, chunkLength, padding } = layout;
  const width = x.shape[2]!;
  const rows = tf
    .transpose(x.reshape([batch, kvHeads, chunks, group, chunkLength, width]), [0, 2, 4, 1, 3, 5])
    .reshape([batch, chunks * chunkLength, kvHeads * group * width]);
  const real = padding[0] + padding[1] > 0 ? tf.slice(rows, [0, padding[0], 0], [batch, tokens, -1]) : rows;
  return real.reshape([batch, tokens, kvHeads * group, width]);
}

/** For each product its (sequence, head), `[P, 1]`. */
function contextRows({ batch, kvHeads, chunks }: Layout): tf.Tensor2D {
  return rowIndex(Int32Array.from({ length: batch * kvHeads * chunks }, (_, product) => Math.floor(product / chunks)));
}

/** For each product and slot its (memory, head), `[P·R, 1]`. Empty slots point to memory 0 and are hidden by the bias. */
function memoryRows({ batch, kvHeads, chunks, slots, memoryOfSlot }: Layout): tf.Tensor2D {
  const rows = new Int32Array(batch * kvHeads * chunks * slots);
  let n = 0;
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < kvHeads; head++) {
      for (let slot = b * chunks * slots; slot < (b + 1) * chunks * slots; slot++) {
        rows[n++] = Math.max(memoryOfSlot[slot]!, 0) * kvHeads + head;
      }
    }
  }
  return rowIndex(rows);
}

/** Keys or values of each product, those of its memories in front: `[P, Z, D]`. */
function joinKeys(context: tf.Tensor, memories: tf.Tensor | undefined, layout: Layout): tf.Tensor3D {
  const { batch, keyTokens, kvHeads, dim, chunks, slots, kept } = layout;
  const products = batch * kvHeads * chunks;
  let rows: tf.Tensor = tf.transpose(context, [0, 2, 1, 3]).reshape([batch * kvHeads, keyTokens * dim]);
  if (chunks > 1) rows = gatherRows(rows, contextRows(layout));
  if (memories) {
    const memoryPart = gatherRows(memories.reshape([-1, kept * dim]), memoryRows(layout));
    rows = tf.concat([memoryPart.reshape([products, slots * kept * dim]), rows], 1);
  }
  return rows.reshape([products, slots * kept + keyTokens, dim]);
}

/** The gradient of `joinKeys`: of the context `[B, Tk, K, D]` and, when asked for, of the memories `[M, K, S, D]`. */
function splitKeys(
  dKeys: tf.Tensor,
  layout: Layout,
  wantMemories: boolean,
): { context: tf.Tensor; memories?: tf.Tensor } {
  const { batch, keyTokens, kvHeads, dim, chunks, slots, kept, lengths } = layout;
  const products = batch * kvHeads * chunks;
  const memoryWidth = slots * kept * dim;
  const flat = dKeys.reshape([products, -1]);
  let rows = slots > 0 ? tf.slice(flat, [0, memoryWidth], [products, -1]) : flat;
  if (chunks > 1) rows = scatterRows(rows, contextRows(layout), batch * kvHeads);
  const context = tf.transpose(rows.reshape([batch, kvHeads, keyTokens, dim]), [0, 2, 1, 3]);
  if (!wantMemories) return { context };
  const memoryPart = tf.slice(flat, [0, 0], [products, memoryWidth]).reshape([products * slots, kept * dim]);
  const memories = scatterRows(memoryPart, memoryRows(layout), lengths.length * kvHeads);
  return { context, memories: memories.reshape([lengths.length, kvHeads, kept, dim]) };
}

const masks = new ConstantCache(8);

/** Hides the context behind each query, `[C', 1, L, Z]`; undefined when every query sees all. */
function causalMask(layout: Layout): tf.Tensor | undefined {
  const { tokens, keyTokens, chunks, chunkLength, padding, slots, kept } = layout;
  if (tokens === 1) return undefined;
  const before = slots * kept;
  const width = before + keyTokens;
  return masks.get([tokens, keyTokens, chunks, chunkLength, padding[0], before].join(), () => {
    const values = new Float32Array(chunks * chunkLength * width);
    for (let token = 0; token < tokens; token++) {
      const row = (padding[0] + token) * width;
      values.fill(HIDDEN, row + before + token + keyTokens - tokens + 1, row + width);
    }
    return tf.tensor(values, [chunks, 1, chunkLength, width]);
  });
}

/** Hides the context before the document of each query, `[B, 1, C', 1, L, Z]`. */
function documentMask(layout: Layout, firstVisible: Int32Array): tf.Tensor {
  const { batch, tokens, keyTokens, chunks, chunkLength, padding, slots, kept } = layout;
  const before = slots * kept;
  const width = before + keyTokens;
  const values = new Float32Array(batch * chunks * chunkLength * width);
  for (const [query, first] of firstVisible.entries()) {
    const row = Math.floor(query / tokens) * chunks * chunkLength + padding[0] + (query % tokens);
    values.fill(HIDDEN, row * width + before, row * width + before + first);
  }
  return tf.tensor(values, [batch, 1, chunks, 1, chunkLength, width]);
}

/** Hides empty slots and the padding of memories, `[B, 1, C', 1, Z]`. */
function memoryBias({ batch, chunks, slots, kept, keyTokens, memoryOfSlot, lengths }: Layout): tf.Tensor {
  const width = slots * kept + keyTokens;
  const values = new Float32Array(batch * chunks * width);
  for (const [slot, memory] of memoryOfSlot.entries()) {
    const from = Math.floor(slot / slots) * width + (slot % slots) * kept;
    values.fill(HIDDEN, from + (memory < 0 ? 0 : lengths[memory]!), from + kept);
  }
  return tf.tensor(values, [batch, 1, chunks, 1, width]);
}

/** Softmax of the masked scores, `[P, G·L, Z]`; `queries` are scaled. */
function probabilities(queries: tf.Tensor3D, keys: tf.Tensor3D, layout: Layout): tf.Tensor3D {
  const { batch, kvHeads, chunks, group, chunkLength, slots, firstVisible } = layout;
  const width = keys.shape[1];
  let scores: tf.Tensor = tf.matMul(queries, keys, false, true);
  const mask = causalMask(layout);
  if (mask) scores = tf.add(scores.reshape([batch * kvHeads, chunks, group, chunkLength, width]), mask);
  if (firstVisible) {
    const rows = scores.reshape([batch, kvHeads, chunks, group, chunkLength, width]);
    scores = tf.add(rows, documentMask(layout, firstVisible));
  }
  if (slots > 0) scores = tf.add(scores.reshape([batch, kvHeads, chunks, -1, width]), memoryBias(layout));
  return tf.softmax(scores.reshape(queries.shape.with(2, width) as [number, number, number]));
}

/** Mass on each slot, `[B, T, H, R]`: a product with a matrix that adds up the S tokens of a slot. */
function shares(attended: tf.Tensor3D, layout: Layout): tf.Tensor4D {
  const { batch, tokens, kvHeads, group, slots, kept } = layout;
  if (slots === 0) return tf.zeros([batch, tokens, kvHeads * group, 0]);
  const width = attended.shape[2];
  const membership = masks.get(`slots:${slots}:${kept}:${width}`, () => {
    const values = new Float32Array(width * slots);
    for (let key = 0; key < slots * kept; key++) values[key * slots + Math.floor(key / kept)] = 1;
    return tf.tensor2d(values, [width, slots]);
  });
  const mass = tf.matMul(attended.reshape([-1, width]), membership);
  return ungroupRows(mass.reshape([attended.shape[0], attended.shape[1], slots]), layout);
}

/** Keys and values of the first tokens only. */
function withoutRoom(inputs: AttentionInputs, keyTokens: number): AttentionInputs {
  const [batch, room, heads, dim] = inputs.k.shape as [number, number, number, number];
  if (room === keyTokens) return inputs;
  const first = (x: tf.Tensor): tf.Tensor => tf.slice(x, [0, 0, 0, 0], [batch, keyTokens, heads, dim]);
  return { ...inputs, k: first(inputs.k), v: first(inputs.v) };
}

/** Composition of `Attention`: out, share and the probabilities (empty when too big to keep). */
export function attendComposed(given: AttentionInputs, attributes: AttentionAttributes): tf.Tensor[] {
  const inputs = withoutRoom(given, attributes.keyTokens);
  const layout = layoutOf(inputs, attributes);
  const queries = groupRows(tf.mul(inputs.q, 1 / Math.sqrt(layout.dim)), layout);
  const attended = probabilities(queries, joinKeys(inputs.k, inputs.memoryKeys, layout), layout);
  const out = tf.matMul(attended, joinKeys(inputs.v, inputs.memoryValues, layout));
  const state = attended.size <= MAX_STATE_SIZE ? attended : tf.zeros([0]);
  return [ungroupRows(out, layout), shares(attended, layout), state];
}

/** Composition of `AttentionGrad`. With dO the gradient of `out`: dScores = P ∘ (dO·Vᵀ − rowsum(dO ∘ out)). */
export function attendGradComposed(inputs: AttentionGradInputs, attributes: AttentionAttributes): tf.Tensor[] {
  const layout = layoutOf(inputs, attributes);
  const scale = 1 / Math.sqrt(layout.dim);
  const queries = groupRows(tf.mul(inputs.q, scale), layout);
  const keys = joinKeys(inputs.k, inputs.memoryKeys, layout);
  const values = joinKeys(inputs.v, inputs.memoryValues, layout);
  const attended = inputs.state.size > 0 ? (inputs.state as tf.Tensor3D) : probabilities(queries, keys, layout);
  const dOut = groupRows(inputs.dy, layout);
  const radial = groupRows(tf.sum(tf.mul(inputs.dy, inputs.out), 3, true), layout);
  const dScores = tf.mul(attended, tf.sub(tf.matMul(dOut, values, false, true), radial)) as tf.Tensor3D;
  const dq = tf.mul(ungroupRows(tf.matMul(dScores, keys), layout), scale);
  const dk = splitKeys(tf.matMul(dScores, queries, true), layout, attributes.memoryGradient);
  const dv = splitKeys(tf.matMul(attended, dOut, true), layout, attributes.memoryGradient);
  return [dq, dk.context, dv.context, ...(dk.memories && dv.memories ? [dk.memories, dv.memories] : [])];
}
