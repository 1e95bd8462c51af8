import { it } from 'vitest';
import { linear } from '../../../../src/ops/linear.ts';
import { type Array64, checkOperation, onEachBackend, random } from './support.ts';

function reference([x, weight]: Array64[]): Float64Array {
  const [rows, inner] = x!.shape as [number, number];
  const columns = weight!.shape[0]!;
  const out = new Float64Array(rows * columns);
  for (let n = 0; n < rows; n++) {
    for (let o = 0; o < columns; o++) {
      for (let i = 0; i < inner; i++) out[n * columns + o]! += x!.data[n * inner + i]! * weight!.data[o * inner + i]!;
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
      reference,
    });
  });
});
