/** Prints the figures of reading while training for people. */

import { median, quantile } from '../cpu/cpu.ts';
import type { PrefetchReport, Turns } from './prefetch.ts';

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const spread = (values: readonly number[]): string =>
  `${median(values).toFixed(0)} [${quantile(values, 0.25).toFixed(0)}, ${quantile(values, 0.75).toFixed(0)}]`;

export function printPrefetchReport({ date, machine, node, engine, cases }: PrefetchReport): void {
  console.log(`${date.slice(0, 10)}, ${machine}, Node ${node}, engine ${engine}\n`);
  console.log('| shape | read ahead | ms a step | waited | processor ms a step | reading ms a step |');
  console.log('|---|---|---|---|---|---|');
  for (const { name, parameters, tokens, memories, turns } of cases) {
    const shape = `${name}: ${(parameters / 1e6).toFixed(1)} M parameters, ${tokens} tokens, ${memories} memories`;
    for (const turn of turns) console.log(`| ${[shape, ...cells(turn)].join(' | ')} |`);
  }
}

function cells({ ahead, steps, waits, processor, reading }: Turns): string[] {
  return [
    String(ahead),
    spread(steps),
    `${((100 * sum(waits)) / sum(steps)).toFixed(2)} %`,
    median(processor).toFixed(0),
    reading.length > 0 ? spread(reading) : 'in the step',
  ];
}
