/** What is recorded at some steps: grids of colours, histograms, texts, looked at a step at a time. */

import type { Histogram, Image, Media, Retrievals } from '../../tracking/values.ts';
import type { MediaAnswer } from '../api.ts';
import { ask, paced } from './client.ts';
import { nearest } from './curves.ts';
import { h, nothing, say, select, svg } from './dom.ts';
import { integer, number } from './format.ts';
import { part, type RunView } from './frame.ts';
import { address } from './route.ts';

/** How many steps of a kind are fetched: evenly spread when there are more. */
const LIMIT = 200;
const LOOK = 5000;

/** What was recorded under `key`, with a slider over its steps; it stays at the last one while the slider does. */
export function stepper(view: RunView, key: string, signal: AbortSignal): HTMLElement {
  const slider = h('input', { type: 'range', min: 0, max: 0, value: 0, 'aria-label': `Step of ${key}` });
  const where = h('output', { class: 'where' });
  const place = h('div', { class: 'medium' });
  const frame = h(
    'figure',
    { class: 'media', 'aria-label': key },
    h('figcaption', {}, h('h3', {}, key), where),
    slider,
    place,
  );
  let entries: MediaAnswer['entries'] = [];
  let shown: { text: string; element: HTMLElement } | undefined;
  const current = () => {
    const entry = entries[Number(slider.value)];
    if (entry === undefined) return nothing('Nothing is recorded yet.');
    say(where, `step ${integer(entry.step)}, ${entry.stage}`);
    slider.setAttribute('aria-valuetext', `step ${entry.step}`);
    const text = JSON.stringify(entry);
    if (shown?.text !== text) shown = { text, element: mediumOf(view.run, entry.value) };
    return shown.element;
  };
  const load = () =>
    part(place, async () => {
      const answer = await ask<MediaAnswer>(['runs', view.run, 'media'], { key, limit: LIMIT }, signal);
      // Where the slider is now, not when it was asked: it may have been moved since.
      const isLast = Number(slider.value) >= entries.length - 1;
      const step = entries[Number(slider.value)]?.step ?? 0;
      entries = answer.entries;
      slider.max = String(Math.max(0, entries.length - 1));
      slider.disabled = entries.length < 2;
      const steps = entries.map(({ step }) => step);
      slider.value = isLast ? slider.max : String(nearest(steps, step));
      return current();
    });
  slider.addEventListener('input', () => place.replaceChildren(current()));
  view.onRows.push(paced(load, LOOK, signal));
  void load();
  return frame;
}

/** What the run has recorded of some kind, and what it comes to record: `show` makes it for the keys there are. */
export function recorded(
  view: RunView,
  type: Media['type'],
  show: (keys: string[], signal: AbortSignal) => HTMLElement,
  signal: AbortSignal,
): HTMLElement {
  const place = h('div');
  let keys: string[] | undefined;
  let shown = new AbortController();
  const look = () => {
    const now = view.detail.media.filter((one) => one.type === type).map(({ key }) => key);
    if (keys?.join() === now.join()) return;
    keys = now;
    shown.abort();
    shown = new AbortController();
    const made = now.length === 0 ? nothing('None was recorded.') : show(now, AbortSignal.any([signal, shown.signal]));
    place.replaceChildren(made);
  };
  look();
  view.onDetail.push(look);
  return place;
}

/** A stepper for each key. */
export function steppers(view: RunView) {
  return (keys: string[], signal: AbortSignal): HTMLElement =>
    h(
      'div',
      { class: 'charts' },
      keys.map((key) => stepper(view, key, signal)),
    );
}

/** One of many keys at a time, such as the histograms of all parameters. */
export function chooser(view: RunView, keys: readonly string[], signal: AbortSignal): HTMLElement {
  let shown = new AbortController();
  const place = h('div');
  const show = (key: string) => {
    shown.abort();
    shown = new AbortController();
    place.replaceChildren(stepper(view, key, AbortSignal.any([signal, shown.signal])));
  };
  show(keys[0] ?? '');
  const options = keys.map((key) => [key, key] as const);
  return h('div', {}, h('div', { class: 'bar' }, select('Of', options, keys[0] ?? '', show)), place);
}

function mediumOf(run: string, value: Media): HTMLElement {
  if (value.type === 'image') return grid(value);
  if (value.type === 'histogram') return bars(value);
  if (value.type === 'text') return h('pre', { class: 'sample', tabindex: 0 }, value.text);
  const links = (memories: Retrievals['chunks'][number]['memories']) =>
    memories.map(({ id, score }) =>
      h('a', { href: address('memory', run, { memory: id }) }, score === undefined ? id.slice(0, 8) : number(score)),
    );
  return h(
    'ol',
    { class: 'chunks', tabindex: 0 },
    value.chunks.map(({ text, memories }) =>
      h('li', {}, h('span', { class: 'text' }, text), h('span', { class: 'quiet links' }, 'read: ', links(memories))),
    ),
  );
}

/** Wider grids show colours alone; their values stand in each cell's title. */
const WIDEST_WITH_TEXT = 16;

/** A table of which the cells are coloured: it can be read, too. */
export function grid({ width, height, values, range: [low, high], labels: [across, down] }: Image): HTMLElement {
  const cells = (y: number) =>
    Array.from({ length: width }, (_, x) => {
      const value = values[y * width + x] ?? 0;
      const share = high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0;
      const title = `${down} ${y}, ${across} ${x}: ${number(value)}`;
      const text = h('span', { class: width > WIDEST_WITH_TEXT ? 'unseen' : '' }, gridNumber(value));
      const cell = h('td', { title }, text);
      cell.style.setProperty('--share', `${(share * 100).toFixed(1)}%`);
      return cell;
    });
  const rows = Array.from({ length: height }, (_, y) => h('tr', {}, h('th', { scope: 'row' }, y), cells(y)));
  const head = Array.from({ length: width }, (_, x) => h('th', { scope: 'col' }, x));
  const caption = `${down} (down) × ${across} (across), colours from ${number(low)} to ${number(high)}`;
  const cellTable = h(
    'div',
    { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `${down} by ${across}` },
    h(
      'table',
      { class: 'grid' },
      h('caption', { class: 'unseen' }, caption),
      h('thead', {}, h('tr', {}, h('td'), head)),
      h('tbody', {}, rows),
    ),
  );
  return h('div', {}, cellTable, h('p', { class: 'quiet', 'aria-hidden': 'true' }, caption));
}

function gridNumber(value: number): string {
  return Math.abs(value) < 1 ? value.toFixed(3).replace(/^(-?)0\./, '$1.') : value.toPrecision(3);
}

function bars({ edges, counts }: Histogram): HTMLElement {
  const most = Math.max(1, ...counts);
  const [first, last] = [edges[0] ?? 0, edges.at(-1) ?? 0];
  const total = counts.reduce((sum, count) => sum + count, 0);
  const label = `${integer(total)} values between ${number(first)} and ${number(last)}; at most ${integer(most)} in an interval`;
  const drawing = svg(
    'svg',
    {
      class: 'bars',
      viewBox: `0 0 ${counts.length} 100`,
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': label,
    },
    counts.map((count, i) =>
      svg(
        'rect',
        { x: i, y: 100 - (100 * count) / most, width: 0.94, height: (100 * count) / most },
        svg('title', {}, `${number(edges[i])} to ${number(edges[i + 1])}: ${integer(count)}`),
      ),
    ),
  );
  const ends = h('p', { class: 'ends' }, h('span', {}, number(first)), h('span', {}, number(last)));
  return h('div', {}, drawing, ends, h('p', { class: 'quiet' }, label));
}
