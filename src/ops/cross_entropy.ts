/** The output head fused with the loss. Legend: N tokens, n tokens of a block, d hiddenSize, V vocabulary. */

import * as tf from '../engine/tf.ts';
import { gatherRows, rowIndex, scatterRows } from './composition.ts';
import { defineKernel } from './kernel.ts';

export interface CrossEntropyResult {
  /** Loss in nats summed over the tokens that count, scalar. */
  sum: tf.Scalar;
  /** Loss of each token, 0 where ignored, `[N]`; not differentiable. */
  losses: tf.Tensor1D;
}

type Inputs = { hidden: tf.Tensor; weight: tf.Tensor; targets: tf.Tensor };

type Attributes = { maxLogits: number };

const MAX_LOGITS = 2 ** 22;

/**
 * Outputs: the sum, the losses, and what the same engine's `CrossEntropyGrad` wants to keep (the composition keeps the
 * probabilities when all tokens fit in one block).
 */
const headLoss = defineKernel<Inputs, Attributes>({
  name: 'CrossEntropy',
  forward: ({ hidden, weight, targets }, { maxLogits }) => {
    const blocks = blocksOf(hidden, weight, targets, maxLogits).map((block) => lossOfBlock(block, weight));
    const losses = tf.concat(blocks.map(({ losses }) => losses));
    const state = blocks.length === 1 ? blocks[0]!.probabilities : tf.zeros([0]);
    return [tf.sum(losses), losses, state];
  },
  gradient: {
    inputs: ['hidden', 'weight', 'targets'],
    outputs: [2],
    differentiable: [0],
    backward: ([dy], { hidden, weight, targets }, [state], attributes) => {
      const inputs = { hidden: hidden!, weight: weight!, targets: targets!, dy: dy!, state: state! };
      const [dHidden, dWeight] = headLossGrad(inputs, attributes);
      return { hidden: () => dHidden!, weight: () => dWeight! };
    },
  },
});

const headLossGrad = defineKernel<Inputs & { dy: tf.Tensor; state: tf.Tensor }, Attributes>({
  name: 'CrossEntropyGrad',
  forward: ({ hidden, weight, targets, dy, state }, { maxLogits }) => {
    const dHidden: tf.Tensor[] = [];
    let dWeight: tf.Tensor | undefined;
    for (const block of blocksOf(hidden, weight, targets, maxLogits)) {
      const part = tf.tidy(() => {
        const probabilities = state.size > 0 ? (state as tf.Tensor2D) : tf.softmax(logitsOf(block, weight));
        return gradOfBlock(block, weight, probabilities, dy);
      });
      dHidden.push(part.hidden);
      const before = dWeight;
      dWeight = before ? tf.add(before, part.weight) : part.weight;
      if (before) tf.dispose([before, part.weight]);
    }
    return [tf.concat(dHidden), dWeight ?? tf.zerosLike(weight)];
  },
});

/** Some rows of the batch. Ignored tokens have target 0 and count 0. */
interface Block {
  hidden: tf.Tensor2D; // [n, d]
  targets: tf.Tensor2D; // int32 [n, 1]
  counts: tf.Tensor2D; // [n, 1]
}

function blocksOf(hidden: tf.Tensor, weight: tf.Tensor, targets: tf.Tensor, maxLogits: number): Block[] {
  const [tokens, width] = hidden.shape as [number, number];
  const rows = Math.max(1, Math.floor(maxLogits / weight.shape[0]!));
  const ids = targets.dataSync<'int32'>();
  const blocks: Block[] = [];
  for (let from = 0; from < tokens; from += rows) {
    const part = ids.subarray(from, from + rows);
    blocks.push({
      hidden:
        rows >= tokens ? (hidden as tf.Tensor2D) : tf.slice(hidden as tf.Tensor2D, [from, 0], [part.length, width]),
      targets: rowIndex(part.map((id) => Math.max(id, 0))),
      counts: tf.tensor2d(
        Float32Array.from(part, (id) => (id < 0 ? 0 : 1)),
        [part.length, 1],
      ),
    });
  }
  return blocks;
}

function logitsOf({ hidden }: Block, weight: tf.Tensor): tf.Tensor2D {
  return tf.matMul(hidden, weight as tf.Tensor2D, false, true);
}

/** The log of the normaliser is taken at the largest logit, where log softmax cannot underflow: no exp over [n, V]. */
function lossOfBlock(block: Block, weight: tf.Tensor): { losses: tf.Tensor1D; probabilities: tf.Tensor2D } {
  const { hidden, targets, counts } = block;
  return tf.tidy(() => {
    const logits = logitsOf(block, weight);
    const probabilities = tf.softmax(logits);
    const normaliser = tf.sub(tf.max(logits, 1, true), tf.log(tf.max(probabilities, 1, true)));
    const ofTarget = tf.sum(tf.mul(hidden, gatherRows(weight, targets)), 1, true);
    return { losses: tf.mul(tf.sub(normaliser, ofTarget), counts).reshape([-1]), probabilities };
  });
}

/** dLogits = (softmax − onehot) · dy, without building the one-hot rows. */
function gradOfBlock(
  { hidden, targets, counts }: Block,
  weight: tf.Tensor,
  probabilities: tf.Tensor2D,
  dy: tf.Tensor,
): { hidden: tf.Tensor; weight: tf.Tensor } {
  const scale = tf.mul(counts, dy);
  const scaled = tf.mul(hidden, scale) as tf.Tensor2D;
  const dHidden = tf.sub(tf.matMul(probabilities, weight as tf.Tensor2D), gatherRows(weight, targets));
  const dWeight = tf.sub(tf.matMul(probabilities, scaled, true), scatterRows(scaled, targets, weight.shape[0]!));
  return { hidden: tf.mul(dHidden, scale), weight: dWeight };
}

/**
 * Next-token loss of hidden states, with the output head `hidden · weightᵀ` inside, so that the logits of all tokens
 * need not exist at once.
 * @param hidden `[N, d]`
 * @param weight `[V, d]`
 * @param targets int32 `[N]`, −1 leaves a token out
 * @param maxLogits elements of the logits that exist at once, at most (but at least one row)
 */
export function crossEntropy(
  hidden: tf.Tensor,
  weight: tf.Tensor,
  targets: tf.Tensor,
  maxLogits = MAX_LOGITS,
): CrossEntropyResult {
  const [sum, losses, state] = headLoss({ hidden, weight, targets }, { maxLogits });
  // The tape holds its own reference when it needs one.
  state!.dispose();
  return { sum: sum as tf.Scalar, losses: losses as tf.Tensor1D };
}
