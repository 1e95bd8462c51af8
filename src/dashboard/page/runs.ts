/** The list of runs: filtered, sorted, live; ticked ones are compared. */

import type { RunSummary } from '../api.ts';
import { ask, follow, paced } from './client.ts';
import { h, nothing, say, svg } from './dom.ts';
import { ago, duration, integer, number, short } from './format.ts';
import { every, problem, showConnection, stateLabel } from './frame.ts';
import { type AddressState, address, listed } from './route.ts';

interface Column {
  id: string;
  title: string;
  isText?: boolean;
  /** What it is sorted by; undefined stands last. */
  value: (run: RunSummary) => number | string | undefined;
}

const COLUMNS: Column[] = [
  { id: 'run', title: 'Run', isText: true, value: ({ run }) => run },
  { id: 'state', title: 'State', isText: true, value: ({ state }) => state },
  { id: 'stage', title: 'Stage', isText: true, value: ({ stage }) => stage },
  {
    id: 'progress',
    title: 'Progress',
    isText: true,
    value: ({ step, steps }) => (steps > 0 ? step / steps : undefined),
  },
  { id: 'step', title: 'Step', value: ({ step }) => step },
  { id: 'left', title: 'Time left', value: ({ timeLeft }) => timeLeft },
  { id: 'loss', title: 'Loss', value: ({ loss }) => loss },
  { id: 'validation', title: 'Validation', value: ({ validationLoss }) => validationLoss },
  { id: 'speed', title: 'Tokens/s', value: ({ tokensPerSecond }) => tokensPerSecond },
  { id: 'changed', title: 'Changed', value: ({ changedAt }) => changedAt },
];

