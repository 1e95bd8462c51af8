/**
 * Writing memories: references to sparse keys and values (paper §3.2, §3.3).
 * Legend: N references, L tokens of the longest with its prefix, Lmem memory layers, K key-value heads, S kept tokens,
 * D headDim, d hiddenSize.
 */

import type { MemoryConfig } from '../config/schema.ts';
import * as tf from '../engine/tf.ts';
import { attention, embedding, gatherTokens, rope, selectTokens, tokenScores } from '../ops/index.ts';
import { finish, type Projections, project } from './block.ts';
import { flatIds, type TokenIds } from './forward.ts';
import type { LayerWeights, Model } from './model.ts';
import { recomputed, released } from './recompute.ts';

export interface EncodeOptions {
  /** Tokens in front of each reference that take no part in the selection (`<s>Reference:`). */
  prefixLength: number;
  /** Tokens kept per layer and key-value head, S. */
  keptTokens: number;
  /** How a token is scored (paper §3.3). */
  tokenScores: MemoryConfig['tokenScores'];
  /**
   * Tokens between the prefix and each reference, `[N]`, that are read before it and take no part in the selection: the
   * document in front of it (paper, Remark 3). None when left out; not together with `recompute`.
   */
  contextLengths?: ArrayLike<number>;
  /** In a training step: run each block again in the backward pass instead of keeping its activations. */
  recompute?: boolean;
}

export interface EncodedReferences {
  /** Keys after RoPE at the places of the tokens in the reference, context not counted, one `[N, K, S, D]` per memory layer. */
  keys: tf.Tensor4D[];
  /** Values, likewise. */
  values: tf.Tensor4D[];
  /** Places of the kept tokens in their row, prefix counted, context not, one int32 `[N, K, S]` per memory layer. */
  indices: tf.Tensor3D[];
  /** Tokens kept of each reference, `[N]`: S, or all when there are fewer. */
  keptLengths: Int32Array;
}

/**
 * Encodes references, each alone and in any order, and keeps the tokens that matter most. Only the memory layers run,
 * and the last of them stops at its keys and values: nothing reads what would follow. Inside a gradient tape, keys and
 * values are differentiable with respect to the parameters; the choice of tokens is a constant.
 * @param ids prefix, context and reference tokens, `[N, L]`, padded at the end; positions count from 0 over all of them
 * @param lengths tokens of each row, prefix and context included, padding not
 * @returns tensors owned by the caller (or by the enclosing `tf.tidy`)
 */
export function encodeReferences(
  model: Model,
  ids: TokenIds,
  lengths: ArrayLike<number>,
  options: EncodeOptions,
): EncodedReferences {
  const { memoryLayers } = model.shape;
  const { prefixLength, keptTokens, contextLengths } = options;
  const ownLengths = Int32Array.from(lengths, (length, row) => length - (contextLengths?.[row] ?? 0));
  const keptLengths = ownLengths.map((length) => Math.min(keptTokens, Math.max(0, length - prefixLength)));
  const memories = tf.tidy(() => {
    const indices: tf.Tensor3D[] = [];
    const keys: tf.Tensor4D[] = [];
    const values: tf.Tensor4D[] = [];
    const tokens = rowLength(ids, lengths.length);
    const own = contextLengths && ownTokens(ownLengths, contextLengths, prefixLength, tokens);
    const rows = { lengths: tf.tensor1d(ownLengths, 'int32'), positions: positionsBelow(tokens), own };
    let x = embedding(flatIds(ids), model.embedding);
    for (let layer = 0; layer < memoryLayers; layer++) {
      const input = x;
      const encoded = tf.tidy(() => {
        const { indices: chosen, ...whole } = encodeLayer(model, layer, input, rows, options);
        const sparse = { keys: gatherTokens(whole.keys, chosen), values: gatherTokens(whole.values, chosen) };
        return { ...sparse, indices: released(chosen), x: whole.x };
      });
      indices.push(encoded.indices);
      keys.push(encoded.keys);
      values.push(encoded.values);
      x = encoded.x ?? x;
    }
    return { keys, values, indices };
  });
  return { ...memories, keptLengths };
}

/**
 * Where the kept tokens stand inside their references, prefix not counted.
 * @returns `[N, Lmem, K, S]`; zeros past `keptLengths`
 */
export async function keptPlaces(
  { indices, keptLengths }: Pick<EncodedReferences, 'indices' | 'keptLengths'>,
  prefixLength: number,
): Promise<Int32Array> {
  const [, heads, keptTokens] = indices[0]!.shape;
  const kept = new Int32Array(keptLengths.length * indices.length * heads * keptTokens);
  for (const [layer, places] of indices.entries()) {
    const rows = await places.data<'int32'>();
    for (const [reference, length] of keptLengths.entries()) {
      for (let head = 0; head < heads; head++) {
        const from = (reference * heads + head) * keptTokens;
        const to = ((reference * indices.length + layer) * heads + head) * keptTokens;
        for (let s = 0; s < length; s++) kept[to + s] = rows[from + s]! - prefixLength;
      }
    }
  }
  return kept;
}

