/** Curves of several runs laid over each other. */

import type { RunDetail, SeriesAnswer } from '../api.ts';
import { AXES, viewBar, viewOf, zoomed } from './axis.ts';
import { Chart, CursorGroup, type Line } from './chart.ts';
import { ask, follow, paced } from './client.ts';
import { curveOf, smooth } from './curves.ts';
import { h, nothing, table, tick } from './dom.ts';
import { anything, formatOf, integer, number, short } from './format.ts';
import { problem, showConnection, stateLabel } from './frame.ts';
import { type AddressState, address } from './route.ts';
import { LINE_COLOURS } from './theme.ts';

/** Points of all runs together, and of one at least. */
const POINTS = { all: 4000, one: 500 };
const FIRST = ['train/loss', 'validation/loss'];
/** Milliseconds between two looks at runs that go on. */
const LOOK = 2000;

export async function comparePage(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<undefined> {
  const names = state.list('runs');
  if (names.length === 0) {
    main.replaceChildren(
      h('h1', {}, 'Compare'),
      nothing('Tick runs in the list to compare them.'),
      h('a', { href: '#/' }, 'To the runs'),
    );
    return undefined;
  }
  const { runs, failed } = await detailsOf(names, signal);
  const keys = [...new Set(runs.flatMap((run) => run.keys))].sort();
  signal.throwIfAborted();
  const comparison = new Comparison(runs, state, signal);
  const last = h('div', {}, finals(runs));
  const bar = viewBar(state, (isOther) => (isOther ? void comparison.load() : comparison.draw()));
  comparison.zoomed = bar.show;
  const choose = (key: string, isOn: boolean) => {
    const others = comparison.keys.filter((name) => name !== key);
    state.set({ keys: (isOn ? [...others, key] : others).join(',') || 'none' });
    void comparison.load();
  };
  main.replaceChildren(
    h('h1', {}, `Compare ${runs.length} runs`),
    ...failed.map((error) => problem(error)),
    last,
    bar.element,
    h(
      'details',
      { class: 'keys' },
      h('summary', {}, 'Which curves'),
      h(
        'div',
        { class: 'ticks' },
        keys.map((key) => tick(key, comparison.keys.includes(key), (isOn) => choose(key, isOn))),
      ),
    ),
    comparison.element,
  );
  const again = async () => {
    const { runs: now } = await detailsOf(names, signal);
    if (signal.aborted || now.length < runs.length) return;
    last.replaceChildren(finals(now));
    comparison.runs = now;
    await comparison.load();
  };
  const reload = paced(again, LOOK, signal);
  const changed = (data: unknown) => {
    if ((data as { changed: string[] }).changed.some((name) => names.includes(name))) reload();
  };
  follow(['live'], { runs: changed }, signal, showConnection, reload);
  await comparison.load();
  return undefined;
}

async function detailsOf(names: string[], signal: AbortSignal): Promise<{ runs: RunDetail[]; failed: unknown[] }> {
  const found = await Promise.allSettled(names.map((run) => ask<RunDetail>(['runs', run], {}, signal)));
  return {
    runs: found.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : [])),
    failed: found.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : [])),
  };
}

/** The last values side by side, and those of the summaries that some run has. */
function finals(runs: RunDetail[]): HTMLElement {
  const names = [...new Set(runs.flatMap(({ summary }) => Object.keys(summary)))].sort();
  const head = ['Run', 'State', 'Step', 'Loss', 'Validation', 'Tokens/s', ...names];
  const rows = runs.map((run) => [
    h('a', { href: address('run', run.run) }, run.run),
    stateLabel(run.state),
    integer(run.step),
    number(run.loss),
    number(run.validationLoss),
    short(run.tokensPerSecond),
    ...names.map((name) => (name in run.summary ? anything(run.summary[name]) : '–')),
  ]);
  return table('Last values of the runs', head, rows);
}

