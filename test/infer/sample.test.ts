import { describe, expect, it } from 'vitest';
import { sample } from '../../src/infer/generate.ts';

/** Scores whose softmax is 0.5, 0.3, 0.15, 0.05, in another order. */
const SCORES = Float32Array.from([0.15, 0.5, 0.05, 0.3], Math.log);

/** How often each token is drawn in 4000 draws. */
function shares(options: { temperature: number; topP: number; seed?: number }): number[] {
  const counts = [0, 0, 0, 0];
  for (let step = 0; step < 4000; step++) counts[sample(SCORES, { seed: 1, ...options }, step)]! += 1 / 4000;
  return counts;
}

function expectClose(actual: number[], expected: number[]): void {
  for (const [i, share] of expected.entries())
    expect(Math.abs(actual[i]! - share)).toBeLessThan(share === 0 ? 1e-9 : 0.03);
}

describe('sample', () => {
  it('takes the likeliest token at temperature 0, the first of equal ones', () => {
    expect(sample(SCORES, { temperature: 0, topP: 1, seed: 1 }, 0)).toBe(1);
    expect(sample(Float32Array.of(1, 3, 3), { temperature: 0, topP: 1, seed: 1 }, 0)).toBe(1);
  });

  it('draws from the softmax at temperature 1', () => {
    expectClose(shares({ temperature: 1, topP: 1 }), [0.15, 0.5, 0.05, 0.3]);
  });

  it('sharpens and flattens with the temperature', () => {
    const powers = (power: number): number[] => {
      const weights = [0.15, 0.5, 0.05, 0.3].map((p) => p ** power);
      const total = weights.reduce((a, b) => a + b);
      return weights.map((weight) => weight / total);
    };
    expectClose(shares({ temperature: 0.5, topP: 1 }), powers(2));
    expectClose(shares({ temperature: 2, topP: 1 }), powers(0.5));
  });

  it('draws only from the smallest set of tokens that has the mass topP', () => {
    expectClose(shares({ temperature: 1, topP: 0.7 }), [0, 0.625, 0, 0.375]);
    expectClose(shares({ temperature: 1, topP: 0.81 }), [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]);
    expectClose(shares({ temperature: 1, topP: 0.01 }), [0, 1, 0, 0]);
  });

  it('depends on seed and step alone', () => {
    const draw = (seed: number) =>
      Array.from({ length: 20 }, (_, step) => sample(SCORES, { temperature: 1, topP: 1, seed }, step));
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    expect(new Set(draw(1)).size).toBeGreaterThan(1);
  });

  it('stands very large and very small scores', () => {
    expect(sample(Float32Array.of(-1e30, 1e30, 0), { temperature: 0.01, topP: 1, seed: 1 }, 0)).toBe(1);
  });
});
