/** What the pages of one run have in common: its head, its live stream, and how a problem is told. */

import type { RunDetail, RunSummary } from '../api.ts';
import { ApiError, ask, type Connection, follow } from './client.ts';
import { type Child, h, say } from './dom.ts';
import { ago, duration, integer, number, short } from './format.ts';
import type { AddressState } from './route.ts';

const STATES: Record<RunSummary['state'], { sign: string; text: string }> = {
  running: { sign: '●', text: 'running' },
  finished: { sign: '✓', text: 'finished' },
  stopped: { sign: '■', text: 'stopped' },
  failed: { sign: '✕', text: 'failed' },
  crashed: { sign: '✕', text: 'crashed' },
  unknown: { sign: '?', text: 'unknown' },
};

/** The state in a word, a sign and a colour: any one of them is enough. */
export function stateLabel(state: RunSummary['state']): HTMLElement {
  const { sign, text } = STATES[state];
  return h('span', { class: `state ${state}` }, h('span', { 'aria-hidden': 'true' }, sign), ` ${text}`);
}

export function problem(error: unknown, again?: () => void): HTMLElement {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof ApiError ? error.code : 'failed';
  return h(
    'div',
    { class: 'problem', role: 'alert' },
    h('p', {}, h('strong', {}, code), ' ', message),
    again && h('button', { type: 'button', click: again }, 'Try again'),
  );
}

/** Shows at the top of the page whether what is seen still changes. */
export function showConnection(connection: Connection): void {
  const place = document.querySelector<HTMLElement>('#connection')!;
  const texts: Record<Connection, string> = {
    connecting: 'connecting …',
    live: 'live',
    lost: 'connection lost, trying again …',
  };
  place.className = `connection ${connection}`;
  say(place, texts[connection]);
}

/** Waits for a part of a page and puts it, or what went wrong, where `place` is; other parts go on. */
export async function part(place: HTMLElement, work: () => Promise<Child>): Promise<void> {
  try {
    const child = await work();
    // What is there already keeps its focus and what is selected in it.
    if (child instanceof Node && place.childNodes.length === 1 && place.firstChild === child) return;
    place.replaceChildren();
    if (child instanceof Node) place.appendChild(child);
  } catch (error) {
    if (error instanceof DOMException) return;
    place.replaceChildren(problem(error, () => void part(place, work)));
  }
}

export interface RunView {
  run: string;
  detail: RunDetail;
  body: HTMLElement;
  /** Called when there is something new, or may be after a connection was lost. */
  onRows: (() => void)[];
  /** Called when `detail` was asked for again. */
  onDetail: (() => void)[];
  onEvent: (() => void)[];
  onLog: (() => void)[];
}

/** How old a value is changes by itself. */
const HEAD_SECONDS = 5;

export function every(seconds: number, work: () => void, signal: AbortSignal): void {
  const timer = setInterval(work, 1000 * seconds);
  signal.addEventListener('abort', () => clearInterval(timer));
}

/** Shows the head of the run that the address names and follows it. @throws ApiError when there is no such run */
export async function openRun(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<RunView> {
  const { run } = state.route;
  const detail = await ask<RunDetail>(['runs', run], {}, signal);
  const head = new Head(detail);
  let shown: RunSummary = detail;
  every(HEAD_SECONDS, () => head.show(shown), signal);
  const body = h('div', { class: 'body' });
  main.replaceChildren(head.element, body);
  const view: RunView = { run, detail, body, onRows: [], onDetail: [], onEvent: [], onLog: [] };
  const tell = (...listeners: (() => void)[]) => {
    for (const listener of listeners) listener();
  };
  follow(
    ['runs', run, 'live'],
    {
      rows: (data) => {
        const { summary } = data as { summary: RunSummary };
        // The first one says what the page has just asked for.
        const isNew = !isPartOf(summary, detail);
        Object.assign(detail, summary);
        shown = summary;
        head.show(summary);
        if (isNew) tell(...view.onRows);
      },
      happened: () => tell(...view.onEvent),
      log: () => tell(...view.onLog),
    },
    signal,
    showConnection,
    () => tell(...view.onRows, ...view.onEvent, ...view.onLog),
  );
  return view;
}

function isPartOf(summary: RunSummary, detail: RunDetail): boolean {
  return Object.entries(summary).every(
    ([name, value]) => JSON.stringify(value) === JSON.stringify(detail[name as keyof RunSummary]),
  );
}

/** Name, state and the numbers that one looks for first. */
class Head {
  readonly element: HTMLElement;
  readonly #state = h('span');
  readonly #progress = h('progress', { max: 1, value: 0, 'aria-label': 'Progress' });
  readonly #facts = new Map<string, HTMLElement>();
  readonly #problem = h('p', { class: 'problem', hidden: true });

  constructor(summary: RunSummary) {
    const names = ['step', 'loss', 'validation loss', 'tokens', 'tokens/s', 'time left', 'changed'];
    const facts = names.map((name) => {
      const value = h('dd');
      this.#facts.set(name, value);
      return h('div', {}, h('dt', {}, name), value);
    });
    this.element = h(
      'header',
      { class: 'head' },
      h('h1', {}, summary.run),
      this.#state,
      this.#progress,
      h('dl', { class: 'facts' }, facts),
      summary.tags.length > 0 &&
        h(
          'p',
          { class: 'tags' },
          summary.tags.map((tag) => h('span', { class: 'tag' }, tag)),
        ),
      summary.notes !== '' && h('p', { class: 'quiet notes' }, summary.notes),
      this.#problem,
    );
    this.show(summary);
  }

  show(summary: RunSummary): void {
    const { state, stage, step, steps, loss, validationLoss, tokens, tokensPerSecond, timeLeft, changedAt } = summary;
    this.#state.replaceChildren(stateLabel(state), stage === undefined ? '' : ` in ${stage}`);
    this.#progress.value = steps > 0 ? step / steps : 0;
    this.#fact('step', `${integer(step)} of ${integer(steps)}`);
    this.#fact('loss', number(loss));
    this.#fact('validation loss', number(validationLoss));
    this.#fact('tokens', short(tokens));
    this.#fact('tokens/s', short(tokensPerSecond));
    this.#fact('time left', state === 'running' ? duration(timeLeft) : '–');
    this.#fact('changed', ago(changedAt));
    this.#problem.hidden = summary.problem === undefined;
    say(this.#problem, summary.problem ?? '');
  }

  #fact(name: string, text: string): void {
    const place = this.#facts.get(name);
    if (place !== undefined) say(place, text);
  }
}
