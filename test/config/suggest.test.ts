import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { editDistance, nearest } from '../../src/config/suggest.ts';

describe('edit distance', () => {
  it.each([
    ['', '', 0],
    ['kitten', 'sitting', 3],
    ['wasm', 'wams', 1],
    ['', 'abc', 3],
  ])('from "%s" to "%s" is %i', (a, b, distance) => expect(editDistance(a, b)).toBe(distance));

  it('is symmetric, zero for equals alone, and one for one change', () => {
    const word = fc.string({ maxLength: 8 });
    fc.assert(
      fc.property(word, word, fc.nat(8), (a, b, position) => {
        expect(editDistance(a, b)).toBe(editDistance(b, a));
        expect(editDistance(a, b) === 0).toBe(a === b);
        expect(editDistance(a, `${a.slice(0, position)}~${a.slice(position)}`)).toBe(1);
      }),
    );
  });
});

describe('nearest', () => {
  const keys = ['numLayers', 'numHeads', 'kvHeads', 'memoryLayers'];
  it.each([
    ['numLayer', 'numLayers'],
    ['num_layers', 'numLayers'],
    ['kvheads', 'kvHeads'],
    ['nmuHeads', 'numHeads'],
    ['dropout', undefined],
    ['x', undefined],
  ])('to %s is %s', (word, expected) => expect(nearest(word, keys)).toBe(expected));
});