class Comparison {
  readonly element = h('div', { class: 'charts' });
  runs: RunDetail[];
  readonly #state: AddressState;
  readonly #signal: AbortSignal;
  readonly #group = new CursorGroup();
  readonly #charts = new Map<string, Chart>();
  #answers: (SeriesAnswer | undefined)[] = [];
  #asked = 0;
  zoomed: () => void = () => {};

  constructor(runs: RunDetail[], state: AddressState, signal: AbortSignal) {
    this.runs = runs;
    this.#state = state;
    this.#signal = signal;
  }

  /** What the address names, else the losses. */
  get keys(): string[] {
    const chosen = this.#state.list('keys');
    const all = new Set(this.runs.flatMap((run) => run.keys));
    return (chosen.length > 0 ? chosen : FIRST).filter((key) => all.has(key));
  }

  async load(): Promise<void> {
    const number = ++this.#asked;
    const { axis, from, to } = viewOf(this.#state);
    const wanted = this.keys;
    const points = Math.max(POINTS.one, Math.floor(POINTS.all / this.runs.length));
    try {
      const answers = await Promise.all(
        this.runs.map(async ({ run, keys }) => {
          const known = wanted.filter((key) => keys.includes(key)).join(',');
          if (known === '') return undefined;
          return await ask<SeriesAnswer>(
            ['runs', run, 'series'],
            { keys: known, x: axis, from, to, points },
            this.#signal,
          );
        }),
      );
      if (number !== this.#asked) return;
      this.#answers = answers;
      this.draw();
    } catch (error) {
      if (!this.#signal.aborted) this.element.replaceChildren(problem(error, () => void this.load()));
    }
  }

  draw(): void {
    const keys = this.keys;
    for (const key of keys) if (!this.#charts.has(key)) this.#charts.set(key, this.#make(key));
    const elements = keys.map((key) => this.#charts.get(key)!.element);
    if (
      elements.some((element, i) => element !== this.element.children[i]) ||
      elements.length !== this.element.children.length
    ) {
      this.element.replaceChildren(...(elements.length > 0 ? elements : [nothing('No curve is chosen.')]));
    }
    const view = viewOf(this.#state);
    const ends = this.#answers.flatMap((answer) => (answer === undefined ? [] : answer.extent));
    if (ends.length === 0) return;
    const range: [number, number] = [view.from ?? Math.min(...ends), view.to ?? Math.max(...ends)];
    const { name, format, ticks } = AXES[view.axis];
    for (const key of keys) {
      const chart = this.#charts.get(key)!;
      chart.configure({ xName: name, xFormat: format, xTicks: ticks, logX: view.logX, logY: view.logY });
      chart.set(this.#lines(key), [], range);
    }
  }

  #lines(key: string): Line[] {
    const { smoothing, axis } = viewOf(this.#state);
    return this.runs.flatMap((run, i): Line[] => {
      const answer = this.#answers[i];
      const series = answer?.series.find((one) => one.key === key);
      if (answer === undefined || series === undefined) return [];
      const curve = curveOf(series);
      const isSmoothed = key.startsWith('train/') && smoothing > 0;
      const y = isSmoothed ? smooth(curve, smoothing, answer.rowsPerPoint, run.switch?.[axis]) : curve.y;
      const isDashed = Math.floor(i / LINE_COLOURS) % 2 === 1;
      return [{ x: curve.x, y, label: run.run, colour: i, isDashed, hasDots: curve.x.length < 60 }];
    });
  }

  #make(key: string): Chart {
    const zoom = (from: number, to: number) => {
      zoomed(this.#state, from, to);
      this.zoomed();
      void this.load();
    };
    const reset = () => {
      this.#state.set({ from: undefined, to: undefined });
      this.zoomed();
      void this.load();
    };
    const options = {
      title: key,
      format: formatOf(key),
      xName: 'step',
      xFormat: integer as typeof short,
      height: 300,
      zoom,
      reset,
    };
    const chart = new Chart(options, this.#group, this.#signal);
    chart.element.classList.add('wide');
    return chart;
  }
}
