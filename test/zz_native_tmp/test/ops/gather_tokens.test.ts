import { it } from 'vitest';
import { gatherTokens } from '../../../../src/ops/gather_tokens.ts';
import { type Array64, checkOperation, int32, onEachBackend, random } from './support.ts';

function reference([x]: Array64[], indices: number[], kept: number): Float64Array {
  const [batch, tokens, heads, dim] = x!.shape as [number, number, number, number];
  const out: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let k = 0; k < heads; k++) {
      for (let s = 0; s < kept; s++) {
        const token = indices[(b * heads + k) * kept + s]!;
        for (let i = 0; i < dim; i++) out.push(x!.data[((b * tokens + token) * heads + k) * dim + i]!);
      }
    }
  }
  return Float64Array.from(out);
}

onEachBackend('gatherTokens', () => {
  it.each([
    { shape: [1, 1, 1, 1], kept: 1, indices: [0] },
    { shape: [2, 5, 3, 4], kept: 2, indices: [0, 4, 1, 3, 0, 0, 2, 3, 3, 4, 1, 2] },
    { shape: [2, 3, 1, 2], kept: 3, indices: [0, 1, 2, 2, 0, 0] },
  ])('gathers $kept tokens of $shape, repeated ones too', ({ shape, kept, indices }) => {
    const tensor = int32(indices, [shape[0]!, shape[2]!, kept]);
    checkOperation({
      inputs: [random(shape, 1)],
      run: ([x]) => gatherTokens(x!, tensor),
      reference: (inputs) => reference(inputs, indices, kept),
    });
    tensor.dispose();
  });
});
