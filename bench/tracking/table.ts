/** Prints what tracking costs for people. */

import { median, quantile } from '../cpu/cpu.ts';
import type { Block, TrackingReport } from './tracking.ts';

export function printTrackingReport({ date, machine, node, engine, sinks, steps, load, cases }: TrackingReport): void {
  const loads = load.map((value) => value.toFixed(1)).join(' before, ');
  console.log(`${date.slice(0, 10)}, ${machine}, Node ${node}, engine ${engine}, load ${loads} after`);
  console.log(`sinks: ${sinks.join(', ')}; blocks of ${steps} steps in turn; median of pairs [quartiles]\n`);
  console.log('| stage | pairs | ms a step | tracked | ratio | processor ms a step | tracked | ratio |');
  console.log('|---|---|---|---|---|---|---|---|');
  for (const { stage, tokens, pairs } of cases) {
    const cells = (['milliseconds', 'processor'] as const).flatMap((what) => figures(pairs, what));
    console.log(`| ${[`${stage}, ${tokens} tokens`, pairs.length, ...cells].join(' | ')} |`);
  }
}

function figures(pairs: readonly { plain: Block; tracked: Block }[], what: keyof Block): string[] {
  const ratios = pairs.map(({ plain, tracked }) => tracked[what] / plain[what]);
  const [low, high] = [0.25, 0.75].map((share) => quantile(ratios, share).toFixed(4));
  return [
    median(pairs.map(({ plain }) => plain[what])).toFixed(1),
    median(pairs.map(({ tracked }) => tracked[what])).toFixed(1),
    `${median(ratios).toFixed(4)} [${low}, ${high}]`,
  ];
}
