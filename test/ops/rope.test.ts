import { it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { rope } from '../../src/ops/rope.ts';
import { type Array64, checkOperation, onEachBackend, random } from './support.ts';

function reference([x]: Array64[], positions: number[], theta: number): Float64Array {
  const [batch, tokens, heads, dim] = x!.shape as [number, number, number, number];
  const half = dim / 2;
  const out = new Float64Array(x!.data.length);
  for (let row = 0; row < batch * tokens * heads; row++) {
    const position = positions[Math.floor(row / heads) % tokens]!;
    for (let i = 0; i < half; i++) {
      const angle = position / theta ** ((2 * i) / dim);
      const [a, b] = [x!.data[row * dim + i]!, x!.data[row * dim + i + half]!];
      out[row * dim + i] = a * Math.cos(angle) - b * Math.sin(angle);
      out[row * dim + i + half] = b * Math.cos(angle) + a * Math.sin(angle);
    }
  }
  return out;
}

onEachBackend('rope', () => {
  it.each([
    { shape: [1, 1, 1, 2], positions: [5] },
    { shape: [2, 3, 1, 4], positions: [0, 1, 2] },
    { shape: [2, 4, 3, 6], positions: [0, 1, 130, 2047] },
  ])('turns $shape at positions $positions and back', ({ shape, positions }) => {
    checkOperation({
      inputs: [random(shape, 1)],
      run: ([x]) => rope(x as Parameters<typeof rope>[0], tf.tensor1d(positions, 'int32'), 10_000),
      reference: (inputs) => reference(inputs, positions, 10_000),
    });
  });

  it('tells equal shapes with other positions or bases apart', () => {
    for (const [start, theta] of [
      [0, 100],
      [7, 100],
      [7, 10_000],
    ] as const) {
      const positions = [start, start + 1];
      checkOperation({
        inputs: [random([1, 2, 2, 4], 1)],
        run: ([x]) => rope(x as Parameters<typeof rope>[0], tf.tensor1d(positions, 'int32'), theta),
        reference: (inputs) => reference(inputs, positions, theta),
      });
    }
  });
});
