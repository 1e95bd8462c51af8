import { expect, it } from 'vitest';
import * as tf from '../../../../src/engine/tf.ts';
import { crossEntropy } from '../../../../src/ops/cross_entropy.ts';
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

  it.each([1, 10, 20])('gives in blocks of at most %i logits what it gives at once', (maxLogits) => {
    const targets = int32([3, -1, 2, 4, -1, 0, 1]);
    checkOperation({
      inputs: [random([7, 3], 1), random([5, 3], 2)],
      run: ([hidden, weight]) => crossEntropy(hidden!, weight!, targets, maxLogits).sum,
      reference: (varied) =>
        Float64Array.of(referenceLosses(varied, [...targets.dataSync()]).reduce((a, b) => a + b, 0)),
    });
    targets.dispose();
  });

  it('leaves nothing behind outside of tidy', () => {
    const [hidden, weight] = [random([3, 2], 1), random([4, 2], 2)].map(toTensor);
    const targets = int32([0, 3, -1]);
    expectNoLeak(() => tf.dispose({ ...crossEntropy(hidden!, weight!, targets) }));
    expect(targets.isDisposed).toBe(false);
  });
});
