/** A store that is written into, and attention that reads only what is real in it. */

import { expect, it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { appendTokens, attention } from '../../src/ops/index.ts';
import { onEachBackend, random, toTensor } from './support.ts';

onEachBackend('appendTokens', () => {
  const numbered = (shape: [number, number, number, number], first: number): tf.Tensor4D =>
    tf.tensor4d(
      Float32Array.from({ length: tf.util.sizeFromShape(shape) }, (_, i) => first + i),
      shape,
    );

  it('puts tokens behind the ones there, of each sequence', () => {
    tf.tidy(() => {
      const store = appendTokens(tf.zeros([2, 3, 1, 2]), numbered([2, 1, 1, 2], 1), 0);
      const longer = appendTokens(store, numbered([2, 2, 1, 2], 5), 1);
      expect([...longer.dataSync()]).toEqual([1, 2, 5, 6, 7, 8, 3, 4, 9, 10, 11, 12]);
    });
  });

  it('refuses tokens without room', () => {
    tf.tidy(() => {
      expect(() => appendTokens(tf.zeros([1, 3, 1, 2]), tf.zeros([1, 2, 1, 2]), 2)).toThrow(
        'no room for 2 tokens at 2',
      );
    });
  });

  it('lets attention read the real tokens only', () => {
    tf.tidy(() => {
      const [q, k, v] = [1, 2, 3].map((seed) => toTensor(random([2, 3, 2, 4], seed))) as tf.Tensor4D[];
      const roomy = (x: tf.Tensor4D): tf.Tensor4D => appendTokens(tf.fill([2, 7, 2, 4], 99) as tf.Tensor4D, x, 0);
      const expected = attention(q!, k!, v!).out.dataSync();
      const actual = attention(q!, roomy(k!), roomy(v!), undefined, { keyTokens: 3 }).out.dataSync();
      for (const [i, value] of actual.entries()) expect(value).toBeCloseTo(expected[i]!, 5);
    });
  });
});
