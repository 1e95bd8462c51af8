/** The figures of both sides beside what must be reached. */

import { flopsPerToken } from '../../src/model/shape.ts';
import { caseOf } from './cases.ts';
import { type Figure, linesOf, printTable } from './compare.ts';

const GIB = 2 ** 30;

/** The H100's memory, bytes. */
const CARD_BYTES = 80e9;

interface Line {
  figure: string;
  /** Undefined when something that it is made of is missing. */
  value: number | undefined;
  must: number;
  goal: number;
  /** Whether more is better. */
  more: boolean;
  show(value: number): string;
}

const share = (value: number): string => `${(100 * value).toFixed(1)} %`;
const ratio = (value: number): string => value.toFixed(3);
const gib = (value: number): string => `${(value / GIB).toFixed(1)} GiB`;

/**
 * Prints all figures and, in a table, those that must be reached, with pass and fail.
 * @returns whether all that must be reached has been measured and is reached
 */
export function printFigures(path: string, shape: string): boolean {
  const figures = linesOf<Figure>(path);
  printAll(figures);
  const profile = figures.find((figure) => figure.case === 'profile' && !figure.error);
  if (profile) printProfile(profile);
  const lines = linesFrom(figures, shape);
  const verdicts = lines.map(verdict);
  console.log('');
  printTable([
    ['figure', 'measured', 'must', 'goal', ''],
    ...lines.map(({ figure, value, must, goal, more, show }, i) => {
      const sign = more ? '≥' : '≤';
      const shown = value === undefined ? 'not measured' : show(value);
      return [figure, shown, `${sign} ${show(must)}`, `${sign} ${show(goal)}`, verdicts[i]!];
    }),
  ]);
  const { shape: model, tokens } = caseOf(shape);
  console.log(
    `\nMFU: tokens/s × (6·N_matmul + 12·L·H·D·T/2) / peak; ${(flopsPerToken(model, tokens) / 1e9).toFixed(2)} GFLOP a token, ` +
      `no recomputation counted (flopsPerToken in src/model/shape.ts). Peak: ${(peakOf(figures) / 1e12).toFixed(0)} TFLOP/s, the best bfloat16 product of either side in this run.`,
  );
  return verdicts.every((word) => word === 'goal' || word === 'must');
}

function verdict({ value, must, goal, more }: Line): string {
  const reaches = (limit: number): boolean => value !== undefined && (more ? value >= limit : value <= limit);
  return reaches(goal) ? 'goal' : reaches(must) ? 'must' : 'FAILED';
}

/** The best of the figures of a case: of the side, and of the variants if any are named. */
function best(
  figures: readonly Figure[],
  side: Figure['side'],
  name: string,
  variants?: readonly string[],
): Figure | undefined {
  return figures
    .filter((figure) => figure.side === side && figure.case === name && figure.median !== undefined)
    .filter(({ variant }) => !variants || variants.includes(variant))
    .sort((a, b) => a.median! - b.median!)[0];
}

function peakOf(figures: readonly Figure[]): number {
  const rates = figures.filter((figure) => figure.case === 'gemm').map(({ flopsPerSecond }) => Number(flopsPerSecond));
  return Math.max(0, ...rates.filter(Number.isFinite));
}

function linesFrom(figures: readonly Figure[], name: string): Line[] {
  const { shape, tokens } = caseOf(name);
  const seconds = (side: Figure['side'], what: string, variants?: readonly string[]): number | undefined =>
    best(figures, side, what, variants)?.median;
  const over = (a: number | undefined, b: number | undefined): number | undefined => (a && b ? a / b : undefined);
  const warmup = best(figures, 'memory3', 'warmup', ['bfloat16']);
  const rate = warmup && Number(warmup.tokensPerSecond) * flopsPerToken(shape, tokens);
  const plain = seconds('memory3', 'attention', ['plain']);
  const added = over(seconds('memory3', 'attention', ['memory']), plain);
  const bytes = warmup && Number(warmup.deviceBytes);
  const step = warmup?.median;
  return [
    {
      figure: 'warmup step, share of the GEMM peak',
      value: over(rate, peakOf(figures)),
      must: 0.45,
      goal: 0.65,
      more: true,
      show: share,
    },
    {
      figure: 'the same against PyTorch eager',
      value: over(seconds('torch', 'warmup', ['eager']), step),
      must: 1,
      goal: 1.3,
      more: true,
      show: ratio,
    },
    {
      figure: 'the same against PyTorch compiled',
      value: over(seconds('torch', 'warmup', ['compiled']), step),
      must: 0.9,
      goal: 1.1,
      more: true,
      show: ratio,
    },
    {
      figure: 'step with bank memories against warmup step',
      value: over(seconds('memory3', 'bank'), step),
      must: 1.05,
      goal: 1.02,
      more: false,
      show: ratio,
    },
    {
      figure: 'step with online memories against warmup step',
      value: over(seconds('memory3', 'online'), step),
      must: 2,
      goal: 1.7,
      more: false,
      show: ratio,
    },
    {
      figure: 'attention against PyTorch’s flash SDPA',
      value: over(seconds('torch', 'attention', ['flash']), plain),
      must: 0.6,
      goal: 1,
      more: true,
      show: ratio,
    },
    {
      figure: 'time that 5 memories a chunk add to attention',
      value: added === undefined ? undefined : added - 1,
      must: 0.06,
      goal: 0.03,
      more: false,
      show: share,
    },
    { figure: 'device memory of the warmup step', value: bytes, must: CARD_BYTES, goal: 70e9, more: false, show: gib },
  ];
}

function printAll(figures: readonly Figure[]): void {
  const devices = new Set(figures.flatMap(({ device, torch }) => [device, torch && `PyTorch ${String(torch)}`]));
  console.log([...devices].filter(Boolean).join('; '));
  const rows = figures
    .filter((figure) => figure.case !== 'profile')
    .map((figure) => {
      const { side, variant, quartiles, tokensPerSecond, flopsPerSecond, recomputed, error } = figure;
      const milliseconds = figure.median === undefined ? '' : (1000 * figure.median).toPrecision(4);
      const spread = quartiles ? `[${quartiles.map((value) => (1000 * value).toPrecision(4)).join(', ')}]` : '';
      const rate = tokensPerSecond
        ? `${Number(tokensPerSecond).toFixed(0)} tokens/s`
        : flopsPerSecond
          ? `${(Number(flopsPerSecond) / 1e12).toFixed(1)} TFLOP/s`
          : '';
      const bytes = Number(figure.deviceBytes ?? figure.reservedBytes ?? Number.NaN);
      const memory = Number.isFinite(bytes) ? gib(bytes) : '';
      return [
        figure.case,
        side,
        variant,
        milliseconds,
        spread,
        rate,
        memory,
        recomputed ? String(recomputed) : '',
        error ? `FAILED: ${error}` : '',
      ];
    });
  printTable([['case', 'side', 'variant', 'ms', 'quartiles', 'rate', 'memory', 'recomputed', ''], ...rows]);
}

function printProfile({ kernels, step }: Figure): void {
  const list = kernels as { name: string; calls: number; seconds: number }[];
  const total = list.reduce((sum, { seconds }) => sum + seconds, 0);
  console.log(
    `\nkernels of a warmup step: ${(1000 * total).toFixed(1)} ms on the device, ${(1000 * Number(step)).toFixed(1)} ms by the clock with timing`,
  );
  printTable([
    ['kernel', 'calls', 'ms', 'share'],
    ...list
      .slice(0, 20)
      .map(({ name, calls, seconds }) => [name, String(calls), (1000 * seconds).toFixed(2), share(seconds / total)]),
  ]);
}
