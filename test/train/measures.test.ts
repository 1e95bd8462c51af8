import { describe, expect, it } from 'vitest';
import { attentionImage, isEvery } from '../../src/train/measures.ts';

it('isEvery is true at multiples, and never for 0', () => {
  expect([1, 2, 3, 4, 5, 6].filter((step) => isEvery(3, step))).toEqual([3, 6]);
  expect([1, 2, 3].some((step) => isEvery(0, step))).toBe(false);
});

describe('attentionImage', () => {
  it('has a row a layer, a column a head, and colours up to the greatest share', () => {
    const shares = Float64Array.of(0.1, 0.2, 0.3, 0.05, 0.25, 1 / 3);
    expect(attentionImage({ numHeads: 3, memoryLayers: 2 }, shares)).toEqual({
      width: 3,
      height: 2,
      values: [0.1, 0.2, 0.3, 0.05, 0.25, 0.333333],
      range: [0, 0.333333],
      labels: ['head', 'layer'],
    });
  });

  it('has a range also where nothing is read', () => {
    expect(attentionImage({ numHeads: 1, memoryLayers: 2 }, new Float64Array(2)).range).toEqual([0, 1]);
  });
});
