/** Prints what tracking costs for people. */

import { median, quantile } from '../cpu/cpu.ts';
import type { TrackingReport } from './tracking.ts';

export function printTrackingReport({ date, machine, node, engine, sinks, steps, load, cases }: TrackingReport): void {
  const loads = load.map((value) => value.toFixed(1)).join(' before, ');
  console.log(`${date.slice(0, 10)}, ${machine}, Node ${node}, engine ${engine}, load ${loads} after`);
  console.log(`sinks: ${sinks.join(', ')}; blocks of ${steps} steps in turn; median of pairs [quartiles]\n`);
  console.log(
    '| stage | pairs | ms a step | tracked | ratio | of the quickest steps | processor ms | tracked | ratio | sinks alone |',
  );
  console.log(`|${'---|'.repeat(10)}`);
  for (const { stage, tokens, pairs } of cases) {
    const [time, processor] = (['milliseconds', 'processor'] as const).map((what) => figures(pairs, what));
    const alone = median(pairs.map(({ tracked }) => tracked.thread));
    const cells = [...time!, quickest(pairs).toFixed(4), ...processor!, `${alone.toFixed(2)} ms`];
    console.log(`| ${[`${stage}, ${tokens} tokens`, pairs.length, ...cells].join(' | ')} |`);
  }
}

type Pairs = TrackingReport['cases'][number]['pairs'];

/**
 * Ratio of the sums over the steps of a block, each as quick as it was in any of its rounds: what other work on the machine
 * delays now and then is left out, what tracking adds to a step each time is not. The thread of the sinks, which runs now
 * and then beside the steps, is left out too.
 */
function quickest(pairs: Pairs): number {
  const sum = (kind: 'plain' | 'tracked'): number =>
    pairs[0]![kind].each.reduce(
      (total, _, step) => total + Math.min(...pairs.map((pair) => pair[kind].each[step]!)),
      0,
    );
  return sum('tracked') / sum('plain');
}

function figures(pairs: Pairs, what: 'milliseconds' | 'processor'): string[] {
  const ratios = pairs.map(({ plain, tracked }) => tracked[what] / plain[what]);
  const [low, high] = [0.25, 0.75].map((share) => quantile(ratios, share).toFixed(4));
  return [
    median(pairs.map(({ plain }) => plain[what])).toFixed(1),
    median(pairs.map(({ tracked }) => tracked[what])).toFixed(1),
    `${median(ratios).toFixed(4)} [${low}, ${high}]`,
  ];
}
