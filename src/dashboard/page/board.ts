/** The curves of a page: one question to the server for all of them, drawn again when rows come or the view changes. */

import type { RunDetail, Series, SeriesAnswer } from '../api.ts';
import { AXES, type View, viewOf, zoomed } from './axis.ts';
import { Chart, CursorGroup, type Line, type Mark } from './chart.ts';
import { apiAddress, ask, paced } from './client.ts';
import { curveOf, smooth, stackedShares } from './curves.ts';
import { h, nothing } from './dom.ts';
import { clock, dayAndTime, formatOf, percent, time } from './format.ts';
import { problem, type RunView } from './frame.ts';
import type { AddressState } from './route.ts';

export interface ChartSpec {
  title: string;
  keys: string[];
  /** `smoothed`: the rows as a band with a smoothed line; `shares`: parts of a whole, laid on each other. */
  kind: 'smoothed' | 'lines' | 'shares';
  /** Names of the lines, when they are other than the keys. */
  labels?: Record<string, string>;
  isWide?: boolean;
  note?: string;
}

/** As many as the server draws: a run of so many rows is shown row by row. */
const POINTS = 4000;
/** Keys of one question: the server answers 100, and an address has an end. */
const MOST_KEYS = 50;
/** Seconds. */
const DAY = 86_400;
/** Milliseconds between two looks at the rows of a run that goes on, and at which keys it has. */
const LOOK = { rows: 2000, keys: 10_000 };

export interface BoardOptions {
  /** Which charts a run has. */
  specs: (detail: RunDetail) => ChartSpec[];
  /** `hardware` is drawn over the time of the day and has no zoom. */
  source?: 'series' | 'hardware';
  /** Signs at the foot of the wide charts, where x is the step. */
  signs?: () => Mark[];
  /** Said where no chart is. */
  empty: string;
  /** Called when the range was changed by dragging. */
  zoomed?: () => void;
}

export class Board {
  readonly element = h('div', { class: 'charts' });
  readonly #status = h('p', { class: 'quiet', role: 'status' });
  readonly #view: RunView;
  readonly #state: AddressState;
  readonly #options: BoardOptions;
  readonly #signal: AbortSignal;
  readonly #group = new CursorGroup();
  readonly #charts = new Map<string, { spec: ChartSpec; chart: Chart; ending: AbortController }>();
  #answer: SeriesAnswer | undefined;
  #lookedAt = Date.now();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stage: string | undefined;
  /** Number of the last question: an answer to an earlier one is too late. */
  #asked = 0;

  constructor(view: RunView, state: AddressState, options: BoardOptions, signal: AbortSignal) {
    this.#view = view;
    this.#state = state;
    this.#options = options;
    this.#signal = signal;
    this.#stage = view.detail.stage;
    view.onRows.push(paced(() => this.load(), LOOK.rows, signal));
  }

