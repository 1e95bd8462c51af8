import { describe, expect, it } from 'vitest';
import { type TextChart, textChart, wantsAscii } from '../../src/analysis/text_chart.ts';

/** 0.1 to 1000 in 41 columns, ten a decade. */
const xs = Array.from({ length: 41 }, (_, i) => 10 ** (i / 10 - 1));
const chart = (changes: Partial<TextChart> = {}): TextChart => ({
  ...{ xs, xLabel: 'uses', yLabel: 'TFLOP', marks: [], height: 9, ascii: true },
  curves: [
    { name: 'flat', ys: xs.map(() => 1) },
    { name: 'rising', ys: [...xs] },
  ],
  ...changes,
});

describe('textChart', () => {
  it('places values by their logarithms', () => {
    const lines = textChart(chart()).split('\n');
    expect(lines[0]).toBe('         o flat   * rising');
    expect(lines[1]).toBe('TFLOP');
    const plot = lines.slice(2, 11).map((line) => line.slice(9));
    // Four decades in nine rows: two rows a decade, ten columns a decade.
    for (let decade = 0; decade <= 4; decade++) expect(plot[8 - 2 * decade]![10 * decade], `1e${decade - 1}`).toBe('*');
    // The flat curve is 1, one decade above the bottom; the other crosses it there.
    expect([...plot[6]!].filter((cell) => cell === 'o').length).toBeGreaterThan(30);
    expect(plot.filter((row) => row.includes('o'))).toHaveLength(1);
    expect(lines.slice(2, 11).map((line) => line.slice(0, 8).trim())).toEqual([
      '1,000',
      '',
      '100',
      '',
      '10',
      '',
      '1',
      '',
      '0.1',
    ]);
    const labels = lines[12]!.slice(9);
    for (const [column, text] of [
      [10, '1'],
      [20, '10'],
      [30, '100'],
    ] as const) {
      expect(labels.indexOf(` ${text} `) + 1 + Math.floor(text.length / 2)).toBe(column);
    }
    expect(lines[13]!.trim()).toBe('uses');
  });

  it('has upright lines at the marks, and none for a mark outside', () => {
    const plot = textChart(chart({ marks: [10, 1e9] }))
      .split('\n')
      .slice(2, 11)
      .map((line) => line.slice(9));
    for (const row of plot) expect(row[20]).toMatch(/[:*o]/);
    expect(plot.join('').match(/:/g)!.length).toBeGreaterThan(5);
    for (const row of plot) for (const [column, cell] of [...row].entries()) if (cell === ':') expect(column).toBe(20);
  });

  it('leaves values out that have no logarithm', () => {
    const [curve] = chart({}).curves;
    const ys = xs.map((_, i) => (i < 20 ? 0 : 5));
    const lines = textChart(chart({ curves: [{ ...curve!, ys }] })).split('\n');
    expect(lines.join('').match(/o/g)).toHaveLength(1 + 21);
  });

  it('uses no other characters than ASCII where it must not', () => {
    expect(textChart(chart({ marks: [10] }))).toMatch(/^[\x20-\x7e\n]*$/);
    expect(textChart(chart({ marks: [10], ascii: false }))).toContain('●');
  });
});

it('wantsAscii knows dumb terminals and locales without UTF-8', () => {
  expect(wantsAscii({ TERM: 'dumb', LANG: 'en_US.UTF-8' })).toBe(true);
  expect(wantsAscii({ TERM: 'xterm', LANG: 'en_US.UTF-8' })).toBe(false);
  expect(wantsAscii({ TERM: 'xterm', LANG: 'en_US.UTF-8', LC_ALL: 'C' })).toBe(true);
  expect(wantsAscii({ TERM: 'xterm', LC_ALL: '', LANG: 'C.utf8' })).toBe(false);
  expect(wantsAscii({})).toBe(false);
});
