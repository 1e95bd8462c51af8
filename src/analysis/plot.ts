/** A small line chart as SVG text: no dependencies, legible on a light and on a dark page. */

export interface Series {
  name: string;
  /** Values that are not finite (or not positive on a logarithmic axis) leave a gap. */
  xs: ArrayLike<number>;
  ys: ArrayLike<number>;
}

export interface Chart {
  title: string;
  xLabel: string;
  yLabel: string;
  series: Series[];
  /** Vertical lines with a word, such as the step at which a stage began. */
  marks?: { x: number; label: string }[];
  logX?: boolean;
  logY?: boolean;
}

interface Point {
  x: number;
  y: number;
}

/** An axis: a range of values, its ticks, and where a value stands in pixels. */
interface Axis {
  ticks: { value: number; text: string }[];
  place: (value: number) => number;
}

const WIDTH = 800;
const HEIGHT = 450;
const PLOT = { left: 76, right: 776, top: 84, bottom: 392 };
/** About so many steps between ticks. */
const X_TICKS = 10;
const Y_TICKS = 6;
/** Okabe and Ito's colours, told apart by colour-blind readers too, the dark ones first. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000'];
const DASHES = ['', '7 4', '2 3'];
const CHARACTER_WIDTH = 6.7;

/**
 * Draws a chart.
 * @returns a whole SVG document, 800 × 450, on a white card of its own
 * @throws RangeError when a series has different numbers of xs and ys
 */
