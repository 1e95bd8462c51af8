/** The figures of the tokenizer as a table. */

import { median, quantile } from '../cpu/cpu.ts';
import type { Answer } from './side.ts';
import type { Figure, Report } from './tokenizer.ts';

const rate = ({ bytes, seconds }: Answer): number => bytes / seconds / 1e6;
const typical = ({ answers }: Figure): number => median(answers.map(rate));

export function printTokenizerReport({ date, machine, node, load, training, encoding }: Report): void {
  console.log(`${date.slice(0, 10)}, ${machine}, Node ${node}, load ${load.toFixed(1)}\n`);
  console.log('| training | MB | merges | seconds | processor seconds | peak MB |\n|---|--:|--:|--:|--:|--:|');
  for (const { name, answers } of training) {
    for (const { bytes, tokens, seconds, processorSeconds, peakBytes } of answers) {
      const numbers = [
        bytes / 1e6,
        tokens,
        seconds.toFixed(1),
        processorSeconds.toFixed(1),
        Math.round(peakBytes / 1e6),
      ];
      console.log(`| ${[name, ...numbers].join(' | ')} |`);
    }
  }
  console.log('\n| encoding | MB/s, median [quartiles] | MB for a processor second |\n|---|--:|--:|');
  for (const figure of encoding) {
    const rates = figure.answers.map(rate);
    const processor = median(figure.answers.map(({ bytes, processorSeconds }) => bytes / processorSeconds / 1e6));
    const quartiles = `[${quantile(rates, 0.25).toFixed(2)}–${quantile(rates, 0.75).toFixed(2)}]`;
    console.log(`| ${figure.name} | ${median(rates).toFixed(2)} ${quartiles} | ${processor.toFixed(2)} |`);
  }
  const [one, two, ...alone] = encoding;
  const best = alone.reduce((a, b) => (typical(b) > typical(a) ? b : a));
  console.log(`\n2 workers against 1: ${ratio(two!, one!)}`);
  console.log(`2 workers against the best of \`tokenizers\` alone (${best.name}): ${ratio(two!, best)}`);
}

/** Of rates, round by round. */
function ratio(figure: Figure, base: Figure): string {
  const ratios = figure.answers.map((answer, round) => rate(answer) / rate(base.answers[round]!));
  return `${median(ratios).toFixed(2)} [${quantile(ratios, 0.25).toFixed(2)}–${quantile(ratios, 0.75).toFixed(2)}]`;
}
