import { expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { crossEntropy } from '../../src/ops/cross_entropy.ts';
import {
  type Array64,
  checkOperation,
  expectClose,
  expectNoLeak,
  int32,
  onEachBackend,
  random,
  toTensor,
} from './support.ts';

function referenceLosses([hidden, weight]: Array64[], targets: number[]): Float64Array {
  const [rows, width] = hidden!.shape as [number, number];
  const losses = new Float64Array(rows);
  for (let n = 0; n < rows; n++) {
    if (targets[n]! < 0) continue;
    const logits = Array.from({ length: weight!.shape[0]! }, (_, word) => {
      let logit = 0;
      for (let i = 0; i < width; i++) logit += hidden!.data[n * width + i]! * weight!.data[word * width + i]!;
      return logit;
    });
    const largest = Math.max(...logits);
    losses[n] =
      largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)) - logits[targets[n]!]!;
  }
  return losses;
}

const CASES = [
  { name: 'one token', targets: [1], vocabulary: 3, width: 2 },
  { name: 'some ignored', targets: [4, -1, 0, 4, 2, -1, 1], vocabulary: 5, width: 3 },
  { name: 'all ignored', targets: [-1, -1], vocabulary: 4, width: 3 },
  { name: 'one word', targets: [0, 0], vocabulary: 1, width: 2 },
];

onEachBackend('crossEntropy', () => {
  it.each(CASES)('sums the losses: $name', ({ targets, vocabulary, width }) => {
    const tensor = int32(targets);
    const inputs = [random([targets.length, width], 1, 2), random([vocabulary, width], 2)];
    checkOperation({
      inputs,
      run: ([hidden, weight]) => crossEntropy(hidden!, weight!, tensor).sum,
      reference: (varied) => Float64Array.of(referenceLosses(varied, targets).reduce((a, b) => a + b, 0)),
    });
    tf.tidy(() => {
      const [hidden, weight] = inputs.map(toTensor);
      expectClose(crossEntropy(hidden!, weight!, tensor).losses, referenceLosses(inputs, targets));
    });
    tensor.dispose();
  });

  it('is exact where the softmax of the target underflows', () => {
    tf.tidy(() => {
      const { losses } = crossEntropy(tf.tensor2d([[1], [1]]), tf.tensor2d([[-500], [500], [0]]), int32([0, 1]));
      expectClose(losses, [1000, 0]);
    });
  });

  it('gives in row blocks what it gives at once', () => {
    // 2^20 words leave four rows to a block.
    const [rows, vocabulary] = [9, 2 ** 20];
    const targets = int32([3, -1, 7, 2, 5, -1, 0, 1, 6]);
    const [hidden, small] = [random([rows, 2], 1), random([8, 2], 2)].map(toTensor) as [tf.Tensor2D, tf.Tensor2D];
    // The words behind the eighth are as far from every hidden state as float32 allows to matter: their weight is 0.
    const shifted = tf.tidy(() => tf.concat([hidden, tf.ones([rows, 1])], 1));
    const filler = tf.tidy(() => tf.mul(tf.ones([vocabulary - 8, 3]), tf.tensor1d([0, 0, -200])));
    const weight = tf.tidy(() => tf.concat([tf.concat([small, tf.zeros([8, 1])], 1), filler]));
    filler.dispose();
    const run = (h: tf.Tensor, w: tf.Tensor): tf.Scalar => crossEntropy(h, w, targets).sum;
    tf.tidy(() => {
      const atOnce = tf.grads(run)([shifted, tf.slice(weight, 0, 8)]);
      const blocks = tf.grads(run)([shifted, weight]);
      expectClose(run(shifted, weight), run(shifted, tf.slice(weight, 0, 8)).dataSync());
      expectClose(blocks[0]!, atOnce[0]!.dataSync());
      expectClose(tf.slice(blocks[1]!, 0, 8), atOnce[1]!.dataSync());
    });
    tf.dispose([hidden, small, shifted, weight, targets]);
  });

  it('leaves nothing behind outside of tidy', () => {
    const [hidden, weight] = [random([3, 2], 1), random([4, 2], 2)].map(toTensor);
    const targets = int32([0, 3, -1]);
    expectNoLeak(() => tf.dispose({ ...crossEntropy(hidden!, weight!, targets) }));
    expect(targets.isDisposed).toBe(false);
  });
});
