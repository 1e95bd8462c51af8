import { it } from 'vitest';
import * as tf from '../../../../src/engine/tf.ts';
import { swiglu } from '../../../../src/ops/swiglu.ts';
import { type Array64, checkOperation, expectClose, onEachBackend, random } from './support.ts';

const reference = ([gate, up]: Array64[]): Float64Array =>
  gate!.data.map((value, i) => (value / (1 + Math.exp(-value))) * up!.data[i]!);

onEachBackend('swiglu', () => {
  it.each([
    [1, 1],
    [3, 17],
  ])('gates [%i, %i]', (rows, width) => {
    checkOperation({
      inputs: [random([rows, width], 1, 2), random([rows, width], 2)],
      run: ([gate, up]) => swiglu(gate!, up!),
      reference,
    });
  });

  it('stays finite far from zero', () => {
    tf.tidy(() => expectClose(swiglu(tf.tensor2d([[-200, 200]]), tf.ones([1, 2])), [0, 200]));
  });
});
