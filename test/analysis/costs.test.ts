import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type CostShape,
  memoryCost,
  memoryIsCheapest,
  parameterCost,
  textCost,
  totalCost,
} from '../../src/analysis/costs.ts';

/** The published model (paper §3.4). */
const published: CostShape = {
  numLayers: 44,
  hiddenSize: 3200,
  numHeads: 40,
  kvHeads: 8,
  headDim: 80,
  mlpWidth: 3200,
  memoryLayers: 22,
  referenceTokens: 128,
  keptTokens: 8,
  chunkLength: 64,
  vocabSize: 60_416,
  sequenceLength: 2048,
};

describe('the published shape costs what the paper says (appendix A)', () => {
  test.each([
    { name: 'parameters, write', value: parameterCost(published).write, paper: '2.24' },
    { name: 'memory, write', value: memoryCost(published).write, paper: '0.308' },
    { name: 'memory, read', value: memoryCost(published).read, paper: '0.000144' },
    { name: 'text, read', value: textCost(published).read, paper: '0.624' },
    { name: 'memory is cheapest from', value: memoryIsCheapest(published).from, paper: '0.494' },
  ])('$name: $paper', ({ value, paper }) => {
    expect(value.toPrecision(3)).toBe(Number(paper).toPrecision(3));
  });

  test('memory is cheapest up to 13,400 uses', () => {
    expect(Math.round(memoryIsCheapest(published).to / 100) * 100).toBe(13_400);
  });

  test('the free halves are free', () => {
    expect([parameterCost(published).read, textCost(published).write]).toEqual([0, 0]);
  });
});

test('between the break-even points, and only there, memory is cheapest', () => {
  const sizes = fc.record({
    numLayers: fc.integer({ min: 1, max: 64 }),
    hiddenSize: fc.integer({ min: 16, max: 8192 }),
    kvHeads: fc.integer({ min: 1, max: 4 }),
    group: fc.integer({ min: 1, max: 8 }),
    headDim: fc.integer({ min: 8, max: 128 }),
    mlpWidth: fc.integer({ min: 16, max: 8192 }),
    referenceTokens: fc.integer({ min: 8, max: 256 }),
  });
  fc.assert(
    fc.property(sizes, fc.double({ min: 0.01, max: 1e6, noNaN: true }), ({ group, ...rest }, uses) => {
      const memoryLayers = Math.ceil(rest.numLayers / 2);
      const shape = { ...published, ...rest, numHeads: rest.kvHeads * group, memoryLayers };
      const { from, to } = memoryIsCheapest(shape);
      const memory = totalCost(memoryCost(shape), uses);
      const others = Math.min(totalCost(parameterCost(shape), uses), totalCost(textCost(shape), uses));
      const margin = 1e-9 * others;
      if (uses > from && uses < to) expect(memory).toBeLessThanOrEqual(others + margin);
      else expect(memory).toBeGreaterThanOrEqual(others - margin);
    }),
  );
});
