/** Prints a report for people. */

import { type Figure, median, quantile, type Report } from './cpu.ts';

export function printReport(report: Report): void {
  const { machine, cores, threads, node, torch, date, rounds } = report;
  console.log(
    `${date.slice(0, 10)}, ${machine}, ${cores} cores, ${threads} threads, Node ${node}, PyTorch ${torch ?? '–'}`,
  );
  console.log(`medians of ${rounds} rounds, both sides in turn; [quartiles]; ratio: median of the rounds' ratios\n`);
  const peak = Math.max(0, ...report.figures.map(productRate));
  const rows = report.figures.map((figure) => row(figure, peak));
  print([['case', 'ours', 'rate', 'GFLOP/s', 'of peak', 'PyTorch', 'ratio', 'to plain', 'JS'], ...rows]);
  console.log('');
  for (const { name, measured, peerSetting } of report.figures) {
    console.log(`${name}: ${measured.what}${peerSetting ? ` (PyTorch: ${peerSetting})` : ''}`);
  }
  console.log(
    '\nGFLOP/s: tokens/s × (6·N_matmul + 12·L·H·D·T/2), see flopsPerToken in src/model/shape.ts; peak: the best product of either side.',
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

/** The best that either side reaches in a plain product, GFLOP/s. */
function productRate({ measured, ours, peer }: Figure): number {
  const { case: given, flops } = measured;
  return given.kind === 'product' && flops ? flops / Math.min(median(ours), median(peer ?? ours)) / 1e9 : 0;
}

function row({ name, measured, ours, peer, plain, javascriptShare }: Figure, peak: number): string[] {
  const { flops, perStep, unit } = measured;
  const rate = flops ? flops / median(ours) / 1e9 : undefined;
  return [
    name,
    time(ours),
    `${amount(perStep / median(ours))} ${unit}/s`,
    rate ? rate.toFixed(1) : '',
    rate && peak ? `${((100 * rate) / peak).toFixed(0)} %` : '',
    peer ? time(peer) : '',
    peer ? median(ours.map((own, i) => peer[i]! / own)).toFixed(2) : '',
    plain ? median(ours.map((own, i) => own / plain[i]!)).toFixed(3) : '',
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
