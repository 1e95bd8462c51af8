/** The curves of a run and all else that it records over time. */

import type { RunEvent } from '../../tracking/events.ts';
import type { ConfigAnswer, RunDetail, RunSummary } from '../api.ts';
import { viewBar } from './axis.ts';
import { Board, type ChartSpec } from './board.ts';
import type { Mark } from './chart.ts';
import { ask, paced } from './client.ts';
import { type Child, h, nothing, say, section, table, tick, webLink } from './dom.ts';
import { EVENT_SIGNS } from './events.ts';
import { anything, integer, time } from './format.ts';
import { openRun, part, type RunView } from './frame.ts';
import { recorded, steppers } from './media.ts';
import type { AddressState } from './route.ts';

export async function runPage(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<undefined> {
  const view = await openRun(main, state, signal);
  const bar = viewBar(state, (isOther) => (isOther ? void board.load() : board.redraw()));
  const empty = 'No rows yet: curves appear with the first step.';
  let events: RunEvent[] = [];
  const signs = () => events.flatMap((event) => signOf(event, view.detail)).sort((a, b) => a.x - b.x);
  const board = new Board(view, state, { specs: curvesOf, signs, empty, zoomed: bar.show }, signal);
  const happened = (now: RunEvent[]) => {
    events = now;
    board.redraw();
  };
  const hardware = new Board(
    view,
    state,
    { specs: loadsOf, empty: 'No load was recorded.', source: 'hardware' },
    signal,
  );
  view.body.append(
    section('Curves', bar.element, board.element),
    section('Machine', hardware.element),
    section('Samples generated during training', recorded(view, 'text', steppers(view), signal)),
    h('div', { class: 'halves' }, eventsPart(view, happened, signal), logPart(view, signal)),
    configPart(view, state, signal),
    h('div', { class: 'halves' }, sinksPart(view, signal), finalPart(view.detail)),
  );
  await Promise.all([board.load(), hardware.load()]);
  return undefined;
}

/** Parts of a step that follow each other; what runs beside it, such as fetching ahead, is no part. */
const PARTS = {
  'time/data_ms': 'data',
  'time/retrieval_ms': 'retrieval',
  'time/prepare_ms': 'preparing',
  'time/compute_ms': 'compute',
};

/** Shown on the memory page. */
const OF_MEMORY = /^(bank|memory|retrieval)\/|^validation\/bank_/;

export function isOfMemory(key: string): boolean {
  return OF_MEMORY.test(key);
}

/** The usual curves in their order; a key that nobody foresaw gets a chart of its own behind them. */
function curvesOf({ keys }: RunDetail): ChartSpec[] {
  const validation = ['validation/loss', 'validation/loss_without_memory'];
  const withMemory = keys.includes(validation[1]!);
  const labels = {
    'validation/loss': withMemory ? 'with memory' : 'loss',
    'validation/loss_without_memory': 'without memory',
  };
  const usual: ChartSpec[] = [
    { title: 'Loss', keys: ['train/loss'], kind: 'smoothed', isWide: true, labels: { 'train/loss': 'loss' } },
    { title: 'Validation loss', keys: validation, kind: 'lines', labels },
    { title: 'Learning rate', keys: ['train/learning_rate'], kind: 'lines' },
    { title: 'Gradient norm', keys: ['train/gradient_norm'], kind: 'smoothed' },
    { title: 'Tokens a second', keys: ['train/tokens_per_s'], kind: 'smoothed' },
    { title: 'Share of time', keys: Object.keys(PARTS), kind: 'shares', labels: PARTS },
  ];
  const known = usual.map((spec) => ({ ...spec, keys: spec.keys.filter((key) => keys.includes(key)) }));
  const taken = new Set([...known.flatMap((spec) => spec.keys), 'train/tokens', 'train/step']);
  const others = keys.filter((key) => !taken.has(key) && !isOfMemory(key));
  return [
    ...known.filter((spec) => spec.keys.length > 0),
    ...others.map((key): ChartSpec => ({ title: key, keys: [key], kind: 'smoothed' })),
  ];
}

/** Load by unit, since values of one unit can share an axis. */
function loadsOf({ hardwareKeys }: RunDetail): ChartSpec[] {
  const units: [unit: RegExp, title: string][] = [
    [/_percent$/, 'Load'],
    [/(?<!disk_free)_bytes$/, 'Memory in use'],
    [/disk_free_bytes$/, 'Free disk'],
    [/_w$/, 'Power (W)'],
    [/_c$/, 'Temperature (°C)'],
  ];
  return units.flatMap(([unit, title]): ChartSpec[] => {
    const keys = hardwareKeys.filter((key) => unit.test(key));
    const labels = Object.fromEntries(
      keys.map((key) => [
        key,
        key
          .replace('hardware/', '')
          .replace(/_[a-z]+$/, '')
          .replaceAll('_', ' '),
      ]),
    );
    return keys.length === 0 ? [] : [{ title, keys, kind: 'lines', labels }];
  });
}

/** Events that explain a bend of a curve. */
const SIGNED: readonly string[] = ['checkpoint', 'growth', 'refresh', 'rollback'];

function signOf({ kind, stage, step, text }: RunEvent, { switch: change }: RunDetail): Mark[] {
  if (step === undefined || !SIGNED.includes(kind)) return [];
  // The second stage counts its steps anew, from 1.
  const before = stage === 'continual' ? (change?.step ?? 1) - 1 : 0;
  return [{ x: before + step, label: text, sign: EVENT_SIGNS[kind], row: kind === 'checkpoint' ? 0 : 1 }];
}

function eventsPart(view: RunView, happened: (events: RunEvent[]) => void, signal: AbortSignal): HTMLElement {
  const list = h('ol', { class: 'events', tabindex: 0, 'aria-label': 'Events, newest first' });
  const kinds = h('select', { change: () => filter() });
  const filter = () => {
    for (const item of list.children) {
      if (item instanceof HTMLElement) item.hidden = kinds.value !== '' && item.dataset.kind !== kinds.value;
    }
  };
  const names = ['', ...Object.keys(EVENT_SIGNS)];
  kinds.append(...names.map((name) => h('option', { value: name }, name === '' ? 'all' : name)));
  const place = h('div', {}, list);
  const load = () =>
    part(place, async () => {
      const events = await ask<RunEvent[]>(['runs', view.run, 'events'], { limit: 1000 }, signal);
      happened(events);
      list.replaceChildren(...events.toReversed().map(eventItem));
      filter();
      return list;
    });
  view.onEvent.push(paced(load, LOOK, signal));
  void load();
  return section('Events', h('label', { class: 'field' }, 'Kind', kinds), place);
}

function eventItem({ time: at, kind, stage, step, text }: RunEvent): HTMLElement {
  const item = h(
    'li',
    { class: kind },
    h('time', { datetime: time(at) }, time(at)),
    h('span', { class: 'kind' }, h('span', { 'aria-hidden': 'true' }, EVENT_SIGNS[kind]), ` ${kind}`),
    h('span', { class: 'quiet' }, step === undefined ? '' : `${stage ?? ''} ${integer(step)}`),
    h('span', {}, text),
  );
  item.dataset.kind = kind;
  return item;
}

const LOG_LINES = 1000;
/** Milliseconds between two looks at events, or at the log. */
const LOOK = 1000;

function logPart(view: RunView, signal: AbortSignal): HTMLElement {
  const text = h('pre', { class: 'log', tabindex: 0, role: 'log', 'aria-live': 'off', 'aria-label': 'Log' });
  const waiting = h('span', { class: 'quiet' });
  let lines: string[] = [];
  let isFollowing = true;
  const show = () => {
    say(waiting, isFollowing ? '' : 'paused');
    if (!isFollowing) return;
    say(text, lines.join('\n'));
    text.scrollTop = text.scrollHeight;
  };
  const follow = tick('Follow', true, (isOn) => {
    isFollowing = isOn;
    show();
  });
  const place = h('div', {}, text);
  const load = () =>
    part(place, async () => {
      lines = (await ask<{ lines: string[] }>(['runs', view.run, 'log'], { lines: LOG_LINES }, signal)).lines;
      queueMicrotask(show);
      return lines.length === 0 ? nothing('Nothing was said yet.') : text;
    });
  view.onLog.push(paced(load, LOOK, signal));
  void load();
  return section('Log', h('div', { class: 'bar' }, follow, waiting), place);
}

function configPart(view: RunView, state: AddressState, signal: AbortSignal): HTMLElement {
  const place = h('div', { class: 'config' });
  const words = h('input', { type: 'search', input: () => show() });
  let answer: ConfigAnswer = { values: {} };
  let isDifferent = state.has('differing');
  const choice = h('select', { change: () => compare(choice.value) }, h('option', { value: '' }, 'no other run'));
  const only = tick('Only what differs', isDifferent, (isOn) => {
    isDifferent = isOn;
    state.set({ differing: isOn });
    show();
  });
  const show = () => place.replaceChildren(configTable(answer, words.value, isDifferent, state.get('against')));
  const load = () =>
    part(place, async () => {
      answer = await ask<ConfigAnswer>(['runs', view.run, 'config'], { against: state.get('against') }, signal);
      return configTable(answer, words.value, isDifferent, state.get('against'));
    });
  const compare = (other: string) => {
    state.set({ against: other, differing: other !== '' });
    isDifferent = other !== '';
    only.querySelector('input')!.checked = isDifferent;
    void load();
  };
  void part(h('div'), async () => {
    const runs = await ask<RunSummary[]>(['runs'], {}, signal);
    const others = runs.map(({ run }) => run).filter((run) => run !== view.run);
    choice.append(...others.map((run) => h('option', { value: run, selected: run === state.get('against') }, run)));
    return undefined;
  });
  void load();
  const bar = h(
    'div',
    { class: 'bar' },
    h('label', { class: 'field' }, 'Find', words),
    h('label', { class: 'field' }, 'Compare with', choice),
    only,
  );
  return section('Configuration', bar, place);
}

function configTable(
  { values, differences }: ConfigAnswer,
  words: string,
  isDifferent: boolean,
  other?: string,
): Child & Node {
  const paths = [...new Set([...Object.keys(values), ...Object.keys(differences ?? {})])].sort();
  const differs = (path: string) => differences !== undefined && path in differences;
  const wanted = words.trim().toLowerCase();
  const shown = paths.filter(
    (path) => path.toLowerCase().includes(wanted) && (!isDifferent || differences === undefined || differs(path)),
  );
  if (shown.length === 0)
    return nothing(isDifferent && wanted === '' ? 'The two runs are configured alike.' : 'No path fits.');
  const rows = shown.map((path) => [
    path,
    anything(values[path]),
    ...(differences === undefined
      ? []
      : [differs(path) ? h('strong', {}, `≠ ${anything(differences[path])}`) : 'same']),
  ]);
  return table('Configuration', ['Path', 'Value', ...(differences === undefined ? [] : [other ?? 'other'])], rows, {
    numeric: false,
  });
}

function sinksPart(view: RunView, signal: AbortSignal): HTMLElement {
  const place = h('div');
  const show = (detail: RunDetail) => {
    const sinks = detail.status?.sinks ?? [];
    if (sinks.length === 0) return nothing('The run is recorded in its own files alone.');
    const rows = sinks.map(({ name, place: where, step, waiting, failures, error }) => [
      name,
      h('span', {}, webLink(where)),
      integer(step),
      integer(waiting),
      failures === 0 ? '0' : `${failures}${error === undefined ? '' : `: ${error}`}`,
    ]);
    return table('Sinks', ['Sink', 'Place', 'Step', 'Rows waiting', 'Failures'], rows);
  };
  place.replaceChildren(show(view.detail));
  const look = async () => {
    const detail = await ask<RunDetail>(['runs', view.run], {}, signal).catch(() => undefined);
    if (detail !== undefined) place.replaceChildren(show(detail));
  };
  view.onRows.push(paced(look, 10_000, signal));
  return section('Where it is recorded', place);
}

function finalPart({ summary }: RunDetail): HTMLElement {
  const rows = Object.entries(summary).map(([name, value]) => [name, anything(value)]);
  return section(
    'Final values',
    rows.length === 0 ? nothing('None yet.') : table('Final values', ['Name', 'Value'], rows),
  );
}