  /** Fetches the curves of the range that is looked at, and draws them. */
  async load(): Promise<void> {
    const number = ++this.#asked;
    try {
      await this.#lookAgain();
      const specs = this.#options.specs(this.#view.detail);
      this.#arrange(specs);
      if (specs.length === 0) return;
      const answer = await this.#ask(specs);
      if (number !== this.#asked) return;
      this.#answer = answer;
      this.redraw();
      // Until the rows are indexed. Loads are always drawn from a sample when they are many.
      clearTimeout(this.#timer);
      if (answer.isSampled && this.#options.source !== 'hardware') {
        this.#timer = setTimeout(() => !this.#signal.aborted && void this.load(), LOOK.rows);
      }
    } catch (error) {
      if (!this.#signal.aborted) this.element.replaceChildren(problem(error, () => void this.#anew()));
    }
  }

  /** Asks for the points of all charts, for those of a chart at once. */
  async #ask(specs: ChartSpec[]): Promise<SeriesAnswer> {
    const { axis, from, to } = viewOf(this.#state);
    const range = this.#options.source === 'hardware' ? {} : { x: axis, from, to };
    const groups: string[][] = [[]];
    for (const { keys } of specs) {
      if (groups.at(-1)!.length + keys.length > MOST_KEYS) groups.push([]);
      groups.at(-1)!.push(...keys);
    }
    const parts = ['runs', this.#view.run, this.#options.source ?? 'series'];
    const answers = await Promise.all(
      groups.map((keys) => ask<SeriesAnswer>(parts, { keys: keys.join(','), points: POINTS, ...range }, this.#signal)),
    );
    const isSampled = answers.some((answer) => answer.isSampled);
    return { ...answers[0]!, isSampled, series: answers.flatMap(({ series }) => series) };
  }

  /** Draws what was fetched as the view has it now. */
  redraw(): void {
    const answer = this.#answer;
    if (answer === undefined) return;
    const view = viewOf(this.#state);
    const isHardware = this.#options.source === 'hardware';
    const range = isHardware
      ? undefined
      : ([view.from ?? answer.extent[0], view.to ?? answer.extent[1]] as [number, number]);
    const at = isHardware ? undefined : this.#view.detail.switch?.[view.axis];
    const marks: Mark[] = at === undefined ? [] : [{ x: at, label: 'continual' }];
    const signs = view.axis === 'step' && !isHardware ? (this.#options.signs?.() ?? []) : [];
    const byKey = new Map(answer.series.map((series) => [series.key, series]));
    for (const { spec, chart } of this.#charts.values()) {
      const series = spec.keys.flatMap((key) => byKey.get(key) ?? []);
      if (isHardware) chart.configure({ xTicks: answer.extent[1] - answer.extent[0] > DAY ? dayAndTime : clock });
      else chart.configure(axisOptions(view, spec));
      const shown = spec.isWide ? [...marks, ...signs] : marks;
      chart.set(linesOf(spec, series, answer.rowsPerPoint, view, at), shown, range);
    }
    const why = isHardware
      ? 'Drawn from samples spread over the time, since there are many.'
      : 'Rows are being indexed; until then curves are drawn from a sample.';
    this.#status.textContent = answer.isSampled ? why : '';
  }

  async #anew(): Promise<void> {
    for (const { ending } of this.#charts.values()) ending.abort();
    this.#charts.clear();
    await this.load();
  }

  /** A new stage brings new keys. */
  async #lookAgain(): Promise<void> {
    const { run, detail } = this.#view;
    const isNew = detail.stage !== this.#stage || detail.keys.length === 0;
    if (!isNew && Date.now() - this.#lookedAt < LOOK.keys) return;
    this.#lookedAt = Date.now();
    this.#stage = detail.stage;
    Object.assign(detail, await ask<RunDetail>(['runs', run], {}, this.#signal));
    for (const listener of this.#view.onDetail) listener();
  }

  #arrange(specs: ChartSpec[]): void {
    for (const [title, { spec, ending }] of this.#charts) {
      if (specs.some((other) => other.title === title && other.keys.join() === spec.keys.join())) continue;
      ending.abort();
      this.#charts.delete(title);
    }
    for (const spec of specs) if (!this.#charts.has(spec.title)) this.#charts.set(spec.title, this.#make(spec));
    const wanted = specs.map(({ title }) => this.#charts.get(title)!.chart.element);
    const now = [...this.element.children].filter((child) => child !== this.#status);
    if (wanted.length > 0 && wanted.length === now.length && wanted.every((element, i) => element === now[i])) return;
    this.element.replaceChildren(this.#status, ...(wanted.length > 0 ? wanted : [nothing(this.#options.empty)]));
  }

  #make(spec: ChartSpec): { spec: ChartSpec; chart: Chart; ending: AbortController } {
    const ending = new AbortController();
    this.#signal.addEventListener('abort', () => ending.abort());
    const isHardware = this.#options.source === 'hardware';
    const zoom = (from: number, to: number) => {
      zoomed(this.#state, from, to);
      this.#options.zoomed?.();
      void this.load();
    };
    const reset = () => {
      this.#state.set({ from: undefined, to: undefined });
      this.#options.zoomed?.();
      void this.load();
    };
    const chart = new Chart(
      {
        title: spec.title,
        note: spec.note,
        format: spec.kind === 'shares' ? percent : formatOf(spec.keys[0] ?? ''),
        ...(spec.kind === 'shares' && { yRange: [0, 1] as [number, number] }),
        xName: isHardware ? 'at' : 'step',
        xFormat: (value) => time(value ?? 0),
        height: spec.isWide ? 300 : 180,
        ...(!isHardware && {
          zoom,
          reset,
          csv: apiAddress(['runs', this.#view.run, 'export.csv'], { keys: spec.keys.join(',') }),
        }),
      },
      this.#group,
      ending.signal,
    );
    chart.element.classList.toggle('wide', spec.isWide ?? false);
    return { spec, chart, ending };
  }
}

function axisOptions({ axis, logX, logY }: View, { kind }: ChartSpec) {
  const { name, format, ticks } = AXES[axis];
  return { xName: name, xFormat: format, xTicks: ticks, logX, logY: logY && kind !== 'shares' };
}

function linesOf(spec: ChartSpec, series: Series[], rows: number, view: View, restart: number | undefined): Line[] {
  const label = (key: string) => spec.labels?.[key] ?? key;
  if (spec.kind === 'shares') {
    return stackedShares(series).map((curve, i) => ({
      ...curve,
      label: label(series[i]!.key),
      colour: i,
      isLayer: true,
      high: curve.y,
      shown: curve.y.map((value, j) => (value === null ? null : value - (curve.low?.[j] ?? 0))),
    }));
  }
  return series.flatMap((one, i): Line[] => {
    const curve = curveOf(one);
    const few = { hasDots: curve.x.length < 60, isDashed: i > 0 };
    if (spec.kind === 'lines' || view.smoothing === 0) return [{ ...curve, label: label(one.key), colour: i, ...few }];
    const smoothed = smooth(curve, view.smoothing, rows, restart);
    return [
      { ...curve, label: `${label(one.key)}, rows`, colour: i, isFaint: true },
      { x: curve.x, y: smoothed, label: label(one.key), colour: i },
    ];
  });
}
