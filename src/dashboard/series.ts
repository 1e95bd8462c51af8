/** Curves: columns of both stages on one axis, in at most as many points as are asked for. */

import { type MetricsRow, rowOf } from '../tracking/values.ts';
import type { Axis, Series, SeriesAnswer } from './api.ts';
import { BLOCK, FANOUT } from './row_index.ts';
import { lastLines, numberIn, rowBehind, rowsBetween, spreadRows } from './rows.ts';
import type { RunFile } from './run_file.ts';
import { AXIS_KEYS, type StageRows } from './stage_rows.ts';

/** Points of an answer at most. */
export const MOST_POINTS = 4000;
/** Bytes of rows that are read at most to draw single ones; where they are longer, blocks are drawn. */
const MOST_RAW_BYTES = 24 * 2 ** 20;
/** A range of fewer bytes is read whole where there is no index yet. */
const SMALL_RANGE = 2 * 2 ** 20;
const MOST_SAMPLES = 500;
/** Ranges of rows that are kept for the next request. */
const MOST_RECENT = 4;
const MOST_RECENT_NUMBERS = 2 ** 20;
/** Up to so many rows a point single rows are read. */
const RAW_ROWS = 4;

export interface SeriesQuery {
  keys: readonly string[];
  axis: Axis;
  /** Range of the axis. */
  from: number;
  to: number;
  /** At least 2. */
  points: number;
}

/** Both stages in a row: what is added to the axes of each. */
interface Offsets {
  step: number;
  tokens: number;
  time: number;
}

/** The numbers of a column, and in which rows they stand. */
interface Column {
  rows: number[];
  values: number[];
}

/** Rows as columns, which take memory only for the numbers that there are. */
class Columns {
  readonly length: number;
  /** Numbers in all. */
  readonly size: number;
  readonly #columns = new Map<string, Column>();

  constructor(rows: readonly MetricsRow[]) {
    this.length = rows.length;
    let size = 0;
    rows.forEach((row, i) => {
      for (const key in row) {
        const value = row[key];
        if (typeof value !== 'number' || !Number.isFinite(value)) continue;
        const column = this.#columns.get(key) ?? { rows: [], values: [] };
        if (column.rows.length === 0) this.#columns.set(key, column);
        column.rows.push(i);
        column.values.push(value);
        size += 1;
      }
    });
    this.size = size;
  }

  get(key: string): Column {
    return this.#columns.get(key) ?? { rows: [], values: [] };
  }

  /** The value of each row; one that has none has that of the row before, NaN at the begin. */
  filled(key: string): Float64Array {
    const { rows, values } = this.get(key);
    const filled = new Float64Array(this.length).fill(Number.NaN);
    rows.forEach((row, i) => {
      filled.fill(values[i]!, row, rows[i + 1] ?? this.length);
    });
    return filled;
  }
}

/** What was read last: the charts of a page ask for the same rows, each for other columns. */
class Recent {
  readonly #kept = new Map<string, Columns>();

