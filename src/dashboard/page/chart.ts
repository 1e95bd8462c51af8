/**
 * A line chart: uPlot draws, and what it lacks stands here: a legend with values at the cursor, a cursor moved by keys and
 * shared by the charts of a page, a summary in words, a table, a picture to keep.
 */

import uPlot from '/assets/uPlot.esm.js';
import { align, type Curve, nearest, spread } from './curves.ts';
import { h, say, table } from './dom.ts';
import { colour, lineColour, onTheme, withAlpha } from './theme.ts';

export interface Line extends Curve {
  label: string;
  /** Number of its colour. */
  colour: number;
  isDashed?: boolean;
  /** Drawn thin behind the others, and not in the legend. */
  isFaint?: boolean;
  /** Fills the space between `low` and the line. */
  isLayer?: boolean;
  /** Values that the legend shows in place of `y`. */
  shown?: (number | null)[];
  /** Draws a dot at each point. */
  hasDots?: boolean;
}

export interface Mark {
  x: number;
  label: string;
  /** Drawn small at the foot, without the label; without it the mark is a line from top to bottom. */
  sign?: string;
  /** Line of the sign, from the foot. */
  row?: number;
}

type Format = (value: number | null | undefined) => string;

export interface ChartOptions {
  title: string;
  format: Format;
  /** Name and form of the x axis. */
  xName: string;
  xFormat: Format;
  /** Ticks of the x axis, when they are other than `xFormat`. */
  xTicks?: Format;
  logX?: boolean;
  logY?: boolean;
  /** Limits of y; without them those of the values. */
  yRange?: [number, number];
  height?: number;
  /** Dragged over a range of x. Without it the chart cannot be zoomed. */
  zoom?: (from: number, to: number) => void;
  reset?: () => void;
  /** Address of all rows as CSV. */
  csv?: string;
  /** Said under the title. */
  note?: string;
}

/** Charts of a page that show one x: a cursor in one is a cursor in all. */
export class CursorGroup {
  readonly #charts = new Set<Chart>();

  add(chart: Chart): void {
    this.#charts.add(chart);
  }

  remove(chart: Chart): void {
    this.#charts.delete(chart);
  }

  move(from: Chart, x: number | undefined): void {
    for (const chart of this.#charts) if (chart !== from) chart.pointAt(x);
  }
}

const TABLE_ROWS = 100;

export class Chart {
  readonly element: HTMLElement;
  #options: ChartOptions;
  readonly #group: CursorGroup;
  readonly #box: HTMLDivElement;
  readonly #legend: HTMLUListElement;
  readonly #where: HTMLSpanElement;
  readonly #spoken: HTMLParagraphElement;
  readonly #table: HTMLDetailsElement;
  #lines: Line[] = [];
  #marks: Mark[] = [];
  #range: [number, number] | undefined;
  #plot: uPlot | undefined;
  #values: HTMLElement[] = [];
  #hidden = new Set<string>();
  #shape = '';
  /** Set while the group moves the cursor here, so that it is not sent back. */
  #isFollowing = false;

