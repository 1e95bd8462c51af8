/** What a piece of knowledge costs in each of its three formats, for the shape of this run (the paper's Figure 4). */

import type { CostAnswer } from '../api.ts';
import { Chart, CursorGroup, type Line } from './chart.ts';
import { ask } from './client.ts';
import { spread } from './curves.ts';
import { h, section, table } from './dom.ts';
import { number, short } from './format.ts';
import { openRun, part } from './frame.ts';
import type { AddressState } from './route.ts';

const NAMES = { parameters: 'model parameters', memory: 'explicit memory', text: 'text in the context (RAG)' } as const;
const FORMATS = ['parameters', 'memory', 'text'] as const;

export async function costPage(main: HTMLElement, state: AddressState, signal: AbortSignal): Promise<undefined> {
  const view = await openRun(main, state, signal);
  const place = h('div');
  view.body.append(place);
  await part(place, async () => {
    const cost = await ask<CostAnswer>(['runs', view.run, 'cost'], {}, signal);
    const chart = new Chart(
      {
        title: 'Total cost of a piece of knowledge (TFLOP)',
        format: power,
        xName: 'uses',
        xFormat: power,
        logX: true,
        logY: true,
        height: 380,
      },
      new CursorGroup(),
      signal,
    );
    chart.element.classList.add('wide');
    // The place is on the page only after this.
    queueMicrotask(() => chart.set(linesOf(cost), marksOf(cost)));
    return h(
      'div',
      {},
      section('What knowledge costs', h('p', {}, verdict(cost.cheapest)), costTable(cost)),
      section('Cost over the number of uses', chart.element, totals(cost)),
    );
  });
  return undefined;
}

function power(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  return value !== 0 && (value >= 1e5 || value < 1e-3)
    ? value
        .toExponential(2)
        .replace('e+', 'e')
        .replace(/\.?0+e/, 'e')
    : short(value);
}

function verdict({ from, to }: CostAnswer['cheapest']): string {
  if (to !== null && from >= to) return 'Explicit memory is never the cheapest format for this shape.';
  if (to === null) return `Explicit memory is the cheapest format from ${number(from)} uses on.`;
  return `Explicit memory is the cheapest format between ${number(from)} and ${number(to)} uses of a piece of knowledge; below that, text in the context is; above it, training it into the parameters.`;
}

function costTable({ formats }: CostAnswer): HTMLElement {
  const rows = formats.map(({ name, write, read }) => [NAMES[name], number(write), number(read)]);
  return table('Cost of the formats', ['Format', 'Write once (TFLOP)', 'Read, each use (TFLOP)'], rows);
}

function linesOf({ uses, totals: { parameters, memory, text } }: CostAnswer): Line[] {
  const values = { parameters, memory, text };
  return FORMATS.map((format, i) => ({
    x: uses,
    y: values[format],
    label: NAMES[format],
    colour: i,
    isDashed: format === 'text',
  }));
}

function marksOf({ cheapest: { from, to }, uses }: CostAnswer): { x: number; label: string }[] {
  const isShown = (x: number) => x >= (uses[0] ?? 0) && x <= (uses.at(-1) ?? 0);
  const marks = [
    { x: from, label: `memory from ${number(from)}` },
    ...(to === null ? [] : [{ x: to, label: `to ${number(to)}` }]),
  ];
  return marks.filter(({ x }) => isShown(x));
}

function totals({ uses, totals: { parameters, memory, text } }: CostAnswer): HTMLElement {
  const rows = spread(uses.length, 13).map((i) => [
    power(uses[i]),
    number(parameters[i]),
    number(memory[i]),
    number(text[i]),
  ]);
  return table('Total cost in TFLOP', ['Uses', ...FORMATS.map((format) => NAMES[format])], rows);
}
