import { describe, expect, it } from 'vitest';
import * as tf from '../../../../src/engine/tf.ts';
import { gatherTokens } from '../../../../src/ops/gather_tokens.ts';
import { selectTokens } from '../../../../src/ops/select_tokens.ts';
import { tokenScores } from '../../../../src/ops/token_scores.ts';
import { type Array64, expectClose, expectNoLeak, int32, onEachBackend, random, toTensor } from './support.ts';

/** Scores by the definition, `exp` divided by its largest term as documented. */
function reference([q, k]: Array64[], lengths: number[], skip: number, rule: 'softmax' | 'exp'): Float64Array {
  const [batch, tokens, heads, dim] = q!.shape as [number, number, number, number];
  const kvHeads = k!.shape[2]!;
  const out = new Float64Array(batch * kvHeads * tokens).fill(-1);
  for (let b = 0; b < batch; b++) {
    const places = Array.from({ length: Math.max(0, lengths[b]! - skip) }, (_, i) => skip + i);
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      const rows: number[][] = [];
      for (let head = 0; head < heads; head++) {
        if (Math.floor(head / (heads / kvHeads)) !== kvHead) continue;
        for (const i of places) {
          rows.push(
            places.map((j) => {
              let dot = 0;
              for (let n = 0; n < dim; n++) {
                dot +=
                  q!.data[((b * tokens + i) * heads + head) * dim + n]! *
                  k!.data[((b * tokens + j) * kvHeads + kvHead) * dim + n]!;
              }
              return dot / Math.sqrt(dim);
            }),
          );
        }
      }
      const largest = Math.max(...rows.flat());
      for (const [column, j] of places.entries()) {
        out[(b * kvHeads + kvHead) * tokens + j] = rows.reduce((sum, row) => {
          const shift = rule === 'exp' ? largest : Math.max(...row);
          const total = rule === 'exp' ? 1 : row.reduce((all, score) => all + Math.exp(score - shift), 0);
          return sum + Math.exp(row[column]! - shift) / total;
        }, 0);
      }
    }
  }
  return out;
}

onEachBackend('tokenScores', () => {
  describe.each(['softmax', 'exp'] as const)('rule %s', (rule) => {
    it.each([
      { shape: [1, 1, 1, 1], kvHeads: 1, lengths: [1], skip: 0 },
      { shape: [3, 6, 4, 5], kvHeads: 2, lengths: [6, 4, 2], skip: 0 },
      { shape: [3, 6, 4, 5], kvHeads: 1, lengths: [6, 3, 2], skip: 2 },
      { shape: [2, 5, 3, 2], kvHeads: 3, lengths: [0, 1], skip: 1 },
    ])('scores $shape with lengths $lengths, the first $skip left out', ({ shape, kvHeads, lengths, skip }) => {
      const [batch, tokens, , dim] = shape as [number, number, number, number];
      const inputs = [random(shape, 1, 2), random([batch, tokens, kvHeads, dim], 2)];
      tf.tidy(() => {
        const [q, k] = inputs.map(toTensor);
        const scores = tokenScores(q!, k!, int32(lengths), skip, rule);
        expect(scores.shape).toEqual([batch, kvHeads, tokens]);
        expectClose(scores, reference(inputs, lengths, skip, rule));
      });
    });

    it('does not overflow', () => {
      tf.tidy(() => {
        const q = tf.tensor4d([300, -300], [1, 2, 1, 1]);
        const scores = tokenScores(q, tf.tensor4d([1, 2], [1, 2, 1, 1]), int32([2]), 0, rule);
        expectClose(scores, rule === 'softmax' ? [1, 1] : [0, 1]);
      });
    });
  });
});

onEachBackend('selectTokens', () => {
  const select = (scores: number[][], count: number): number[] => [
    ...tf.tidy(() => selectTokens(tf.tensor3d([scores]), count)).dataSync(),
  ];

  it('keeps the best in text order', () => {
    expect(
      select(
        [
          [-1, 0.5, 3, 0.1, 2],
          [5, 4, 3, 2, 1],
        ],
        3,
      ),
    ).toEqual([1, 2, 4, 0, 1, 2]);
  });

  it('prefers the earlier of equals', () => {
    expect(select([[1, 1, 1, 1]], 2)).toEqual([0, 1]);
    expect(select([[0, 2, 1, 2, 1]], 3)).toEqual([1, 2, 3]);
  });

  it('fills up with 0 behind the tokens that take part', () => {
    expect(select([[-1, -1, 0, 7, -1]], 4)).toEqual([2, 3, 0, 0]);
    expect(select([[-1, -1]], 3)).toEqual([0, 0, 0]);
  });

  it('lets gradients of what it selects pass, and none through the selection', () => {
    const x = tf.tensor4d([3, 1, 2], [1, 3, 1, 1]);
    const lengths = int32([3]);
    const gradient = (): tf.Tensor =>
      tf.grad((input: tf.Tensor) => {
        const indices = selectTokens(tokenScores(input, input, lengths, 0, 'softmax'), 2);
        return tf.sum(tf.square(gatherTokens(input, indices)));
      })(x);
    tf.tidy(() => expectClose(gradient(), [6, 0, 4]));
    expectNoLeak(() => gradient().dispose());
  });
});
