import { describe, expect, it } from 'vitest';
import { growthPlan } from '../../src/memory/growth.ts';

const GROWTH = { initialShare: 0.25, every: 100, share: 0.25 };

describe('growthPlan', () => {
  it('adds every reference exactly once, in the order of the seed', () => {
    const plan = growthPlan(GROWTH, 103, 7);
    const order: number[] = [];
    for (let step = 0; step < 500; step++) {
      order.push(...plan.addedAt(step));
      expect(order).toHaveLength(plan.countAt(step));
    }
    expect(order.toSorted((a, b) => a - b)).toEqual([...Array(103).keys()]);
    expect(order).toEqual(Array.from({ length: 103 }, (_, place) => plan.referenceAt(place)));
    expect([...plan.referencesAt(10, 20)]).toEqual(order.slice(10, 20));
    expect(order).not.toEqual(Array.from({ length: 103 }, (_, place) => growthPlan(GROWTH, 103, 8).referenceAt(place)));
  });

  it('grows at multiples of `every` by the share of all references', () => {
    const plan = growthPlan(GROWTH, 100, 1);
    expect([0, 99, 100, 199, 200, 300, 9999].map((step) => plan.countAt(step))).toEqual([25, 25, 50, 50, 75, 100, 100]);
    expect(growthPlan({ ...GROWTH, initialShare: 0.1, share: 0.2 }, 10, 1).countAt(100)).toBe(3);
  });

  it('holds everything from the start when it never grows, and nothing when there is nothing', () => {
    expect(growthPlan({ ...GROWTH, every: 0 }, 9, 1).addedAt(0)).toHaveLength(9);
    expect(growthPlan({ ...GROWTH, every: 0 }, 9, 1).addedAt(1)).toEqual([]);
    expect(growthPlan(GROWTH, 0, 1).addedAt(0)).toEqual([]);
  });
});
