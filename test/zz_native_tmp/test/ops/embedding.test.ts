import { expect, it } from 'vitest';
import * as tf from '../../../../src/engine/tf.ts';
import { embedding } from '../../../../src/ops/embedding.ts';
import { type Array64, checkOperation, int32, onEachBackend, random } from './support.ts';

function reference([weight]: Array64[], ids: number[]): Float64Array {
  const width = weight!.shape[1]!;
  return Float64Array.from(
    { length: ids.length * width },
    (_, i) => weight!.data[ids[Math.floor(i / width)]! * width + (i % width)]!,
  );
}

onEachBackend('embedding', () => {
  it.each([
    { ids: [3], vocabulary: 4, width: 1 },
    { ids: [0, 6, 6, 2, 6, 0], vocabulary: 7, width: 5 },
    { ids: [1, 1, 1], vocabulary: 2, width: 8 },
  ])('looks up $ids and adds the gradients of repeated ids', ({ ids, vocabulary, width }) => {
    const tensor = int32(ids);
    checkOperation({
      inputs: [random([vocabulary, width], 1)],
      run: ([weight]) => embedding(tensor, weight!),
      reference: (inputs) => reference(inputs, ids),
    });
    tensor.dispose();
  });

  it('gives the same gradient bits each time', () => {
    const ids = int32(Array.from({ length: 500 }, (_, i) => (i * i) % 7));
    const weight = tf.randomNormal([7, 3]);
    const dy = tf.randomNormal([500, 3]);
    const gradient = (): Float32Array =>
      tf.tidy(() => tf.grad((w: tf.Tensor) => tf.sum(tf.mul(embedding(ids, w), dy)))(weight)).dataSync<'float32'>();
    expect(gradient()).toEqual(gradient());
  });
});
