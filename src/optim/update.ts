/** What stands between gradients and the optimiser: accumulation, averaging, clipping, and refusal of broken values. */

import * as tf from '../engine/tf.ts';
import { globalNorm } from '../ops/index.ts';
import type { AdamW } from './adamw.ts';

export type Gradients = Map<string, tf.Tensor>;

/**
 * Adds the gradients of a micro-batch to those of the ones before it.
 * @param total the sum so far, or undefined at the first; consumed, as is `addition`
 * @returns the new sum, owned by the caller
 */
export function accumulateGradients(total: Gradients | undefined, addition: Gradients): Gradients {
  if (!total) return addition;
  const sum: Gradients = new Map();
  for (const [name, gradient] of addition) {
    const before = total.get(name);
    if (!before) throw new Error(`no earlier gradient for ${name}`);
    sum.set(name, tf.add(before, gradient));
    tf.dispose([before, gradient]);
  }
  return sum;
}

/** Frees gradients. */
export function disposeGradients(gradients: Gradients | undefined): void {
  if (gradients) tf.dispose([...gradients.values()]);
}

export interface UpdateOptions {
  learningRate: number;
  /** Global norm above which the averaged gradient is scaled down to it. */
  clipNorm: number;
  /** Valid tokens that the gradients are summed over; they are divided by it. */
  tokens: number;
}

export interface UpdateResult {
  /** Global norm of the averaged gradient before clipping. */
  gradientNorm: number;
  /** False when the norm was not finite: then nothing was changed. */
  updated: boolean;
}

/**
 * One optimiser step from gradients that are sums over tokens: averaged, clipped to the global norm, applied. The norm
 * is the only value read from the engine. When it is not finite, parameters and optimiser stay as they are and the
 * caller decides. The gradients still belong to the caller.
 */
export async function clipAndUpdate(
  optimizer: AdamW,
  gradients: Gradients,
  options: UpdateOptions,
): Promise<UpdateResult> {
  const { learningRate, clipNorm, tokens } = options;
  const norm = tf.tidy(() => globalNorm([...gradients.values()]));
  const [sumNorm = Number.NaN] = await norm.data<'float32'>();
  norm.dispose();
  const gradientNorm = sumNorm / tokens;
  if (!Number.isFinite(gradientNorm)) return { gradientNorm, updated: false };
  const clip = gradientNorm > clipNorm ? clipNorm / gradientNorm : 1;
  optimizer.step(gradients, learningRate, clip / tokens);
  return { gradientNorm, updated: true };
}
