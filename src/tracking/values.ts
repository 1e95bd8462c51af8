/** What a run records: rows of named values. Names are `group/what_unit`, such as `train/loss` and `time/data_ms`. */

/** Counts of values between edges: `counts[i]` of them lie in [edges[i], edges[i + 1]), the last interval is closed. */
export interface Histogram {
  type: 'histogram';
  /** Ascending, one more than `counts`. */
  edges: number[];
  counts: number[];
}

export interface Text {
  type: 'text';
  text: string;
}

/** A grid of numbers shown as colours, such as attention of layers × heads. */
export interface Image {
  type: 'image';
  width: number;
  height: number;
  /** Row after row from the top, `[height · width]`. */
  values: number[];
  /** The values of the first and the last colour. */
  range: [number, number];
  /** What columns and rows stand for, such as `head` and `layer`. */
  labels: [string, string];
}

/** Which memories some chunks of a step read. */
export interface Retrievals {
  type: 'retrievals';
  chunks: {
    /** Text of the chunk. */
    text: string;
    /** Nearest first. `score` is the similarity to the query that found it, absent for memories of the chunks before. */
    memories: { id: string; score?: number }[];
  }[];
}

export type Media = Histogram | Text | Image | Retrievals;

export const MEDIA_TYPES = ['histogram', 'text', 'image', 'retrievals'] as const satisfies readonly Media['type'][];

/** A value that is not finite is stored as null: JSON has no name for it. */
export type MetricValue = number | string | boolean | null | Media;

export type MetricsRow = Record<string, MetricValue>;

/** The row that a line holds; undefined when it holds none. */
export function rowOf(line: string): MetricsRow | undefined {
  try {
    const row: unknown = JSON.parse(line);
    return typeof row === 'object' && row !== null && !Array.isArray(row) ? (row as MetricsRow) : undefined;
  } catch {
    return undefined;
  }
}

export function isMedia(value: MetricValue | undefined): value is Media {
  return typeof value === 'object' && value !== null;
}

/** Equally wide intervals between the least and the greatest finite value, float32 both; other values are left out. */
export function histogramOf(values: ArrayLike<number>, intervals = 64): Histogram {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return { type: 'histogram', edges: [0, 0], counts: [0] };
  let scale = intervals / (high - low);
  if (!Number.isFinite(scale)) {
    // Values that are (nearly) alike still need an interval with a width.
    const half = Math.max(0.5, Math.abs(low) / 1024);
    [low, high] = [low - half, high + half];
    scale = intervals / (high - low);
  }
  const counts = new Array<number>(intervals).fill(0);
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (Number.isFinite(value)) counts[Math.min(intervals - 1, Math.floor((value - low) * scale))]! += 1;
  }
  const edges = Array.from({ length: intervals + 1 }, (_, i) =>
    i < intervals ? low + ((high - low) * i) / intervals : high,
  );
  return { type: 'histogram', edges, counts };
}
