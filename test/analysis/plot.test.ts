import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Chart, curvesSvg } from '../../src/analysis/plot.ts';

const chart = (changes: Partial<Chart> = {}): Chart => ({
  title: 'Loss',
  xLabel: 'step',
  yLabel: 'loss',
  series: [{ name: 'training', xs: [0, 50, 100], ys: [4, 2, 1] }],
  ...changes,
});

/** The curves (not axes, grid, marks or legend samples) as lists of points. */
function curves(svg: string): { x: number; y: number }[][] {
  return [...svg.matchAll(/<path d="([^"]*)" fill="none" stroke-linejoin/g)].map(([, path]) =>
    path!
      .split(/[ML]/)
      .slice(1)
      .map((pair) => ({ x: Number(pair.split(' ')[0]), y: Number(pair.split(' ')[1]) })),
  );
}

const labels = (svg: string) => [...svg.matchAll(/<text [^>]*>([^<]*)<\/text>/g)].map(([, label]) => label!);

/** Labels on the left axis, from bottom to top. */
function yTicks(svg: string): string[] {
  return [...svg.matchAll(/<text x="68"[^>]*text-anchor="end">([^<]*)</g)].map(([, label]) => label!);
}

test('points stand where their values are', () => {
  const [curve] = curves(curvesSvg(chart()));
  // y: 1 to 4 on an axis from 1 to 4, from the bottom of the plot (392) to its top (84).
  expect(curve).toEqual([
    { x: 76, y: 84 },
    { x: 426, y: 289.3 },
    { x: 776, y: 392 },
  ]);
});

test('ticks are round numbers', () => {
  expect(yTicks(curvesSvg(chart()))).toEqual(['1.0', '1.5', '2.0', '2.5', '3.0', '3.5', '4.0']);
  const xs = labels(curvesSvg(chart({ series: [{ name: 'a', xs: [0, 120_000], ys: [0, 1e-3] }] })));
  for (const label of ['20k', '100k', '120k', '0.0002', '0.0010']) expect(xs).toContain(label);
});

test('a logarithmic axis', () => {
  const svg = curvesSvg(chart({ logY: true, series: [{ name: 'a', xs: [0, 1, 2, 3], ys: [1, 10, 0, 100] }] }));
  expect(yTicks(svg)).toEqual(['1', '2', '5', '10', '20', '50', '100']);
  // The zero has no place: the line breaks, and the point behind it stands alone.
  expect(curves(svg)).toEqual([
    [
      { x: 76, y: 392 },
      { x: 309.3, y: 238 },
    ],
  ]);
  expect(svg).toContain('<circle cx="776" cy="84"');
});

test('both axes logarithmic', () => {
  const series = [{ name: 'a', xs: [-1, 0, 1, 10, 100, 1000], ys: [5, 5, 1, 10, 100, 1000] }];
  const svg = curvesSvg(chart({ logX: true, logY: true, series, marks: [{ x: 0, label: 'nowhere' }] }));
  // Powers stand at equal distances; what has no logarithm is left out.
  expect(curves(svg)).toEqual([
    [
      { x: 76, y: 392 },
      { x: 309.3, y: 289.3 },
      { x: 542.7, y: 186.7 },
      { x: 776, y: 84 },
    ],
  ]);
  expect(svg).not.toContain('nowhere');
  for (const label of ['1', '10', '100', '1000']) expect(labels(svg).filter((text) => text === label)).toHaveLength(2);
});

test('values that are not finite leave gaps', () => {
  const ys = [1, 2, Number.NaN, 3, 4, Number.POSITIVE_INFINITY, 5];
  const svg = curvesSvg(chart({ series: [{ name: 'a', xs: ys.map((_, i) => i), ys }] }));
  expect(curves(svg).map(({ length }) => length)).toEqual([2, 2]);
  expect(svg.match(/<circle/g)).toHaveLength(1);
});

test('a long series is thinned, its extremes kept', () => {
  const count = 500_000;
  const ys = Float64Array.from({ length: count }, (_, i) => Math.sin(i / 1000));
  ys[123_457] = 9;
  ys[350_001] = -9;
  const svg = curvesSvg(chart({ series: [{ name: 'a', xs: Float64Array.from(ys, (_, i) => i), ys }] }));
  const [curve] = curves(svg);
  expect(curve!.length).toBeLessThanOrEqual(1402);
  expect(svg.length).toBeLessThan(40_000);
  expect(curve!.map(({ x }) => x)).toEqual(curve!.map(({ x }) => x).toSorted((a, b) => a - b));
  const span = Math.max(...curve!.map(({ y }) => y)) - Math.min(...curve!.map(({ y }) => y));
  // 18 of the axis' 20 units.
  expect(span).toBeCloseTo(((392 - 84) * 18) / 20, 0);
});

test('legend, marks and labels are there, escaped', () => {
  const svg = curvesSvg(
    chart({
      title: 'a < b & "c"',
      series: [
        { name: 'x<y', xs: [0, 1], ys: [0, 1] },
        { name: 'second', xs: [0, 1], ys: [1, 0] },
      ],
      marks: [{ x: 1, label: 'stage two' }],
    }),
  );
  for (const label of ['a &lt; b &amp; &quot;c&quot;', 'x&lt;y', 'second', 'stage two', 'step', 'loss']) {
    expect(labels(svg)).toContain(label);
  }
  // A mark at the right edge is written to its left.
  expect(svg).toMatch(/text-anchor="end">stage two/);
});

test('a series of unequal lengths is refused', () => {
  expect(() => curvesSvg(chart({ series: [{ name: 'a', xs: [1], ys: [] }] }))).toThrow(RangeError);
});

describe('no input breaks the picture', () => {
  test.each<{ name: string; series: Chart['series'] }>([
    { name: 'no series', series: [] },
    { name: 'an empty series', series: [{ name: 'a', xs: [], ys: [] }] },
    { name: 'nothing finite', series: [{ name: 'a', xs: [1], ys: [Number.NaN] }] },
  ])('$name says so', ({ series }) => {
    expect(labels(curvesSvg(chart({ series })))).toContain('no data yet');
  });

  test('ends for values that differ in their last digits only, or are hardly more than zero', () => {
    for (const ys of [
      [1e12, 1e12 + 0.0002],
      [-3, -3 - 5e-16],
      [0, 5e-324],
      [-1e-310, 1e-310],
    ]) {
      const svg = curvesSvg({ title: '', xLabel: '', yLabel: '', series: [{ name: 'a', xs: ys, ys }] });
      expect(svg).toContain('</svg>');
      expect(svg).not.toContain('NaN');
    }
  });

  test('any numbers give finite coordinates inside the plot', () => {
    const point = fc.tuple(fc.double({ min: -1e12, max: 1e12 }), fc.double({ min: -1e12, max: 1e12 }));
    fc.assert(
      fc.property(
        fc.array(point, { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        fc.boolean(),
        (points, logX, logY) => {
          const sorted = points.toSorted(([a], [b]) => a - b);
          const series = [{ name: 'a', xs: sorted.map(([x]) => x), ys: sorted.map(([, y]) => y) }];
          const svg = curvesSvg(chart({ series, logX, logY, marks: [] }));
          expect(svg).not.toMatch(/NaN|Infinity|undefined/);
          for (const { x, y } of curves(svg).flat()) {
            expect(x >= 76 && x <= 776 && y >= 84 && y <= 392).toBe(true);
          }
          expect(svg.match(/<text/g)!.length).toBeLessThan(40);
        },
      ),
    );
  });
});