  constructor(options: ChartOptions, group: CursorGroup, signal: AbortSignal) {
    this.#options = options;
    this.#group = group;
    this.#box = h('div', { class: 'plot', tabindex: 0, role: 'group', keydown: (event) => this.#key(event) });
    this.#box.style.height = `${options.height ?? 220}px`;
    this.#legend = h('ul', { class: 'legend' });
    this.#where = h('span', { class: 'where' });
    this.#spoken = h('p', { class: 'unseen', 'aria-live': 'polite' });
    this.#table = h('details', { toggle: () => this.#showTable() }, h('summary', {}, 'Show as table'));
    this.element = h(
      'figure',
      { class: 'chart', 'aria-label': options.title },
      h(
        'figcaption',
        {},
        h('h3', {}, options.title),
        options.note && h('span', { class: 'quiet' }, options.note),
        this.#where,
      ),
      this.#legend,
      this.#box,
      h('div', { class: 'below' }, this.#table, this.#exports()),
      this.#spoken,
    );
    group.add(this);
    const observer = new ResizeObserver(() => this.#fit());
    observer.observe(this.#box);
    onTheme(() => this.#build(), signal);
    signal.addEventListener('abort', () => {
      observer.disconnect();
      group.remove(this);
      this.#plot?.destroy();
      this.#plot = undefined;
    });
  }

  /** Changes options; seen from the next `set` on. */
  configure(changes: Partial<ChartOptions>): void {
    const isSame = Object.entries(changes).every(
      ([name, value]) => this.#options[name as keyof ChartOptions] === value,
    );
    if (isSame) return;
    this.#options = { ...this.#options, ...changes };
    this.#shape = '';
  }

  /** Draws other lines. `range`: of x, when it is not that of the points. */
  set(lines: Line[], marks: Mark[] = [], range?: [number, number]): void {
    this.#lines = lines;
    this.#marks = marks;
    this.#range = range;
    const shape = lines
      .map((line) => [line.label, line.colour, line.isDashed, line.low !== undefined].join())
      .join(';');
    if (shape !== this.#shape || this.#plot === undefined) {
      this.#shape = shape;
      this.#makeLegend();
      this.#build();
    } else {
      this.#plot.batch(() => {
        this.#plot?.setData(this.#data(), false);
        this.#plot?.setScale('x', this.#extent());
      });
    }
    this.#showValues(this.#cursorX());
    this.#describe();
    if (this.#table.open) this.#showTable();
  }

  /** Puts the cursor at a value of x; undefined takes it away. */
  pointAt(x: number | undefined): void {
    const plot = this.#plot;
    if (plot === undefined) return;
    this.#isFollowing = true;
    const left = x === undefined ? -10 : plot.valToPos(x, 'x');
    plot.setCursor({ left, top: x === undefined ? -10 : 1 });
    this.#isFollowing = false;
    this.#showValues(x);
  }

  #exports(): HTMLElement {
    const { csv, title } = this.#options;
    return h(
      'span',
      { class: 'exports' },
      csv !== undefined && h('a', { href: csv, download: '', 'aria-label': `${title} as CSV` }, 'CSV'),
      h(
        'button',
        { type: 'button', class: 'plain', 'aria-label': `${title} as PNG`, click: () => this.#savePicture() },
        'PNG',
      ),
    );
  }

  #makeLegend(): void {
    const named = this.#lines.filter((line) => !line.isFaint);
    this.#values = named.map(() => h('span', { class: 'value' }));
    this.#legend.replaceChildren(
      ...named.map((line, i) => {
        const swatch = h('span', { class: `swatch${line.isDashed ? ' dashed' : ''}${line.isLayer ? ' layer' : ''}` });
        swatch.style.color = `var(${lineColour(line.colour)})`;
        const isOn = !this.#hidden.has(line.label);
        const button = h(
          'button',
          { type: 'button', class: 'plain', 'aria-pressed': isOn ? 'true' : 'false' },
          swatch,
          line.label,
        );
        button.addEventListener('click', () => this.#toggle(line.label, button));
        return h('li', {}, named.length > 1 ? button : h('span', {}, swatch, line.label), this.#values[i]!);
      }),
    );
  }

  #toggle(label: string, button: HTMLButtonElement): void {
    if (!this.#hidden.delete(label)) this.#hidden.add(label);
    button.setAttribute('aria-pressed', this.#hidden.has(label) ? 'false' : 'true');
    this.#build();
  }

  /** Columns for uPlot: x, then for each line its band, when it has one, and itself. */
  #data(): uPlot.AlignedData {
    const { x, at } = align(this.#lines);
    const { logY = false } = this.#options;
    const pick = (values: (number | null)[], places: (number | undefined)[]) =>
      places.map((i) => {
        const value = i === undefined ? undefined : values[i];
        return logY && typeof value === 'number' && value <= 0 ? null : value;
      });
    const columns = this.#lines.flatMap((line, i) => [
      ...(line.low === undefined ? [] : [pick(line.low, at[i]!), pick(line.high ?? line.y, at[i]!)]),
      pick(line.y, at[i]!),
    ]);
    return [x, ...columns];
  }

  #extent(): { min: number; max: number } {
    const { logX = false } = this.#options;
    const ends = this.#lines.flatMap(({ x }) =>
      x.length === 0 ? [] : [x.find((v) => !logX || v > 0) ?? x[0]!, x.at(-1)!],
    );
    let [min, max] = this.#range ?? (ends.length > 0 ? [Math.min(...ends), Math.max(...ends)] : [0, 1]);
    if (logX && min <= 0) min = ends.length > 0 ? Math.max(Math.min(...ends), Number.MIN_VALUE) : 1;
    if (!(max > min)) max = min + 1;
    return { min, max };
  }

