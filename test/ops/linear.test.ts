import { it } from 'vitest';
import * as tf from '../../src/engine/tf.ts';
import { linear, linears } from '../../src/ops/linear.ts';
import { type Array64, checkOperation, onEachBackend, random } from './support.ts';

function map(x: Array64, weight: Array64): Float64Array {
  const [rows, inner] = x.shape as [number, number];
  const columns = weight.shape[0]!;
  const out = new Float64Array(rows * columns);
  for (let n = 0; n < rows; n++) {
    for (let o = 0; o < columns; o++) {
      for (let i = 0; i < inner; i++) out[n * columns + o]! += x.data[n * inner + i]! * weight.data[o * inner + i]!;
    }
  }
  return out;
}

onEachBackend('linear', () => {
  it.each([
    [1, 1, 1],
    [1, 5, 3],
    [7, 2, 9],
    [19, 13, 4],
  ])('maps [%i, %i] to %i columns', (rows, inner, columns) => {
    checkOperation({
      inputs: [random([rows, inner], 1), random([columns, inner], 2)],
      run: ([x, weight]) => linear(x!, weight!),
      reference: ([x, weight]) => map(x!, weight!),
    });
  });

  it.each([
    [1, 3, 2],
    [19, 13, 4],
  ])('adds a residual to a map of [%i, %i] to %i columns', (rows, inner, columns) => {
    checkOperation({
      inputs: [random([rows, inner], 1), random([columns, inner], 2), random([rows, columns], 3)],
      run: ([x, weight, residual]) => linear(x!, weight!, residual),
      reference: ([x, weight, residual]) => map(x!, weight!).map((value, i) => value + residual!.data[i]!),
    });
  });

  it.each([
    [1, 3, [2, 1]],
    [9, 5, [4, 4]],
    [19, 13, [5, 2, 17]],
  ])('maps [%i, %i] by several weights, to %j columns', (rows, inner, columns) => {
    checkOperation({
      inputs: [random([rows, inner], 1), ...columns.map((count, i) => random([count, inner], 2 + i))],
      run: ([x, ...weights]) => tf.concat(linears(x!, weights), 1),
      reference: ([x, ...weights]) => {
        const maps = weights.map((weight) => map(x!, weight));
        const rowOf = (row: number): number[] =>
          maps.flatMap((values, i) => [...values.subarray(row * columns[i]!, (row + 1) * columns[i]!)]);
        return Float64Array.from(Array.from({ length: rows }, (_, row) => rowOf(row)).flat());
      },
    });
  });
});
