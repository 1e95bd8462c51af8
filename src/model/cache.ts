/** The keys and values of the tokens read so far, so that decoding computes each token once. */

import * as tf from '../engine/tf.ts';
import { appendTokens } from '../ops/index.ts';

/** Stores grow to multiples of this and at least double, so that a long text is copied a few times only. */
const ROOM = 64;

/** Keys and values of a block, `[B, R, K, D]`, of which the first `length` tokens are real. */
interface Store {
  keys: tf.Tensor4D;
  values: tf.Tensor4D;
  length: number;
}

/**
 * Grows by the tokens of each `forward` call that it is given to. It owns its tensors: `dispose` frees them.
 * Keys are kept after RoPE, so positions of later calls must continue those of earlier ones.
 * Legend: B batch, R room, T new tokens, K key-value heads, D headDim.
 */
export class KeyValueCache {
  private readonly layers: Store[] = [];

  /** Tokens stored. */
  get length(): number {
    return this.layers[0]?.length ?? 0;
  }

  /**
   * Adds the keys and values `[B, T, K, D]` of new tokens to block `layer`.
   * @returns all keys and values of the block, the real ones in front of the room, owned by the cache and valid until
   *   the next call
   */
  append(layer: number, keys: tf.Tensor4D, values: tf.Tensor4D): Store {
    const length = this.layers[layer]?.length ?? 0;
    const longer = length + keys.shape[1];
    const store = {
      keys: extended(this.layers[layer]?.keys, keys, length),
      values: extended(this.layers[layer]?.values, values, length),
      length: longer,
    };
    this.layers[layer] = store;
    return store;
  }

  dispose(): void {
    for (const { keys, values } of this.layers) tf.dispose([keys, values]);
    this.layers.length = 0;
  }
}

/** The store with `x` behind its first `length` tokens; consumes the old one. */
function extended(store: tf.Tensor4D | undefined, x: tf.Tensor4D, length: number): tf.Tensor4D {
  const grown = tf.tidy(() => {
    const [batch, tokens, heads, dim] = x.shape;
    const room = store?.shape[1] ?? 0;
    if (store && length + tokens <= room) return appendTokens(store, x, length);
    const wanted = Math.ceil(Math.max(length + tokens, 2 * room) / ROOM) * ROOM;
    const empty = tf.fill([batch, wanted, heads, dim], 0) as tf.Tensor4D;
    return appendTokens(store ? appendTokens(empty, store, 0) : empty, x, length);
  });
  store?.dispose();
  return tf.keep(grown);
}
