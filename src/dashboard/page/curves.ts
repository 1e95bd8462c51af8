/** From the server's series to lines of a chart. Pure: nothing here knows the browser. */

import type { Series } from '../api.ts';

type Value = number | null;

export interface Curve {
  x: number[];
  y: Value[];
  /** Least and greatest value of the rows that a point stands for. */
  low?: Value[];
  high?: Value[];
}

/** The points of a series that hold a value; validations are in few rows. */
export function curveOf({ x, min, max, mean }: Series): Curve {
  const curve = { x: [] as number[], y: [] as Value[], low: [] as Value[], high: [] as Value[] };
  for (let i = 0; i < x.length; i++) {
    const value = mean[i] ?? null;
    if (value === null) continue;
    curve.x.push(x[i]!);
    curve.y.push(value);
    curve.low.push(min[i] ?? value);
    curve.high.push(max[i] ?? value);
  }
  return curve;
}

/**
 * Moving average that forgets: a row weighs `weight` times what the row after it weighs. A point stands for `rows` rows, so
 * that a curve looks alike however many points show it. Each stage begins anew at `restart`, since losses jump there.
 */
export function smooth({ x, y }: Curve, weight: number, rows: number, restart = Number.POSITIVE_INFINITY): Value[] {
  if (weight <= 0) return y;
  const keep = weight ** Math.max(1, rows);
  let [sum, total, wasBefore] = [0, 0, true];
  return y.map((value, i) => {
    const isBefore = x[i]! < restart;
    if (wasBefore && !isBefore) [sum, total] = [0, 0];
    wasBefore = isBefore;
    if (value === null) return null;
    sum = keep * sum + (1 - keep) * value;
    total = keep * total + (1 - keep);
    return sum / total;
  });
}

/** Upper borders of layers laid on each other, each as its share of the sum. All series have the same points. */
export function stackedShares(series: readonly Series[]): Curve[] {
  const x = series[0]?.x ?? [];
  const totals = x.map((_, i) => series.reduce((sum, { mean }) => sum + Math.max(0, mean[i] ?? 0), 0));
  const below = x.map(() => 0);
  return series.map(({ mean }) => ({
    x,
    low: [...below],
    y: x.map((_, i) => {
      if (totals[i] === 0) return null;
      below[i]! += Math.max(0, mean[i] ?? 0) / totals[i]!;
      return below[i]!;
    }),
  }));
}

/** Lines over one common x; undefined where a line has no point there. */
export function align(curves: readonly Curve[]): { x: number[]; at: (number | undefined)[][] } {
  const first = curves[0]?.x ?? [];
  const alike = curves.every(
    ({ x }) => x === first || (x.length === first.length && x.every((v, i) => v === first[i])),
  );
  if (alike) {
    const same = first.map((_, i) => i);
    return { x: first, at: curves.map(() => same) };
  }
  const x = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  const place = new Map(x.map((value, i) => [value, i]));
  const at = curves.map((curve) => {
    const places = new Array<number | undefined>(x.length).fill(undefined);
    for (let i = 0; i < curve.x.length; i++) places[place.get(curve.x[i]!)!] = i;
    return places;
  });
  return { x, at };
}

/** Index of the point nearest to `value`; −1 when there is none. `x` ascends. */
export function nearest(x: ArrayLike<number>, value: number): number {
  let [low, high] = [0, x.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle]! < value) low = middle + 1;
    else high = middle;
  }
  if (low === x.length) return x.length - 1;
  return low > 0 && value - x[low - 1]! <= x[low]! - value ? low - 1 : low;
}

/** At most `count` indices, evenly spread, first and last among them. */
export function spread(length: number, count: number): number[] {
  if (length <= count) return Array.from({ length }, (_, i) => i);
  return Array.from({ length: count }, (_, i) => Math.round((i * (length - 1)) / (count - 1)));
}
