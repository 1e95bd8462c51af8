/** Prints a report for people. */

import { cases } from './cases.ts';
import { type Figure, median, quantile, type Report } from './cpu.ts';

export function printReport(report: Report): void {
  const { machine, cores, threads, node, torch, date, rounds } = report;
  console.log(
    `${date.slice(0, 10)}, ${machine}, ${cores} cores, ${threads} threads, Node ${node}, PyTorch ${torch ?? '–'}`,
  );
  console.log(`medians of ${rounds} rounds, both sides in turn; [quartiles]; ratio: median of the rounds' ratios\n`);
  const rows = report.figures.map(row);
  print([['case', 'ours', 'rate', 'GFLOP/s', 'of peak', 'PyTorch', 'ratio', 'to plain', 'JS'], ...rows]);
  console.log('');
  for (const { name, measured, peerSetting } of report.figures) {
    console.log(`${name}: ${measured.what}${peerSetting ? ` (PyTorch: ${peerSetting})` : ''}`);
  }
  console.log(
    '\nGFLOP/s: tokens/s × (6·N_matmul + 12·L·H·D·T/2), see flopsPerToken in src/model/shape.ts; of peak: of product2048 of ours, in turn.',
  );
  console.log(
    'to plain: time in relation to the same step without memories, in turn in the same rounds. JS: time of JavaScript, beside the kernels.',
  );
  const { peakBytes } = report;
  if (!peakBytes) return;
  const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const { ours, peer } = peakBytes;
  const ratio = peer ? `, PyTorch ${mib(peer)}, ratio ${(ours / peer).toFixed(2)}` : '';
  console.log(`peak memory of training shape 3: ours ${mib(ours)}${ratio}`);
}

function row({ name, measured, ours, peer, against, javascriptShare }: Figure): string[] {
  const { flops, perStep, unit } = measured;
  const rate = flops ? flops / median(ours) / 1e9 : undefined;
  const other = measured.against === undefined ? undefined : cases()[measured.against];
  // Of each round, so that a machine that gets slower meanwhile does not matter.
  const ratio = against ? median(ours.map((own, i) => own / against[i]!)) : undefined;
  const isShare = ratio !== undefined && flops !== undefined && other?.flops !== undefined;
  return [
    name,
    time(ours),
    `${amount(perStep / median(ours))} ${unit}/s`,
    rate ? rate.toFixed(1) : '',
    isShare ? `${((100 * flops) / other.flops! / ratio).toFixed(0)} %` : '',
    peer ? time(peer) : '',
    peer ? median(ours.map((own, i) => peer[i]! / own)).toFixed(2) : '',
    ratio !== undefined && !isShare ? ratio.toFixed(3) : '',
    `${(100 * javascriptShare).toFixed(1)} %`,
  ];
}

function time(seconds: readonly number[]): string {
  const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => (quantile(seconds, share) * 1000).toPrecision(3));
  return `${Number(middle)} ms [${Number(low)}–${Number(high)}]`;
}

const amount = (value: number): string => (value >= 10_000 ? `${(value / 1000).toFixed(1)} k` : value.toPrecision(3));

function print(rows: readonly string[][]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const cells of rows) {
    console.log(
      cells
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    );
  }
}
