/** The controls that curves have in common: what x is, logarithms, smoothing, the range that is looked at. */

import type { Axis } from '../api.ts';
import { h, select, tick } from './dom.ts';
import { duration, integer, short } from './format.ts';
import type { AddressState } from './route.ts';

export const AXES: Record<
  Axis,
  { name: string; format: (value: number | null | undefined) => string; ticks: typeof short }
> = {
  step: {
    name: 'step',
    format: (value) => (value === null || value === undefined ? '–' : integer(Math.round(value))),
    ticks: short,
  },
  tokens: { name: 'tokens', format: short, ticks: short },
  time: { name: 'time', format: duration, ticks: (value) => timeTick(value ?? 0) },
};

/** 0, 90 s, 5 min, 1 h 30. */
function timeTick(seconds: number): string {
  if (seconds < 120) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toFixed(1))} min`;
  return `${Number((seconds / 3600).toFixed(1))} h`;
}

export interface View {
  axis: Axis;
  from?: number;
  to?: number;
  smoothing: number;
  logX: boolean;
  logY: boolean;
}

export function viewOf(state: AddressState): View {
  const axis = (['step', 'tokens', 'time'] as const).find((name) => name === state.get('x')) ?? 'step';
  const smoothing = Math.min(0.999, Math.max(0, state.number('smooth') ?? 0.9));
  return {
    axis,
    from: state.number('from'),
    to: state.number('to'),
    smoothing,
    logX: state.has('logx'),
    logY: state.has('logy'),
  };
}

/**
 * The bar above the curves; what is chosen stands in the address.
 * @param redraw called when curves look different; `isOther` when other points are wanted
 */
export function viewBar(
  state: AddressState,
  redraw: (isOther: boolean) => void,
): { element: HTMLElement; show: () => void } {
  const view = viewOf(state);
  const set = (values: Record<string, string | number | boolean | undefined>, isOther: boolean) => {
    state.set(values);
    show();
    redraw(isOther);
  };
  const smoothing = h('input', { type: 'range', min: 0, max: 0.99, step: 0.01, value: view.smoothing });
  const shown = h('output', {}, view.smoothing.toFixed(2));
  smoothing.addEventListener('input', () => set({ smooth: smoothing.value }, false));
  const limit = () => h('input', { type: 'number', step: 'any', change: () => range() });
  const [from, to] = [limit(), limit()];
  const range = () => set({ from: from.value, to: to.value }, true);
  const reset = h('button', { type: 'button', click: () => set({ from: undefined, to: undefined }, true) }, 'Show all');
  const show = () => {
    const now = viewOf(state);
    shown.textContent = now.smoothing.toFixed(2);
    from.value = now.from === undefined ? '' : String(now.from);
    to.value = now.to === undefined ? '' : String(now.to);
    reset.disabled = now.from === undefined && now.to === undefined;
  };
  show();
  const element = h(
    'div',
    { class: 'bar', role: 'group', 'aria-label': 'How curves are drawn' },
    select(
      'x axis',
      [
        ['step', 'step'],
        ['tokens', 'tokens'],
        ['time', 'time'],
      ],
      view.axis,
      (x) => set({ x, from: undefined, to: undefined }, true),
    ),
    tick('log x', view.logX, (isOn) => set({ logx: isOn }, false)),
    tick('log y', view.logY, (isOn) => set({ logy: isOn }, false)),
    h('label', { class: 'field' }, 'Smoothing', smoothing, shown),
    h('label', { class: 'field' }, 'from', from),
    h('label', { class: 'field' }, 'to', to),
    reset,
  );
  return { element, show };
}

/** A range that was dragged, with as many digits as it needs. */
export function zoomed(state: AddressState, from: number, to: number): void {
  const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.max(1e-9, to - from))));
  const round = (value: number) => Number(value.toFixed(Math.min(9, digits)));
  state.set({ from: round(Math.max(0, from)), to: round(to) });
}