export function curvesSvg(chart: Chart): string {
  const lines = chart.series.map((series) => segments(series, chart));
  const points = lines.flat(2);
  const marks = (chart.marks ?? []).filter(({ x }) => Number.isFinite(x) && (!chart.logX || x > 0));
  const xs = [...points, ...marks].map(({ x }) => x);
  const ys = points.map(({ y }) => y);
  const across = { from: PLOT.left, to: PLOT.right, steps: X_TICKS, whole: false };
  const upwards = { from: PLOT.bottom, to: PLOT.top, steps: Y_TICKS, whole: true };
  const xAxis = chart.logX ? logAxis(xs, across) : linearAxis(xs, across);
  const yAxis = chart.logY ? logAxis(ys, upwards) : linearAxis(ys, upwards);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}"` +
      ` role="img" font-family="system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif" font-size="12" fill="#333">`,
    `<title>${escapeXml(chart.title)}</title>`,
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="8" fill="#fff" stroke="#d0d7de"/>`,
    text(PLOT.left, 30, chart.title, 'font-size="16" font-weight="600" fill="#111"'),
    ...axes(chart, xAxis, yAxis),
    ...marks.flatMap((mark, i) => drawMark(mark.label, xAxis.place(mark.x), i)),
    ...lines.flatMap((line, i) => line.map((segment) => drawSegment(segment, xAxis, yAxis, i))),
    ...legend(chart.series),
    points.length === 0
      ? text((PLOT.left + PLOT.right) / 2, 240, 'no data yet', 'text-anchor="middle" fill="#777"')
      : '',
    '</svg>\n',
  ]
    .filter((part) => part !== '')
    .join('\n');
}

/** The unbroken pieces of a series, thinned to what the plot can show. */
function segments({ name, xs, ys }: Series, { logX, logY }: Pick<Chart, 'logX' | 'logY'>): Point[][] {
  if (xs.length !== ys.length) throw new RangeError(`series ${name}: ${xs.length} xs but ${ys.length} ys`);
  const pieces: Point[][] = [];
  let piece: Point[] = [];
  for (let i = 0; i <= xs.length; i++) {
    const point = { x: xs[i] ?? Number.NaN, y: ys[i] ?? Number.NaN };
    const isDrawn =
      Number.isFinite(point.x) && Number.isFinite(point.y) && (!logX || point.x > 0) && (!logY || point.y > 0);
    if (isDrawn) {
      piece.push(point);
    } else if (piece.length > 0) {
      pieces.push(thin(piece));
      piece = [];
    }
  }
  return pieces;
}

/** Keeps the lowest and highest point of each bucket, so that a spike stays visible however long the run was. */
function thin(points: Point[]): Point[] {
  const buckets = PLOT.right - PLOT.left;
  if (points.length <= 2 * buckets) return points;
  const kept: Point[] = [points[0]!];
  const last = points.length - 1;
  for (let bucket = 0; bucket < buckets; bucket++) {
    let low = 1 + Math.floor((bucket * (last - 1)) / buckets);
    let high = low;
    const end = 1 + Math.floor(((bucket + 1) * (last - 1)) / buckets);
    for (let i = low + 1; i < end; i++) {
      if (points[i]!.y < points[low]!.y) low = i;
      if (points[i]!.y > points[high]!.y) high = i;
    }
    kept.push(points[Math.min(low, high)]!);
    if (low !== high) kept.push(points[Math.max(low, high)]!);
  }
  kept.push(points[last]!);
  return kept;
}

function extent(values: number[]): { low: number; high: number } {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? { low, high } : { low: 0, high: 1 };
}

/** Smaller values are drawn as zero: a step between them could not be represented. */
const TINY = 1e-280;

/** The pixels that an axis goes along. */
interface Along {
  from: number;
  to: number;
  /** About so many steps between ticks. */
  steps: number;
  /** Whether a linear axis is widened to the ticks around the data; a logarithmic one always is. */
  whole: boolean;
}

/** Ticks at multiples of 1, 2 or 5 times a power of ten; `whole` widens the axis to the ticks around the data. */
function linearAxis(values: number[], { from, to, steps, whole }: Along): Axis {
  let { low, high } = extent(values);
  const size = Math.max(Math.abs(low), Math.abs(high));
  // Ticks between values that differ in their last digits only could not be told apart, nor counted.
  if (size < TINY) [low, high] = [0, 1];
  else if (high - low <= size * 1e-9) [low, high] = [low - size / 2, high + size / 2];
  const step = niceStep((high - low) / steps);
  if (whole) [low, high] = [Math.floor(low / step) * step, Math.ceil(high / step) * step];
  const ticks = [];
  // The hair's breadth keeps a last tick that rounding has pushed past the end.
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    ticks.push({ value: i * step, text: tickText(i * step, step) });
  }
  return { ticks, place: (value) => from + ((value - low) / (high - low)) * (to - from) };
}

/** Ticks at powers of ten, with 2 and 5 between them when there are few. */
function logAxis(values: number[], { from, to, steps }: Along): Axis {
  const { low: least, high: greatest } = extent(values.length > 0 ? values : [1, 10]);
  const candidates = [];
  for (let power = Math.floor(Math.log10(least)) - 1; power <= Math.ceil(Math.log10(greatest)) + 1; power++) {
    for (const digit of [1, 2, 5]) candidates.push(Number(`${digit}e${power}`));
  }
  const below = candidates.findLast((value) => value <= least) ?? least;
  const above = candidates.find((value) => value >= greatest && value > below) ?? greatest;
  const inside = candidates.filter((value) => value >= below && value <= above);
  const powers = inside.filter((value) => Number.isInteger(Math.log10(value)));
  const skip = Math.ceil(powers.length / (steps + 2));
  const shown = inside.length <= steps + 4 ? inside : powers.filter((_, i) => i % skip === 0);
  const span = Math.log(above) - Math.log(below);
  return {
    ticks: shown.map((value) => ({ value, text: tickText(value, value) })),
    place: (value) => from + ((Math.log(value) - Math.log(below)) / span) * (to - from),
  };
}

function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= rough * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** As many decimals as the step needs; very large and very small values with k, M, G, T or an exponent. */
function tickText(value: number, step: number): string {
  if (value === 0) return '0';
  const magnitude = Math.max(Math.abs(value), Math.abs(step));
  if (magnitude < 1e-4 || magnitude >= 1e15) return value.toExponential().replace(/(\.\d{3})\d*/, '$1');
  const scale = [
    { size: 1e12, suffix: 'T' },
    { size: 1e9, suffix: 'G' },
    { size: 1e6, suffix: 'M' },
    { size: 1e4, unit: 1e3, suffix: 'k' },
  ].find(({ size }) => magnitude >= size);
  const unit = scale?.unit ?? scale?.size ?? 1;
  const decimals = Math.max(0, -Math.floor(Math.log10(Math.abs(step) / unit) + 1e-9));
  return `${(value / unit).toFixed(decimals)}${scale?.suffix ?? ''}`;
}

function axes(chart: Chart, xAxis: Axis, yAxis: Axis): string[] {
  const middle = (PLOT.top + PLOT.bottom) / 2;
  return [
    ...yAxis.ticks.flatMap(({ value, text: label }) => {
      const y = pixel(yAxis.place(value));
      return [
        `<path d="M${PLOT.left} ${y}H${PLOT.right}" stroke="#e6e9ec"/>`,
        text(PLOT.left - 8, Number(y) + 4, label, 'text-anchor="end"'),
      ];
    }),
    ...xAxis.ticks.flatMap(({ value, text: label }) => {
      const x = pixel(xAxis.place(value));
      return [
        `<path d="M${x} ${PLOT.top}V${PLOT.bottom}" stroke="#f1f3f5"/>`,
        text(Number(x), PLOT.bottom + 18, label, 'text-anchor="middle"'),
      ];
    }),
    `<path d="M${PLOT.left} ${PLOT.top}V${PLOT.bottom}H${PLOT.right}" fill="none" stroke="#8c959f"/>`,
    text((PLOT.left + PLOT.right) / 2, HEIGHT - 16, chart.xLabel, 'text-anchor="middle"'),
    text(0, 0, chart.yLabel, `text-anchor="middle" transform="translate(20 ${middle}) rotate(-90)"`),
  ];
}

/** Labels of neighbouring marks stand on two heights; one at the right edge is written to the left of its line. */
function drawMark(label: string, x: number, index: number): string[] {
  const left = x + 5 + label.length * CHARACTER_WIDTH > PLOT.right;
  const y = PLOT.top + 13 + (index % 2) * 15;
  return [
    `<path d="M${pixel(x)} ${PLOT.top}V${PLOT.bottom}" stroke="#8c959f" stroke-dasharray="4 4"/>`,
    text(x + (left ? -5 : 5), y, label, `font-size="11" fill="#57606a"${left ? ' text-anchor="end"' : ''}`),
  ];
}

function drawSegment(segment: Point[], xAxis: Axis, yAxis: Axis, index: number): string {
  const spots = segment.map(({ x, y }) => ({ x: pixel(xAxis.place(x)), y: pixel(yAxis.place(y)) }));
  const only = spots[0]!;
  if (spots.length === 1) return `<circle cx="${only.x}" cy="${only.y}" r="3" fill="${colour(index)}"/>`;
  const path = spots.map(({ x, y }, i) => `${i === 0 ? 'M' : 'L'}${x} ${y}`).join('');
  return `<path d="${path}" fill="none" stroke-linejoin="round" ${stroke(index)}/>`;
}

/** A row of samples and names under the title; what does not fit goes to a second row. */
function legend(series: Series[]): string[] {
  let x = PLOT.left;
  let y = 52;
  return series.flatMap(({ name }, i) => {
    const width = 30 + name.length * CHARACTER_WIDTH + 18;
    if (x + width > PLOT.right && x > PLOT.left) [x, y] = [PLOT.left, y + 18];
    const at = x;
    x += width;
    return [`<path d="M${pixel(at)} ${y}h22" ${stroke(i)}/>`, text(at + 28, y + 4, name)];
  });
}

function colour(index: number): string {
  return COLOURS[index % COLOURS.length]!;
}

/** Beyond the colours, dashes tell series apart. */
function stroke(index: number): string {
  const dash = DASHES[Math.floor(index / COLOURS.length) % DASHES.length]!;
  return `stroke="${colour(index)}" stroke-width="1.8"${dash === '' ? '' : ` stroke-dasharray="${dash}"`}`;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${pixel(x)}" y="${pixel(y)}"${attributes === '' ? '' : ` ${attributes}`}>${escapeXml(content)}</text>`;
}

function pixel(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function escapeXml(content: string): string {
  return content.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c);
}
