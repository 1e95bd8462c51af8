/** Generated answers, and of one the trace: which memories each chunk read. */

import type { AnswerDetail, AnswerSummary } from '../api.ts';
import { ask, paced } from './client.ts';
import { h, nothing, section, webLink } from './dom.ts';
import { number, percent, time } from './format.ts';
import { openRun, part } from './frame.ts';
import { type AddressState, address } from './route.ts';

const LIMIT = 200;

export async function answersPage(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<() => void> {
  const view = await openRun(main, state, signal);
  const list = h('div');
  const trace = h('article', { class: 'trace', 'aria-label': 'Trace', tabindex: -1 });
  let answers: AnswerSummary[] = [];
  let shown: { text: string; element: HTMLElement } | undefined;
  const open = (number: string | undefined) =>
    part(trace, async () => {
      if (number === undefined) return nothing('Choose an answer to see which memories it used.');
      return traceOf(view.run, await ask<AnswerDetail>(['runs', view.run, 'answers', number], {}, signal));
    });
  const chosen = () => state.get('answer') ?? answers[0]?.number.toString();
  const show = () =>
    part(list, async () => {
      answers = await ask<AnswerSummary[]>(['runs', view.run, 'answers'], { limit: LIMIT }, signal);
      if (answers.length === 0) return nothing('No answer yet. Ask the model with: memory3 ask, or memory3 generate.');
      const text = JSON.stringify([answers, chosen()]);
      // One that is as it was keeps the focus.
      if (shown?.text !== text) shown = { text, element: answerList(view.run, answers, chosen(), choose) };
      return shown.element;
    });
  const choose = (number: number) => {
    state.set({ answer: number }, true);
    void show();
    void open(String(number)).then(() => trace.focus({ preventScroll: true }));
  };
  view.body.append(h('div', { class: 'beside answers' }, section('Answers', list), section('Trace', trace)));
  view.onRows.push(paced(show, 5000, signal));
  await show();
  await open(chosen());
  return () => {
    void show();
    void open(chosen());
  };
}

function answerList(
  run: string,
  answers: AnswerSummary[],
  chosen: string | undefined,
  open: (number: number) => void,
): HTMLElement {
  const items = answers.map(({ number: id, time: at, prompt, text, memories }) => {
    const link = h(
      'a',
      { href: address('answers', run, { answer: String(id) }), 'aria-current': String(id) === chosen && 'true' },
      h('span', { class: 'title' }, prompt),
      h('span', { class: 'excerpt' }, text),
      h('span', { class: 'quiet' }, `${time(at)} · ${memories} memories`),
    );
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(id);
    });
    return h('li', {}, link);
  });
  return h('ol', { class: 'found' }, items);
}

function traceOf(run: string, { prompt, text, time: at, memories, trace }: AnswerDetail): HTMLElement {
  return h(
    'div',
    {},
    h('p', { class: 'said' }, h('span', { class: 'prompt' }, prompt), h('strong', {}, text)),
    h('p', { class: 'quiet' }, `${time(at)} · ${memories} different memories`),
    h(
      'ol',
      { class: 'steps' },
      trace.map((chunk) =>
        h(
          'li',
          {},
          h('p', { class: 'chunk' }, chunk.text),
          chunk.memories.length === 0
            ? nothing('No memories.')
            : h(
                'ul',
                {},
                chunk.memories.map((memory) => used(run, memory)),
              ),
        ),
      ),
    ),
  );
}

function used(run: string, memory: AnswerDetail['trace'][number]['memories'][number]): HTMLElement {
  const { id, document: name, title, text, score, share, keptTokens } = memory;
  const bar = h('span', { class: 'bar-of-share', 'aria-hidden': 'true' });
  bar.style.setProperty('--share', `${(100 * Math.min(1, Math.max(0, share))).toFixed(2)}%`);
  return h(
    'li',
    { class: 'used' },
    h('a', { href: address('memory', run, { memory: id }) }, title === '' ? name : title),
    h('span', { class: 'share' }, bar, h('span', {}, percent(share), h('span', { class: 'unseen' }, ' of attention'))),
    h('span', { class: 'score' }, `score ${number(score)}`),
    /^https?:\/\//i.test(name) && h('p', { class: 'text' }, webLink(name)),
    h('p', { class: 'text' }, text),
    keptTokens.length > 0 &&
      h(
        'details',
        {},
        h('summary', {}, `${keptTokens.length} kept tokens`),
        h(
          'p',
          { class: 'kept' },
          keptTokens.map((token) => h('span', {}, token)),
        ),
      ),
  );
}