  #build(): void {
    this.#plot?.destroy();
    this.#plot = undefined;
    if (this.#box.clientWidth === 0 || this.#lines.length === 0) return;
    this.#plot = new uPlot(this.#plotOptions(), this.#data(), this.#box);
    this.#plot.setScale('x', this.#extent());
  }

  #plotOptions(): uPlot.Options {
    const { logX, logY, format, xFormat, xTicks = xFormat, yRange, zoom } = this.#options;
    const grid = { stroke: colour('--grid'), width: 1 };
    const axis = { stroke: colour('--quiet'), grid, ticks: { ...grid, size: 4 }, font: '11px system-ui, sans-serif' };
    const { series, bands } = this.#series();
    return {
      width: this.#box.clientWidth,
      height: this.#box.clientHeight,
      padding: [8, 20, 0, 0],
      series,
      bands,
      legend: { show: false },
      scales: {
        x: { time: false, distr: logX ? 3 : 1 },
        y: { distr: logY ? 3 : 1, ...(yRange ? { range: yRange } : !logY && { range: yLimits }) },
      },
      axes: [
        {
          ...axis,
          size: 28,
          space: 64,
          values: (_, ticks) => ticks.map((value) => (value === null ? '' : short(xTicks(value)))),
        },
        {
          ...axis,
          size: 64,
          space: 28,
          values: (_, ticks) => ticks.map((value) => (value === null ? '' : short(format(value)))),
        },
      ],
      cursor: {
        y: false,
        drag: { x: zoom !== undefined, y: false, setScale: false },
        points: { size: 6 },
        bind: { dblclick: () => () => this.#options.reset?.() ?? null },
      },
      hooks: {
        draw: [(plot) => this.#drawMarks(plot)],
        setCursor: [(plot) => this.#cursorMoved(plot)],
        setSelect: [(plot) => this.#selected(plot)],
      },
    };
  }

  #series(): { series: uPlot.Series[]; bands: uPlot.Band[] } {
    const series: uPlot.Series[] = [{}];
    const bands: uPlot.Band[] = [];
    for (const line of this.#lines) {
      const stroke = colour(lineColour(line.colour));
      const show = !this.#hidden.has(line.label);
      const still: uPlot.Series = { show, points: { show: false }, spanGaps: true };
      if (line.low !== undefined) {
        bands.push({ series: [series.length + 1, series.length], fill: withAlpha(stroke, line.isLayer ? 0.45 : 0.16) });
        series.push(still, still);
      }
      series.push({
        ...still,
        stroke: line.isFaint ? withAlpha(stroke, 0.35) : stroke,
        width: line.isFaint || line.isLayer ? 1 : 1.5,
        points: { show: line.hasDots ?? false, size: 4, fill: stroke },
        ...(line.isDashed && { dash: [6, 4] }),
      });
    }
    return { series, bands };
  }

  #drawMarks(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.strokeStyle = ctx.fillStyle = colour('--quiet');
    /** Where the last sign of each row stands. */
    const signed: number[] = [];
    for (const { x, label, sign, row = 0 } of this.#marks) {
      const { min, max } = plot.scales.x ?? {};
      if (min === undefined || max === undefined || x < min || x > max) continue;
      const left = Math.round(plot.valToPos(x, 'x', true));
      if (sign !== undefined) {
        // Signs that would lie on each other are left out; the list of events has them all.
        if (left - (signed[row] ?? Number.NEGATIVE_INFINITY) < 12 * devicePixelRatio) continue;
        signed[row] = left;
        ctx.textAlign = 'center';
        ctx.fillText(sign, left, bbox.top + bbox.height - (4 + 13 * row) * devicePixelRatio);
        continue;
      }
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bbox.top + bbox.height);
      ctx.stroke();
      const isRight = left > bbox.left + bbox.width * 0.8;
      ctx.textAlign = isRight ? 'right' : 'left';
      ctx.fillText(label, left + (isRight ? -5 : 5) * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
    }
    ctx.restore();
  }

  #cursorX(): number | undefined {
    const index = this.#plot?.cursor.idx;
    return index === null || index === undefined ? undefined : this.#plot?.data[0]?.[index];
  }