export async function runsPage(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<() => void> {
  const list = new RunList(state);
  const load = async () => {
    try {
      list.show(await ask<RunSummary[]>(['runs'], {}, signal));
    } catch (error) {
      if (!signal.aborted) list.fail(error);
    }
  };
  list.show(await ask<RunSummary[]>(['runs'], {}, signal));
  main.replaceChildren(list.element);
  const reload = paced(load, 1000, signal);
  every(10, () => list.showAges(), signal);
  follow(['live'], { runs: reload }, signal, showConnection, reload);
  return () => list.restore();
}

class RunList {
  readonly element: HTMLElement;
  readonly #state: AddressState;
  readonly #rows = new Map<string, Row>();
  readonly #body = h('tbody');
  readonly #heads = new Map<string, HTMLTableCellElement>();
  readonly #count = h('p', { class: 'quiet', role: 'status' });
  readonly #compare = h('a', { class: 'button' }, 'Compare');
  readonly #search = h('input', { type: 'search', input: () => this.#set({ q: this.#search.value }) });
  readonly #states = h('select', { change: () => this.#set({ state: this.#states.value }) });
  readonly #tags = h('select', { change: () => this.#set({ tag: this.#tags.value }) });
  readonly #empty = nothing('');
  readonly #problem = h('div');
  #runs: RunSummary[] = [];

  constructor(state: AddressState) {
    this.#state = state;
    const states = ['', 'running', 'finished', 'stopped', 'failed', 'crashed', 'unknown'];
    this.#states.append(...states.map((name) => h('option', { value: name }, name === '' ? 'any' : name)));
    this.element = h(
      'div',
      {},
      h('h1', {}, 'Runs'),
      h(
        'div',
        { class: 'bar' },
        h('label', { class: 'field' }, 'Find', this.#search),
        h('label', { class: 'field' }, 'State', this.#states),
        h('label', { class: 'field' }, 'Tag', this.#tags),
        this.#compare,
        this.#count,
      ),
      this.#problem,
      h(
        'div',
        { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Runs' },
        h(
          'table',
          { class: 'runs' },
          h('caption', { class: 'unseen' }, 'Runs; column heads sort'),
          h(
            'thead',
            {},
            h('tr', {}, h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Compare')), this.#columnHeads()),
          ),
          this.#body,
        ),
      ),
      this.#empty,
    );
  }

  show(runs: RunSummary[]): void {
    this.#problem.replaceChildren();
    this.#runs = runs;
    for (const summary of runs) {
      const row = this.#rows.get(summary.run) ?? new Row(summary.run, (isOn) => this.#pick(summary.run, isOn));
      this.#rows.set(summary.run, row);
      row.show(summary);
    }
    this.restore();
  }

  /** Shows what the address says. */
  restore(): void {
    this.#search.value = this.#state.get('q') ?? '';
    this.#states.value = this.#state.get('state') ?? '';
    const tag = this.#state.get('tag') ?? '';
    const tags = [...new Set(['', tag, ...this.#runs.flatMap((run) => run.tags)])].sort();
    if (tags.join() !== [...this.#tags.options].map(({ value }) => value).join()) {
      this.#tags.replaceChildren(...tags.map((name) => h('option', { value: name }, name === '' ? 'any' : name)));
    }
    this.#tags.value = tag;
    this.arrange();
  }

  showAges(): void {
    for (const run of this.#runs) this.#rows.get(run.run)?.show(run);
  }

  fail(error: unknown): void {
    this.#problem.replaceChildren(problem(error));
  }

  /** Filters and sorts as the address says. */
  arrange(): void {
    const chosen = this.#sorted(this.#runs.filter((run) => this.#fits(run)));
    const rows = chosen.map(({ run }) => this.#rows.get(run)!.element);
    const isSame = rows.length === this.#body.children.length && rows.every((row, i) => row === this.#body.children[i]);
    if (!isSame) {
      // An element that is moved loses the focus.
      const focused = document.activeElement;
      this.#body.replaceChildren(...rows);
      if (focused instanceof HTMLElement && this.#body.contains(focused)) focused.focus();
    }
    const picked = this.#state.list('picked').filter((run) => this.#rows.has(run));
    for (const [name, row] of this.#rows) row.pick(picked.includes(name));
    this.#compare.classList.toggle('off', picked.length === 0);
    if (picked.length === 0) this.#compare.removeAttribute('href');
    else this.#compare.href = address('compare', '', { runs: listed(picked) });
    say(this.#compare, picked.length === 0 ? 'Tick runs to compare' : `Compare ${picked.length}`);
    say(
      this.#count,
      `${chosen.length === this.#runs.length ? '' : `${chosen.length} of `}${this.#runs.length} ${this.#runs.length === 1 ? 'run' : 'runs'}`,
    );
    this.#empty.hidden = chosen.length > 0;
    say(
      this.#empty,
      this.#runs.length === 0
        ? 'There is no run in this folder yet. Start one with: memory3 run'
        : 'No run fits the filter.',
    );
    const { column, isDown } = this.#order();
    for (const [id, head] of this.#heads) {
      if (id === column.id) head.setAttribute('aria-sort', isDown ? 'descending' : 'ascending');
      else head.removeAttribute('aria-sort');
    }
  }

  #columnHeads(): HTMLElement[] {
    return COLUMNS.map((column) => {
      const sort = () => {
        const { column: now, isDown } = this.#order();
        this.#set({ sort: `${now.id === column.id && !isDown ? '-' : ''}${column.id}` });
      };
      const head = h(
        'th',
        { scope: 'col', class: column.isText ? 'text' : '' },
        h('button', { type: 'button', class: 'plain', click: sort }, column.title),
      );
      this.#heads.set(column.id, head);
      return head;
    }).flatMap((head, i) =>
      COLUMNS[i]!.id === 'loss' ? [h('th', { scope: 'col', class: 'text' }, 'Curve'), head] : [head],
    );
  }

  #order(): { column: Column; isDown: boolean } {
    const sort = this.#state.get('sort') ?? '-changed';
    const id = sort.replace(/^-/, '');
    return { column: COLUMNS.find((column) => column.id === id) ?? COLUMNS[0]!, isDown: sort.startsWith('-') };
  }

  #sorted(runs: RunSummary[]): RunSummary[] {
    const { column, isDown } = this.#order();
    const sign = isDown ? -1 : 1;
    return runs.sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined);
      return (
        sign *
        (typeof x === 'number' && typeof y === 'number'
          ? x - y
          : String(x).localeCompare(String(y), 'en', { numeric: true }))
      );
    });
  }

  #fits({ run, notes, tags, state }: RunSummary): boolean {
    const words = (this.#state.get('q') ?? '')
      .toLowerCase()
      .split(/\s+/)
      .filter((word) => word !== '');
    const text = [run, notes, ...tags].join(' ').toLowerCase();
    const [wanted, tag] = [this.#state.get('state'), this.#state.get('tag')];
    return (
      words.every((word) => text.includes(word)) &&
      (wanted ?? state) === state &&
      (tag === undefined || tags.includes(tag))
    );
  }

  #pick(run: string, isOn: boolean): void {
    const others = this.#state.list('picked').filter((name) => name !== run);
    this.#set({ picked: listed(isOn ? [...others, run] : others) });
  }

  #set(values: Record<string, string>): void {
    this.#state.set(values);
    this.arrange();
  }
}

/** A row that stays while its values change, so that it keeps focus and selection. */
class Row {
  readonly element: HTMLTableRowElement;
  readonly #tick: HTMLInputElement;
  readonly #cells: Record<string, HTMLTableCellElement> = {};
  readonly #name: HTMLTableCellElement;
  readonly #progress = h('progress', { max: 1 });
  readonly #line = svg('polyline', { fill: 'none', 'vector-effect': 'non-scaling-stroke' });
  #shown = '';

  constructor(run: string, picked: (isOn: boolean) => void) {
    this.#tick = h('input', {
      type: 'checkbox',
      'aria-label': `Compare ${run}`,
      change: () => picked(this.#tick.checked),
    });
    this.#name = h('th', { scope: 'row' }, h('a', { href: address('run', run) }, run));
    this.#progress.setAttribute('aria-label', `Progress of ${run}`);
    const cell = (id: string, className = '') => {
      this.#cells[id] = h('td', { class: className });
      return this.#cells[id];
    };
    const spark = svg(
      'svg',
      { class: 'spark', viewBox: '0 0 100 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      this.#line,
    );
    this.element = h('tr', {}, h('td', {}, this.#tick), this.#name);
    this.element.append(cell('state', 'text'), cell('stage', 'text'), h('td', { class: 'text' }, this.#progress));
    this.element.append(cell('step'), cell('left'), h('td', { class: 'text' }, spark));
    this.element.append(cell('loss'), cell('validation'), cell('speed'), cell('changed'));
  }

  show(run: RunSummary): void {
    const { step, steps, state, stage } = run;
    const shown = JSON.stringify([run.tags, run.problem, state]);
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.#name.replaceChildren(this.#name.firstChild!, ...run.tags.map((tag) => h('span', { class: 'tag' }, tag)));
      if (run.problem !== undefined) this.#name.append(h('span', { class: 'flaw' }, run.problem));
      this.#cells.state!.replaceChildren(stateLabel(state));
    }
    this.#progress.value = steps > 0 ? step / steps : 0;
    const texts: Record<string, string> = {
      stage: stage ?? '–',
      step: `${integer(step)} / ${integer(steps)}`,
      left: state === 'running' ? duration(run.timeLeft) : '–',
      loss: number(run.loss),
      validation: number(run.validationLoss),
      speed: short(run.tokensPerSecond),
      changed: ago(run.changedAt),
    };
    for (const [id, text] of Object.entries(texts)) say(this.#cells[id]!, text);
    this.#line.setAttribute('points', sparkPoints(run.sparkline));
  }

  pick(isOn: boolean): void {
    this.#tick.checked = isOn;
  }
}

function sparkPoints(values: readonly (number | null)[]): string {
  const known = values.flatMap((value, i) => (value === null ? [] : [[i, value] as const]));
  const [low, high] = [Math.min(...known.map(([, v]) => v)), Math.max(...known.map(([, v]) => v))];
  const height = high > low ? high - low : 1;
  const width = Math.max(1, values.length - 1);
  return known
    .map(([i, v]) => `${((100 * i) / width).toFixed(1)},${(22 - (20 * (v - low)) / height).toFixed(1)}`)
    .join(' ');
}