/** Keys after RoPE and values of all tokens but the context, `[N, L, K, D]`; the residual stream `[N·L, d]`, but for the last layer. */
type EncodedTokens = { keys: tf.Tensor4D; values: tf.Tensor4D; x?: tf.Tensor2D };

/** What is known of the rows that are encoded. */
interface Rows {
  /** Tokens of each row, context not counted, int32 `[N]`. */
  lengths: tf.Tensor1D;
  /** int32 `[L]`. */
  positions: tf.Tensor1D;
  /** Where there is context. */
  own?: OwnTokens;
}

/** The rows of `[N·L, …]` that are no context, int32 `[N·L']`, and the positions that they get, int32 `[L']`. */
interface OwnTokens {
  rows: tf.Tensor1D;
  positions: tf.Tensor1D;
}

type EncoderInputs = LayerWeights & { x: tf.Tensor2D; positions: tf.Tensor1D };

function encodeLayer(
  model: Model,
  layer: number,
  x: tf.Tensor2D,
  { lengths, own, ...rows }: Rows,
  options: EncodeOptions,
): EncodedTokens & { indices: tf.Tensor3D } {
  const { shape } = model;
  let indices: tf.Tensor3D | undefined;
  const encode = ({ x: input, positions, ...weights }: EncoderInputs): EncodedTokens => {
    const { query, key, value } = project(shape, weights, input, positions.size);
    const reference = own ? withoutContext({ query, key, value }, own.rows, lengths.size) : { query, key, value };
    // When the backward pass comes through here again, the tokens are chosen already.
    indices ??= tf.keep(chooseTokens(reference.query, reference.key, lengths, options));
    // A reference keeps its place in the interval that all memories share, wherever it stands in its document.
    const places = own?.positions ?? positions;
    const written = { keys: rope(reference.key, places, shape.ropeTheta), values: reference.value };
    if (layer === shape.memoryLayers - 1) return written;
    const keys = own ? rope(key, positions, shape.ropeTheta) : written.keys;
    const { out } = attention(rope(query, positions, shape.ropeTheta), keys, value);
    return { ...written, x: finish(shape, weights, input, out) };
  };
  const inputs = { x, positions: rows.positions, ...model.layers[layer]! };
  const encoded = options.recompute ? recomputed(encode, inputs, x.shape[0]) : encode(inputs);
  return { ...encoded, indices: indices! };
}

/** Those that are prefix or reference, padded at the end of each reference. */
function ownTokens(
  lengths: Int32Array,
  contextLengths: ArrayLike<number>,
  prefixLength: number,
  tokens: number,
): OwnTokens {
  const longest = Math.max(...lengths);
  const rows = new Int32Array(lengths.length * longest);
  for (const [reference, length] of lengths.entries()) {
    const start = reference * tokens;
    // Past its length a row is not looked at.
    rows.fill(start, reference * longest, (reference + 1) * longest);
    for (let token = 0; token < length; token++) {
      const skipped = token < prefixLength ? 0 : contextLengths[reference]!;
      rows[reference * longest + token] = start + token + skipped;
    }
  }
  return { rows: tf.tensor1d(rows, 'int32'), positions: positionsBelow(longest) };
}

const positionsBelow = (count: number): tf.Tensor1D =>
  tf.tensor1d(
    Int32Array.from({ length: count }, (_, position) => position),
    'int32',
  );

/** L, the width of a row. */
function rowLength(ids: TokenIds, count: number): number {
  return ids instanceof tf.Tensor ? ids.size / count : ids instanceof Int32Array ? ids.length / count : ids[0]!.length;
}

/** `[N, L, heads, D]` to `[N, L', heads, D]`. */
function withoutContext(all: Projections, own: tf.Tensor1D, count: number): Projections {
  const pick = (x: tf.Tensor4D): tf.Tensor4D => {
    const [, , heads, dim] = x.shape;
    return embedding(own, x.reshape<tf.Tensor2D>([-1, heads * dim])).reshape([count, -1, heads, dim]);
  };
  return { query: pick(all.query), key: pick(all.key), value: pick(all.value) };
}

/** The places in the row of the tokens that receive most attention, int32 `[N, K, S]`, scored without positions. */
function chooseTokens(
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  lengths: tf.Tensor1D,
  { prefixLength, keptTokens, tokenScores: rule }: EncodeOptions,
): tf.Tensor3D {
  return selectTokens(tokenScores(query, key, lengths, prefixLength, rule), keptTokens);
}
