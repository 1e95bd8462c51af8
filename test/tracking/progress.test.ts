import { Writable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { formatDuration, formatNumber, Progress, RateMeter } from '../../src/tracking/progress.ts';

class Screen extends Writable {
  isTTY: boolean;
  columns = 200;
  shown = '';
  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.shown += chunk.toString();
    done();
  }
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const advance = (seconds: number) => vi.advanceTimersByTime(seconds * 1000);

describe('without a terminal', () => {
  test('a line at most every ten seconds and one at the end', () => {
    const stream = new Screen(false);
    const progress = new Progress({ label: 'warmup', total: 100, unit: 'steps', stream });
    for (let step = 1; step <= 25; step++) {
      advance(1);
      progress.update(step, { loss: 4 - step / 100 });
    }
    progress.stop();
    expect(stream.shown).toBe(
      'warmup: 10/100 steps · 1 steps/s · 1m 30s left · loss 3.900\n' +
        'warmup: 20/100 steps · 1 steps/s · 1m 20s left · loss 3.800\n' +
        'warmup: 25/100 steps · 1 steps/s · 1m 15s left · loss 3.750\n',
    );
  });

  test('the interval can be chosen; nothing is said twice; metrics stay until they change', () => {
    const stream = new Screen(false);
    const progress = new Progress({ label: 'x', total: 2, unit: 'files', stream, lineEvery: 0 });
    advance(2);
    progress.update(1, { a: 1 });
    advance(2);
    progress.update(2, { b: 2 });
    progress.stop();
    expect(stream.shown).toBe('x: 1/2 files · 2 s each · 2s left · a 1\nx: 2/2 files · 2 s each · a 1 · b 2\n');
  });

  test('a resumed run does not count what was done before', () => {
    const stream = new Screen(false);
    const progress = new Progress({ label: 'x', total: 1000, unit: 'steps', done: 900, stream, lineEvery: 0 });
    advance(10);
    progress.update(910);
    expect(stream.shown).toBe('x: 910/1000 steps · 1 steps/s · 1m 30s left\n');
    progress.stop();
  });

  test('notes are lines', () => {
    const stream = new Screen(false);
    const progress = new Progress({ label: 'x', total: 0, unit: 'steps', stream });
    progress.note('validation 3.1');
    progress.stop();
    expect(stream.shown).toBe('validation 3.1\nx: 0/0 steps\n');
  });
});

describe('on a terminal', () => {
  test('one bar with rate, time left and metrics; timers end with it; signals stay the program’s', () => {
    const stream = new Screen(true);
    const listeners = process.listenerCount('SIGINT');
    const progress = new Progress({ label: 'warmup', total: 10, unit: 'steps', stream });
    for (let step = 1; step <= 5; step++) {
      advance(1);
      progress.update(step, { loss: 2 });
    }
    expect(process.listenerCount('SIGINT')).toBe(listeners);
    progress.note('validation 3.1');
    progress.stop();
    const shown = stream.shown;
    expect(shown).toContain('\r\x1b[Kvalidation 3.1\n');
    // What the library goes back to at the end is the line below the note, on which the bar is drawn once more.
    expect(shown.lastIndexOf('\x1b7')).toBeGreaterThan(shown.indexOf('validation 3.1\n'));
    expect(shown.lastIndexOf('50% 5/10')).toBeGreaterThan(shown.indexOf('validation 3.1\n'));
    expect(shown).toContain('50% 5/10 steps · 1 steps/s · 5s left · loss 2');
    expect(shown.endsWith('\n')).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });
});

test('the rate follows the recent past', () => {
  const meter = new RateMeter(0, 0);
  expect(meter.perSecond).toBe(0);
  for (let i = 1; i <= 100; i++) meter.update(i, i);
  expect(meter.perSecond).toBeCloseTo(1, 10);
  for (let i = 1; i <= 300; i++) meter.update(100 + 5 * i, 100 + i);
  expect(meter.perSecond).toBeCloseTo(5, 3);
  meter.update(1600, 400);
  expect(meter.perSecond).toBeCloseTo(5, 3);
});

test.each([
  [0, '0'],
  [12, '12'],
  [2.50449, '2.504'],
  [0.00012345, '0.0001234'],
  [1e-9, '1.000e-9'],
  [123456.7, '123.5k'],
  [Number.NaN, 'NaN'],
])('formatNumber(%d) is %s', (value, expected) => {
  expect(formatNumber(value)).toBe(expected);
});

test.each([
  [0, '0s'],
  [59.6, '1m 0s'],
  [310, '5m 10s'],
  [12_000, '3h 20m'],
  [187_200, '2d 4h'],
])('formatDuration(%d) is %s', (value, expected) => {
  expect(formatDuration(value)).toBe(expected);
});