  #cursorMoved(plot: uPlot): void {
    if (this.#isFollowing) return;
    const isInside = (plot.cursor.left ?? -1) >= 0;
    const x = isInside ? this.#cursorX() : undefined;
    this.#showValues(x);
    this.#group.move(this, x);
  }

  #selected(plot: uPlot): void {
    const { left, width } = plot.select;
    if (width < 4) return;
    const [from, to] = [plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x')];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.#options.zoom?.(from, to);
  }

  /** Values of the points nearest to x; of the last ones without it. */
  #showValues(x: number | undefined): void {
    const { format, xFormat, xName } = this.#options;
    say(this.#where, x === undefined ? '' : `${xName} ${xFormat(x)}`);
    const named = this.#lines.filter((line) => !line.isFaint);
    named.forEach((line, i) => {
      const index = x === undefined ? line.x.length - 1 : nearest(line.x, x);
      say(this.#values[i]!, format((line.shown ?? line.y)[index]));
    });
  }

  #describe(): void {
    const { title, xName, xFormat, format } = this.#options;
    const { min, max } = this.#extent();
    const lines = this.#lines.filter((line) => !line.isFaint && line.x.length > 0);
    const texts = lines.map((line) => {
      const values = (line.shown ?? line.y).filter((value): value is number => value !== null);
      const [least, greatest] = [
        values.reduce((a, b) => Math.min(a, b), Infinity),
        values.reduce((a, b) => Math.max(a, b), -Infinity),
      ];
      return `${line.label} between ${format(least)} and ${format(greatest)}, last ${format(values.at(-1))}`;
    });
    const lasting = this.#marks.filter(({ sign }) => sign === undefined);
    const marks = lasting.map(({ x, label }) => `; ${label} from ${xFormat(x)}`).join('');
    const range =
      lines.length === 0 ? 'no values yet' : `${xName} ${xFormat(min)} to ${xFormat(max)}; ${texts.join('; ')}${marks}`;
    const keys = 'Arrow keys read values, plus and minus zoom, Escape shows all.';
    this.#box.setAttribute('aria-label', `${title}, line chart: ${range}. ${keys}`);
  }

  #key(event: Event): void {
    const { key, shiftKey } = event as KeyboardEvent;
    const x = this.#plot?.data[0];
    if (x === undefined || x.length === 0) return;
    const { min, max } = this.#plot?.scales.x ?? {};
    const [from, to] = [min ?? x[0]!, max ?? x.at(-1)!];
    const now = this.#cursorX();
    const index = now === undefined ? undefined : nearest(x, now);
    const step = shiftKey ? Math.max(1, Math.round(x.length / 20)) : 1;
    if (key === 'ArrowRight') this.#step(index === undefined ? nearest(x, from) : index + step);
    else if (key === 'ArrowLeft') this.#step(index === undefined ? nearest(x, to) : index - step);
    else if (key === 'Home') this.#step(nearest(x, from));
    else if (key === 'End') this.#step(nearest(x, to));
    else if (key === '+' || key === '=') this.#scaleBy(0.5, now ?? (from + to) / 2, from, to);
    else if (key === '-') this.#scaleBy(2, now ?? (from + to) / 2, from, to);
    else if (key === 'Escape') this.#options.reset?.();
    else return;
    event.preventDefault();
  }