  get({ path, size, mtimeMs }: RunFile, what: string, read: () => Columns): Columns {
    const name = `${path} ${size} ${mtimeMs} ${what}`;
    const columns = this.#kept.get(name) ?? read();
    this.#kept.delete(name);
    this.#kept.set(name, columns);
    let numbers = [...this.#kept.values()].reduce((sum, kept) => sum + kept.size, 0);
    for (const [oldest, kept] of this.#kept) {
      if (this.#kept.size <= MOST_RECENT && numbers <= MOST_RECENT_NUMBERS) break;
      this.#kept.delete(oldest);
      numbers -= kept.size;
    }
    return columns;
  }
}

const recent = new Recent();

/** Rows [from, to) of a stage. */
interface Range {
  stage: StageRows;
  offset: number;
  from: number;
  to: number;
}

/** Points under construction. */
class Points {
  readonly min: Float64Array;
  readonly max: Float64Array;
  readonly sum: Float64Array;
  readonly count: Float64Array;

  constructor(length: number) {
    this.min = new Float64Array(length).fill(Number.POSITIVE_INFINITY);
    this.max = new Float64Array(length).fill(Number.NEGATIVE_INFINITY);
    this.sum = new Float64Array(length);
    this.count = new Float64Array(length);
  }

  add(point: number, least: number, greatest: number, sum: number, count: number): void {
    if (least < this.min[point]!) this.min[point] = least;
    if (greatest > this.max[point]!) this.max[point] = greatest;
    this.sum[point]! += sum;
    this.count[point]! += count;
  }
}

/** What is added to the values of each axis in a stage, by the stages before it. */
export function offsetsOf(stages: readonly StageRows[]): Offsets[] {
  const start = numberIn(stages[0]?.first, 'time/unix_s') ?? 0;
  let [step, tokens] = [0, 0];
  return stages.map(({ file }) => {
    const offsets = { step, tokens, time: -start };
    const last = lastRowOf(file);
    step += numberIn(last, 'step') ?? 0;
    tokens += numberIn(last, 'train/tokens') ?? 0;
    return offsets;
  });
}

function lastRowOf(file: RunFile): MetricsRow | undefined {
  return rowOf(lastLines(file, 2 ** 14).at(-1) ?? '');
}

export function series(stages: readonly StageRows[], query: SeriesQuery): SeriesAnswer {
  const { axis } = query;
  const offsets = offsetsOf(stages).map((offset) => offset[axis]);
  const last = stages.at(-1);
  const extent: [number, number] = [
    (numberIn(stages[0]?.first, AXIS_KEYS[axis]) ?? 0) + (offsets[0] ?? 0),
    ((last && numberIn(lastRowOf(last.file), AXIS_KEYS[axis])) ?? 0) + (offsets.at(-1) ?? 0),
  ];
  const drawn = stages.every(({ isWhole }) => isWhole)
    ? exact(stages, offsets, query)
    : { ...sampled(stages, offsets, query), isSampled: true };
  return { axis, extent, isSampled: false, ...drawn };
}

type Drawn = Pick<SeriesAnswer, 'rowsPerPoint' | 'series'>;

function exact(stages: readonly StageRows[], offsets: number[], query: SeriesQuery): Drawn {
  const { axis, points } = query;
  const ranges = stages.map((stage, i) => rangeOf(stage, offsets[i]!, query));
  const rows = ranges.reduce((sum, range) => sum + range.to - range.from, 0);
  const bytes = ranges.reduce(
    (sum, range) => sum + (range.to > range.from ? range.stage.bytesBetween(range.from, range.to) : 0),
    0,
  );
  // Each stage may begin and end in the middle of a point.
  const budget = Math.max(1, points - 2 * ranges.length);
  if (rows <= budget * RAW_ROWS + 2 * BLOCK * ranges.length && bytes <= MOST_RAW_BYTES) return fromRows(ranges, query);
  const perPoint = widthFor(rows, budget);
  const parts = ranges.map((range) => alignedTo(range, perPoint));
  const x = parts.flatMap((range) => xOfPoints(range, axis, perPoint));
  return { rowsPerPoint: perPoint, series: query.keys.map((key) => columnOf(key, parts, perPoint, x)) };
}

/** The rows of a stage that lie in the range, to a block at either end. */
function rangeOf(stage: StageRows, offset: number, { axis, from, to }: SeriesQuery): Range {
  const begin = (numberIn(stage.first, AXIS_KEYS[axis]) ?? 0) + offset;
  const first = from <= begin ? 0 : stage.rowAt(axis, from - offset);
  if (to < begin) return { stage, offset, from: 0, to: 0 };
  const end =
    to === Number.POSITIVE_INFINITY ? stage.rows : Math.min(stage.rows, stage.rowAt(axis, to - offset) + BLOCK);
  return { stage, offset, from: first, to: Math.max(first, end) };
}

/** Rows of a point: the fewest that records of one level make up and that give no more points than wanted. */
function widthFor(rows: number, points: number): number {
  const least = Math.max(BLOCK, Math.ceil(rows / points));
  let width = BLOCK;
  while (width * FANOUT <= least) width *= FANOUT;
  return Math.ceil(least / width) * width;
}

function alignedTo(range: Range, width: number): Range {
  // Of a stage outside of the range not even the point at its end.
  if (range.to <= range.from) return { ...range, from: 0, to: 0 };
  const end = Math.min(range.stage.rows, Math.ceil(range.to / width) * width);
  return { ...range, from: Math.floor(range.from / width) * width, to: end };
}

function pointsOf({ from, to }: Range, width: number): number {
  return Math.ceil((to - from) / width);
}

/** The axis at the first row of each point. */
function xOfPoints(range: Range, axis: Axis, width: number): number[] {
  const points = new Points(pointsOf(range, width));
  range.stage.scan(AXIS_KEYS[axis], range.from, range.to, width, (row, ...values) =>
    points.add(Math.floor((row - range.from) / width), ...values),
  );
  return Array.from(points.min, (least) => least + range.offset);
}

function columnOf(key: string, ranges: Range[], width: number, x: number[]): Series {
  const points = new Points(x.length);
  let before = 0;
  for (const range of ranges) {
    range.stage.scan(key, range.from, range.to, width, (row, ...values) =>
      points.add(before + Math.floor((row - range.from) / width), ...values),
    );
    before += pointsOf(range, width);
  }
  return seriesOf(key, points, x);
}

/** Points without a place on the axis are left out. */
function seriesOf(key: string, { min, max, sum, count }: Points, x: number[]): Series {
  const places = x.map((_, i) => i).filter((i) => Number.isFinite(x[i]));
  const column = (value: (i: number) => number) =>
    places.map((i) => (count[i]! > 0 && Number.isFinite(value(i)) ? value(i) : null));
  return {
    key,
    x: places.map((i) => x[i]!),
    min: column((i) => min[i]!),
    max: column((i) => max[i]!),
    mean: column((i) => (min[i] === max[i] ? min[i]! : sum[i]! / count[i]!)),
  };
}

/** Single rows, or a few together, from the rows themselves. */
function fromRows(ranges: Range[], query: SeriesQuery): Drawn {
  const lists = ranges.map(({ stage, offset, from, to }) => {
    const columns = recent.get(stage.file, `${stage.indexed} ${from} ${to}`, () => new Columns(stage.read(from, to)));
    return { columns, offset };
  });
  return fromLists(lists, query);
}

interface List {
  columns: Columns;
  /** Added to the axis. */
  offset: number;
}

function fromLists(
  lists: List[],
  { keys, axis, from, to, points }: SeriesQuery,
  axisKey: string = AXIS_KEYS[axis],
): Drawn {
  const x: number[] = [];
  /** Of each list: the number that each row has among those that are drawn, −1 for the others. */
  const numbers = lists.map(({ columns, offset }) =>
    Int32Array.from(columns.filled(axisKey), (value) => {
      const place = value + offset;
      return place >= from && place <= to ? x.push(place) - 1 : -1;
    }),
  );
  const width = Math.max(1, Math.ceil(x.length / points));
  const starts = x.filter((_, i) => i % width === 0);
  const all = keys.map((key) => {
    const sums = new Points(starts.length);
    lists.forEach(({ columns }, list) => {
      const { rows, values } = columns.get(key);
      rows.forEach((row, i) => {
        const number = numbers[list]![row]!;
        const value = values[i]!;
        if (number >= 0) sums.add(Math.floor(number / width), value, value, value, 1);
      });
    });
    return seriesOf(key, sums, starts);
  });
  return { rowsPerPoint: width, series: all };
}

/** Load over time, in seconds since 1970: all rows of a short range, of a long one rows spread over it. */
export function hardwareSeries(file: RunFile, query: SeriesQuery): SeriesAnswer {
  const { from, to, points } = query;
  const key = 'time';
  const start = byteAt(file, key, from);
  const end = Math.max(start, byteBehind(file, key, to));
  const isShort = end - start <= SMALL_RANGE;
  const rows = isShort ? rowsBetween(file, start, end) : spreadRows(file, Math.min(points, MOST_SAMPLES), start, end);
  const drawn = fromLists([{ columns: new Columns(rows.map(({ row }) => row)), offset: 0 }], query, key);
  const extent: [number, number] = [numberIn(rowBehind(file, 0)?.row, key) ?? 0, numberIn(lastRowOf(file), key) ?? 0];
  return { axis: 'time', extent, isSampled: !isShort, ...drawn };
}

/** Rows spread over the range, found without an index. */
function sampled(stages: readonly StageRows[], offsets: number[], query: SeriesQuery): Drawn {
  const { axis, from, to } = query;
  const key = AXIS_KEYS[axis];
  const ranges = stages.map(({ file }, i) => {
    const start = byteAt(file, key, from - offsets[i]!);
    return { file, offset: offsets[i]!, start, end: Math.max(start, byteBehind(file, key, to - offsets[i]!)) };
  });
  const bytes = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  const count = Math.min(query.points, MOST_SAMPLES);
  const lists = ranges.map(({ file, offset, start, end }) => {
    const share = Math.max(2, Math.round((count * (end - start)) / Math.max(1, bytes)));
    const columns = recent.get(file, `${share} ${start} ${end}`, () => {
      const placed = bytes <= SMALL_RANGE ? rowsBetween(file, start, end) : spreadRows(file, share, start, end);
      return new Columns(placed.map(({ row }) => row));
    });
    return { columns, offset };
  });
  const drawn = fromLists(lists, query);
  const length = lists.reduce((sum, { columns }) => sum + columns.length, 0);
  const total = ranges.reduce((sum, { file, start, end }) => sum + (end - start) / rowBytes(file), 0);
  const rowsPerPoint = Math.max(1, Math.round(total / Math.max(1, length))) * drawn.rowsPerPoint;
  return { ...drawn, rowsPerPoint };
}

/** Bytes of a row, from the first and the last. */
function rowBytes(file: RunFile): number {
  const first = rowBehind(file, 0);
  return Math.max(2, first === undefined ? 2 : first.end + 1);
}

/** The byte behind which rows have at least this value of an axis: the begin of a line. */
function byteAt(file: RunFile, key: string, value: number): number {
  if (value === Number.NEGATIVE_INFINITY) return 0;
  let [low, high] = [0, file.size];
  while (high - low > 4096) {
    // No shift: bytes may be more than 32 bits count.
    const middle = Math.floor((low + high) / 2);
    const found = rowBehind(file, middle);
    if (found === undefined || (numberIn(found.row, key) ?? Number.NEGATIVE_INFINITY) >= value) high = middle;
    else low = found.start;
  }
  return low;
}

function byteBehind(file: RunFile, key: string, value: number): number {
  if (value === Number.POSITIVE_INFINITY) return file.size;
  const at = byteAt(file, key, value);
  // A little further, to a row that is beyond.
  const behind = rowBehind(file, Math.min(file.size, at + 8192));
  return behind === undefined ? file.size : behind.start;
}
