/** The keys and values of the tokens read so far, so that decoding computes each token once. */

import * as tf from '../engine/tf.ts';

/**
 * Grows by the tokens of each `forward` call that it is given to. It owns its tensors: `dispose` frees them.
 * Keys are kept after RoPE, so positions of later calls must continue those of earlier ones.
 * Legend: B batch, Tk tokens so far, K key-value heads, D headDim.
 */
export class KeyValueCache {
  private readonly layers: { keys: tf.Tensor4D; values: tf.Tensor4D }[] = [];

  /** Tokens stored, Tk. */
  get length(): number {
    return this.layers[0]?.keys.shape[1] ?? 0;
  }

  /**
   * Adds the keys and values `[B, T, K, D]` of new tokens to block `layer`.
   * @returns all keys and values of the block, `[B, Tk + T, K, D]`, owned by the cache
   */
  append(layer: number, keys: tf.Tensor4D, values: tf.Tensor4D): { keys: tf.Tensor4D; values: tf.Tensor4D } {
    const past = this.layers[layer];
    const grown = {
      keys: tf.keep(past ? tf.concat([past.keys, keys], 1) : keys.clone()),
      values: tf.keep(past ? tf.concat([past.values, values], 1) : values.clone()),
    };
    if (past) tf.dispose(past);
    this.layers[layer] = grown;
    return grown;
  }

  dispose(): void {
    tf.dispose(this.layers);
    this.layers.length = 0;
  }
}
