import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ScheduleConfig } from '../../../../src/config/schema.ts';
import { learningRate } from '../../../../src/optim/schedule.ts';

const base: ScheduleConfig = { kind: 'wsd', peak: 2e-3, final: 0.1, warmupSteps: 10, decayShare: 0.2 };

describe('learningRate', () => {
  it.each(['wsd', 'cosine', 'constant'] as const)('%s rises linearly from peak/warmupSteps to the peak', (kind) => {
    for (let step = 1; step <= 10; step++) {
      expect(learningRate({ ...base, kind }, step, 100)).toBeCloseTo((2e-3 * step) / 10, 12);
    }
  });

  it('wsd holds the peak, then falls linearly over the last share to final · peak', () => {
    for (const step of [11, 50, 80]) expect(learningRate(base, step, 100)).toBeCloseTo(2e-3, 12);
    expect(learningRate(base, 90, 100)).toBeCloseTo(2e-3 * 0.55, 12);
    expect(learningRate(base, 100, 100)).toBeCloseTo(2e-4, 12);
    expect(learningRate(base, 81, 100)).toBeLessThan(2e-3);
  });

  it('cosine passes the middle half-way and ends at final · peak', () => {
    const cosine: ScheduleConfig = { ...base, kind: 'cosine' };
    expect(learningRate(cosine, 55, 100)).toBeCloseTo(2e-3 * 0.55, 12);
    expect(learningRate(cosine, 100, 100)).toBeCloseTo(2e-4, 12);
  });

  it('constant stays at the peak', () => {
    expect(learningRate({ ...base, kind: 'constant' }, 100, 100)).toBe(2e-3);
  });

  it('starts at the peak without a rise', () => {
    expect(learningRate({ ...base, warmupSteps: 0 }, 1, 100)).toBe(2e-3);
  });

  it('never leaves (0, peak], never rises after the rise, whatever the numbers', () => {
    const schedules = fc.record({
      kind: fc.constantFrom('wsd' as const, 'cosine' as const, 'constant' as const),
      peak: fc.double({ min: 1e-6, max: 1, noNaN: true }),
      final: fc.double({ min: 0.01, max: 1, noNaN: true }),
      warmupSteps: fc.nat(50),
      decayShare: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(schedules, fc.integer({ min: 1, max: 60 }), (schedule, steps) => {
        const rates = Array.from({ length: steps }, (_, i) => learningRate(schedule, i + 1, steps));
        expect(Math.min(...rates)).toBeGreaterThan(0);
        expect(Math.max(...rates)).toBeLessThanOrEqual(schedule.peak);
        for (let i = schedule.warmupSteps + 1; i < steps; i++)
          expect(rates[i]).toBeLessThanOrEqual(rates[i - 1]! + 1e-15);
      }),
    );
  });
});
