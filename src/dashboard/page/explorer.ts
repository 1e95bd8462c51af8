/** Finds memories by their text and shows one: what is kept of it, where it comes from, who read it. */

import type { FoundMemory, MemoryDetail } from '../api.ts';
import { ask } from './client.ts';
import { h, nothing, select, webLink } from './dom.ts';
import { integer, number } from './format.ts';
import { part } from './frame.ts';
import { type AddressState, address } from './route.ts';

const FOUND = 30;

export class Explorer {
  readonly element: HTMLElement;
  readonly #run: string;
  readonly #state: AddressState;
  readonly #signal: AbortSignal;
  readonly #words: HTMLInputElement;
  readonly #found = h('ol', { class: 'found', 'aria-label': 'Memories found' });
  readonly #status = h('p', { class: 'quiet', role: 'status' });
  readonly #memory = h('article', { class: 'memory', 'aria-label': 'Memory', tabindex: -1 });
  #searched: string | undefined;
  #opened: string | undefined;

  constructor(run: string, state: AddressState, signal: AbortSignal) {
    this.#run = run;
    this.#state = state;
    this.#signal = signal;
    this.#words = h('input', { type: 'search', name: 'text', value: state.get('text') });
    const form = h(
      'form',
      { class: 'bar', role: 'search', submit: (event) => this.#search(event) },
      h('label', { class: 'field grow' }, 'Search the bank', this.#words),
      h('button', { type: 'submit' }, 'Search'),
    );
    this.element = h(
      'div',
      { class: 'explorer' },
      form,
      h('div', { class: 'beside' }, h('div', {}, this.#status, this.#found), this.#memory),
    );
  }

  /** Shows what the address says: words searched for, and a memory. */
  async show(): Promise<void> {
    this.#words.value = this.#state.get('text') ?? '';
    await Promise.all([this.#list(), this.#open()]);
  }

  #search(event: Event): void {
    event.preventDefault();
    this.#state.set({ text: this.#words.value.trim() }, true);
    void this.#list();
  }

  async #list(): Promise<void> {
    const text = this.#state.get('text') ?? '';
    if (text === this.#searched) return this.#mark();
    this.#searched = text;
    this.#status.textContent = 'Searching …';
    const place = h('div');
    await part(place, async () => {
      const query = { text: text === '' ? undefined : text, limit: FOUND };
      const found = await ask<FoundMemory[]>(['runs', this.#run, 'memories'], query, this.#signal);
      if (text !== this.#searched) return undefined;
      this.#found.replaceChildren(...found.map((memory) => this.#item(memory)));
      this.#status.textContent =
        text === ''
          ? `The first ${found.length} memories`
          : `${found.length === FOUND ? 'The nearest ' : ''}${found.length} found for “${text}”`;
      this.#mark();
      return undefined;
    });
    if (place.firstChild !== null) this.#found.replaceChildren(h('li', {}, place));
  }

  #item({ id, title, document: name, text, score }: FoundMemory): HTMLLIElement {
    const link = h(
      'a',
      { href: address('memory', this.#run, { ...Object.fromEntries(this.#state.route.params), memory: id }) },
      h('span', { class: 'title' }, title === '' ? name : title),
      score !== undefined && h('span', { class: 'score' }, number(score)),
      h('span', { class: 'excerpt' }, text),
    );
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.#state.set({ memory: id }, true);
      void this.#open().then(() => this.#memory.focus({ preventScroll: true }));
    });
    link.dataset.memory = id;
    return h('li', {}, link);
  }

  #mark(): void {
    for (const link of this.#found.querySelectorAll('a')) {
      if (link.dataset.memory === this.#opened) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
  }

  async #open(): Promise<void> {
    const id = this.#state.get('memory');
    if (id === this.#opened && id !== undefined) return;
    this.#opened = id;
    this.#mark();
    if (id === undefined) {
      this.#memory.replaceChildren(nothing('Choose a memory to see which of its tokens are kept.'));
      return;
    }
    await part(this.#memory, async () => {
      const memory = await ask<MemoryDetail>(['runs', this.#run, 'memories', id], {}, this.#signal);
      return id === this.#opened ? this.#shown(memory) : undefined;
    });
  }

  #shown(memory: MemoryDetail): HTMLElement {
    const { id, document: name, title, span, writer, url, retrieved } = memory;
    const facts: [string, Node | string][] = [
      ['document', url === undefined ? name : webLink(url, name)],
      ...(url === undefined ? [] : [['source', webLink(url)] as [string, Node]]),
      ['characters', `${integer(span[0])} to ${integer(span[1])}`],
      ['id', id],
      ['written by', writer.slice(0, 12)],
    ];
    return h(
      'div',
      {},
      h('h3', {}, title === '' ? name : title),
      new KeptTokens(memory, this.#state).element,
      h(
        'dl',
        { class: 'facts' },
        facts.map(([label, value]) => h('div', {}, h('dt', {}, label), h('dd', {}, value))),
      ),
      h('h4', {}, `Retrieved ${integer(retrieved.count)} times`),
      h(
        'p',
        { class: 'quiet' },
        `in ${integer(retrieved.recordedChunks)} chunks of training of which the retrievals are recorded`,
      ),
      h(
        'ol',
        { class: 'chunks', tabindex: 0, 'aria-label': 'Chunks that read it' },
        retrieved.chunks.map(({ step, text, score }) =>
          h(
            'li',
            {},
            h(
              'span',
              { class: 'quiet' },
              `step ${integer(step)}${score === undefined ? '' : `, score ${number(score)}`}`,
            ),
            h('span', { class: 'text' }, text),
          ),
        ),
      ),
    );
  }
}

/** The text of a memory with the tokens marked that one layer and head keep, or in how many of them each is kept. */
class KeptTokens {
  readonly element: HTMLElement;
  readonly #memory: MemoryDetail;
  readonly #state: AddressState;
  readonly #text = h('p', { class: 'tokens' });
  readonly #note = h('p', { class: 'quiet', role: 'status' });

  constructor(memory: MemoryDetail, state: AddressState) {
    this.#memory = memory;
    this.#state = state;
    const choices = (count: number) => [
      ['', 'all'] as const,
      ...Array.from({ length: count }, (_, i) => [String(i), String(i)] as const),
    ];
    const change = (name: string) => (value: string) => {
      state.set({ [name]: value });
      this.#mark();
    };
    const heads = memory.kept[0]?.length ?? 0;
    this.element = h(
      'div',
      {},
      h(
        'div',
        { class: 'bar' },
        select('Layer', choices(memory.kept.length), state.get('layer') ?? '', change('layer')),
        select('Head', choices(heads), state.get('head') ?? '', change('head')),
      ),
      this.#text,
      this.#note,
    );
    this.#mark();
  }

  #mark(): void {
    const { pieces, kept } = this.#memory;
    const [layer, head] = [this.#state.number('layer'), this.#state.number('head')];
    const chosen = kept
      .filter((_, i) => layer === undefined || i === layer)
      .flatMap((heads) => heads.filter((_, i) => head === undefined || i === head));
    const counts = new Array<number>(pieces.length).fill(0);
    for (const positions of chosen)
      for (const position of positions) if (position < counts.length) counts[position]! += 1;
    this.#text.replaceChildren(
      ...pieces.map((piece, i) => {
        const count = counts[i]!;
        if (count === 0) return h('span', {}, piece);
        const share = count / chosen.length;
        const number = count < chosen.length && h('sub', { 'aria-hidden': 'true' }, count);
        const mark = h('mark', { title: `token ${i}: kept by ${count} of ${chosen.length}` }, piece, number);
        mark.style.setProperty('--share', `${(12 + 63 * share).toFixed(0)}%`);
        return mark;
      }),
    );
    const some = counts.filter((count) => count > 0).length;
    const isAll = counts.every((count) => count === 0 || count === chosen.length);
    const heads = chosen.length === 1 ? 'this head' : `${isAll ? 'each' : 'some'} of ${chosen.length} heads`;
    const figures = isAll ? '' : '; small figures count the heads where not all keep a token';
    this.#note.textContent = `${some} of ${pieces.length} tokens are kept by ${heads}${figures}.`;
  }
}
