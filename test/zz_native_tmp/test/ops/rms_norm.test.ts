import { it } from 'vitest';
import * as tf from '../../../../src/engine/tf.ts';
import { rmsNorm } from '../../../../src/ops/rms_norm.ts';
import { type Array64, checkOperation, expectClose, onEachBackend, random } from './support.ts';

const EPSILON = 1e-5;

function reference([x, weight]: Array64[]): Float64Array {
  const [rows, width] = x!.shape as [number, number];
  const out = new Float64Array(rows * width);
  for (let n = 0; n < rows; n++) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x!.data[n * width + i]! ** 2;
    const norm = Math.sqrt(squares / width + EPSILON);
    for (let i = 0; i < width; i++) out[n * width + i] = (x!.data[n * width + i]! / norm) * weight!.data[i]!;
  }
  return out;
}

onEachBackend('rmsNorm', () => {
  it.each([
    [1, 1],
    [3, 7],
    [5, 64],
  ])('normalises [%i, %i]', (rows, width) => {
    checkOperation({
      inputs: [random([rows, width], 1, 3), random([width], 2)],
      run: ([x, weight]) => rmsNorm(x!, weight!, EPSILON),
      reference,
      // With one column the output hardly depends on x: what is compared is a difference of near equals.
      tolerance: width === 1 ? 1e-3 : 2e-5,
    });
  });

  it('keeps a row of zeros finite', () => {
    tf.tidy(() => expectClose(rmsNorm(tf.zeros([2, 4]), tf.ones([4]), EPSILON), new Float64Array(8)));
  });
});
