/** The bank of a run: how it grew and aged, what was read from it, and the memories themselves. */

import type { BankAnswer, RunDetail } from '../api.ts';
import { viewBar } from './axis.ts';
import { Board, type ChartSpec } from './board.ts';
import { ask } from './client.ts';
import { h, nothing, section, table } from './dom.ts';
import { Explorer } from './explorer.ts';
import { anything, bytes, integer } from './format.ts';
import { openRun, part } from './frame.ts';
import { chooser, recorded, steppers } from './media.ts';
import type { AddressState } from './route.ts';
import { isOfMemory } from './run.ts';

export async function memoryPage(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<() => void> {
  const view = await openRun(main, state, signal);
  const { detail } = view;
  const bar = viewBar(state, (isOther) => (isOther ? void board.load() : board.redraw()));
  const empty = 'No rows about memories yet: they come with the second stage.';
  const board = new Board(view, state, { specs: curvesOf, empty, zoomed: bar.show }, signal);
  const none = nothing('This run has no bank yet: `memory3 compile` writes it after the first stage.');
  const [bank, found] = [h('div', { class: 'bank' }, none), h('div', {}, nothing('It opens when there is a bank.'))];
  const explorer = new Explorer(view.run, state, signal);
  let isOpen = false;
  const open = async () => {
    if (isOpen || !detail.hasBank) return;
    isOpen = true;
    bank.replaceChildren(h('p', { class: 'loading' }, 'Loading …'));
    found.replaceChildren(explorer.element);
    const facts = async () => bankFacts(await ask<BankAnswer>(['runs', view.run, 'bank'], {}, signal));
    await Promise.all([part(bank, facts), explorer.show()]);
  };
  view.onDetail.push(() => void open());
  view.body.append(
    section('Bank', bank),
    section('Memory explorer', found),
    section('Growth, age and use', bar.element, board.element),
    section('Attention on memories', recorded(view, 'image', steppers(view), signal)),
    section('Retrievals in training', recorded(view, 'retrievals', steppers(view), signal)),
    section(
      'Distributions',
      recorded(view, 'histogram', (keys, ending) => chooser(view, keys, ending), signal),
    ),
  );
  await Promise.all([board.load(), open()]);
  return () => void (isOpen && explorer.show());
}

const LABELS: Record<string, string> = {
  'bank/references': 'References in the bank',
  'bank/version': 'Version of the bank',
  'bank/cache_hit_rate': 'Cache hit rate',
  'bank/age_steps': 'Age of the bank in steps',
  'memory/retrieved': 'Different memories read in a step',
  'memory/excluded': 'Memories left out for overlap',
  'memory/attention_share': 'Share of attention on memories',
};

/** Age is how far stored keys and values are from those that the model would write now. */
const AGE = ['validation/bank_key_cosine', 'validation/bank_value_cosine', 'validation/bank_kept_share'];

function curvesOf({ keys }: RunDetail): ChartSpec[] {
  const aged = AGE.filter((key) => keys.includes(key));
  const labels = Object.fromEntries(aged.map((key) => [key, key.replace('validation/bank_', '').replaceAll('_', ' ')]));
  const scores = keys.filter((key) => /score/.test(key) && isOfMemory(key));
  const single = keys.filter((key) => isOfMemory(key) && !aged.includes(key) && !scores.includes(key));
  return [
    ...single.map(
      (key): ChartSpec => ({
        title: LABELS[key] ?? key,
        keys: [key],
        kind: key.startsWith('bank/') ? 'lines' : 'smoothed',
      }),
    ),
    ...(aged.length === 0
      ? []
      : [{ title: 'Age: stored against written anew', keys: aged, labels, kind: 'lines' as const }]),
    ...(scores.length === 0 ? [] : [{ title: 'Retrieval scores', keys: scores, kind: 'smoothed' as const }]),
  ];
}

function bankFacts({ memories, version, segments, layout, encoder, bytes: size }: BankAnswer): HTMLElement {
  const { memoryLayers, kvHeads, keptTokens, headDim } = layout;
  const facts: [string, string][] = [
    ['memories', integer(memories)],
    ['version', integer(version)],
    ['size', bytes(size)],
    ['layout', `${memoryLayers} layers × ${kvHeads} key-value heads × ${keptTokens} tokens × ${headDim}`],
    ...Object.entries(encoder).map(([name, value]): [string, string] => [`encoder ${name}`, anything(value)]),
  ];
  const rows = segments.map(({ name, memories: count, writer }) => [name, integer(count), writer.slice(0, 12)]);
  return h(
    'div',
    {},
    h(
      'dl',
      { class: 'facts' },
      facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))),
    ),
    h(
      'details',
      {},
      h('summary', {}, `${segments.length} segments`),
      table('Segments', ['Segment', 'Memories', 'Written by'], rows),
    ),
  );
}