  #step(index: number): void {
    const x = this.#plot?.data[0];
    if (x === undefined) return;
    const { xName, xFormat } = this.#options;
    const at = x[Math.min(x.length - 1, Math.max(0, index))]!;
    this.pointAt(at);
    this.#group.move(this, at);
    const named = this.#lines.filter((line) => !line.isFaint);
    const values = named.map((line, i) => `${line.label} ${this.#values[i]!.textContent}`);
    say(this.#spoken, `${xName} ${xFormat(at)}: ${values.join(', ')}`);
  }

  #scaleBy(factor: number, centre: number, from: number, to: number): void {
    this.#options.zoom?.(centre - (centre - from) * factor, centre + (to - centre) * factor);
  }

  #fit(): void {
    if (this.#plot === undefined) this.#build();
    else this.#plot.setSize({ width: this.#box.clientWidth, height: this.#box.clientHeight });
  }

  #showTable(): void {
    if (!this.#table.open) return;
    const { title, xName, xFormat, format } = this.#options;
    const lines = this.#lines.filter((line) => !line.isFaint);
    const { x, at } = align(lines);
    const chosen = spread(x.length, TABLE_ROWS);
    const rows = chosen.map((place) => [
      xFormat(x[place]),
      ...lines.map((line, i) => {
        const index = at[i]![place];
        return index === undefined ? '' : format((line.shown ?? line.y)[index]);
      }),
    ]);
    const some = chosen.length < x.length ? `, ${chosen.length} of ${x.length} points` : '';
    const shown = table(`${title}${some}`, [xName, ...lines.map(({ label }) => label)], rows, {
      showCaption: some !== '',
    });
    this.#table.replaceChildren(this.#table.firstChild!, shown);
  }

  /** The drawing with its title and legend, as one picture. */
  #savePicture(): void {
    const plot = this.#plot;
    if (plot === undefined) return;
    const { canvas } = plot.ctx;
    const ratio = devicePixelRatio;
    const picture = h('canvas', { width: canvas.width, height: canvas.height + 44 * ratio });
    const context = picture.getContext('2d')!;
    context.fillStyle = colour('--paper');
    context.fillRect(0, 0, picture.width, picture.height);
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.fillStyle = colour('--ink');
    context.fillText(this.#options.title, 10 * ratio, 17 * ratio);
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    let left = 10 * ratio;
    for (const line of this.#lines) {
      if (line.isFaint || this.#hidden.has(line.label)) continue;
      context.fillStyle = colour(lineColour(line.colour));
      context.fillRect(left, 30 * ratio, 14 * ratio, 3 * ratio);
      context.fillStyle = colour('--ink');
      context.fillText(line.label, left + 19 * ratio, 36 * ratio);
      left += context.measureText(line.label).width + 40 * ratio;
    }
    context.drawImage(canvas, 0, 44 * ratio);
    picture.toBlob((blob) => blob && save(blob, `${this.#options.title}.png`), 'image/png');
  }
}

function save(blob: Blob, name: string): void {
  const href = URL.createObjectURL(blob);
  h('a', { href, download: name.replaceAll(/[^\w. -]+/g, '_') }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

/** Values that are all alike still need a height. */
function yLimits(_: uPlot, low: number | null, high: number | null): uPlot.Range.MinMax {
  if (low === null || high === null) return [0, 1];
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) / 10, high + Math.abs(high) / 10];
  return uPlot.rangeNum(low, high, 0.08, true);
}

/** Axis ticks have little room: zeros behind the point say nothing there. */
function short(text: string): string {
  return text.replace(/(\.\d*?)0+(?=$|[^\d])/, '$1').replace(/\.(?=$|[^\d])/, '');
}
