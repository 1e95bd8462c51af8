/** A chart of curves over logarithmic axes in characters, for a terminal. */

export interface TextChart {
  /** Ascending and positive, a column each, each as many times the one before. */
  xs: readonly number[];
  xLabel: string;
  yLabel: string;
  /** A value a column; values that are not positive are not drawn. Later curves are drawn over earlier ones. */
  curves: { name: string; ys: readonly number[] }[];
  /** Upright lines. */
  marks: readonly number[];
  /** Rows of the plot. */
  height: number;
  /** Plain ASCII, for a terminal that shows no other characters. */
  ascii: boolean;
}

interface Glyphs {
  curves: readonly string[];
  mark: string;
  side: string;
  tick: string;
  corner: string;
  bottom: string;
  bottomTick: string;
}

const UNICODE: Glyphs = {
  curves: ['○', '●', '▲'],
  mark: '┊',
  side: '│',
  tick: '┤',
  corner: '└',
  bottom: '─',
  bottomTick: '┴',
};
const ASCII: Glyphs = {
  curves: ['o', '*', '^'],
  mark: ':',
  side: '|',
  tick: '+',
  corner: '+',
  bottom: '-',
  bottomTick: '+',
};

/** Width of the labels on the left. */
const MARGIN = 8;

/** True where a terminal wants plain ASCII: a dumb one, or one whose locale is named and is not UTF-8. */
export function wantsAscii(environment: Readonly<Record<string, string | undefined>>): boolean {
  const locale = environment.LC_ALL || environment.LC_CTYPE || environment.LANG || '';
  return environment.TERM === 'dumb' || (locale !== '' && !/utf-?8/i.test(locale));
}

/** Draws a chart of at most three curves. @returns its lines, without a line break at the end */
export function textChart(chart: TextChart): string {
  const { xs, xLabel, yLabel, curves, height } = chart;
  const glyphs = chart.ascii ? ASCII : UNICODE;
  const values = curves.flatMap(({ ys }) => ys.filter((y) => y > 0));
  const powers = { low: Math.floor(Math.log10(Math.min(...values))), high: Math.ceil(Math.log10(Math.max(...values))) };
  const rowOf = (y: number): number =>
    Math.round(((powers.high - Math.log10(y)) / Math.max(1, powers.high - powers.low)) * (height - 1));
  const cells = Array.from({ length: height }, () => new Array<string>(xs.length).fill(' '));
  for (const mark of chart.marks) {
    const column = columnOf(xs, mark);
    if (column !== undefined) for (const row of cells) row[column] = glyphs.mark;
  }
  for (const [i, { ys }] of curves.entries()) {
    for (const [column, y] of ys.entries()) if (y > 0) cells[rowOf(y)]![column] = glyphs.curves[i]!;
  }
  const labels = new Map<number, string>();
  for (let power = powers.high; power >= powers.low; power--) {
    const row = rowOf(10 ** power);
    if (!labels.has(row)) labels.set(row, powerText(power));
  }
  const legend = curves.map(({ name }, i) => `${glyphs.curves[i]} ${name}`).join('   ');
  return [
    `${' '.repeat(MARGIN + 1)}${legend}`,
    yLabel,
    ...cells.map((row, i) => {
      const label = labels.get(i);
      const side = label === undefined ? glyphs.side : glyphs.tick;
      return `${(label ?? '').padStart(MARGIN)}${side}${row.join('')}`.trimEnd();
    }),
    ...xAxis(xs, glyphs),
    `${' '.repeat(MARGIN + 1)}${xLabel}`,
  ].join('\n');
}

/** The line below the plot, and the powers of ten under it. */
function xAxis(xs: readonly number[], glyphs: Glyphs): string[] {
  const line = new Array<string>(xs.length).fill(glyphs.bottom);
  let labels = '';
  const last = Math.floor(Math.log10(xs.at(-1)!));
  for (let power = Math.ceil(Math.log10(xs[0]!) - 1e-9); power <= last; power++) {
    const column = columnOf(xs, 10 ** power);
    if (column === undefined) continue;
    line[column] = glyphs.bottomTick;
    const text = powerText(power);
    const at = Math.max(0, column - Math.floor(text.length / 2));
    if (labels === '' || labels.length < at) labels = `${labels.padEnd(at)}${text}`;
  }
  return [`${' '.repeat(MARGIN)}${glyphs.corner}${line.join('')}`, `${' '.repeat(MARGIN + 1)}${labels}`];
}

/** The column that stands for a value; undefined outside of the plot. */
function columnOf(xs: readonly number[], value: number): number | undefined {
  const [first, last] = [Math.log(xs[0]!), Math.log(xs.at(-1)!)];
  const column = Math.round(((Math.log(value) - first) / (last - first)) * (xs.length - 1));
  return column >= 0 && column < xs.length ? column : undefined;
}

/** 10 to the power: as it is written where that is short. */
function powerText(power: number): string {
  if (power < -3 || power > 6) return `1e${power}`;
  return power < 0 ? (10 ** power).toFixed(-power) : (10 ** power).toLocaleString('en-US');
}
