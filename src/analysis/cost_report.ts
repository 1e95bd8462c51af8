/** The cost model of a shape, told in words, numbers and pictures. */

import {
  type Cost,
  type CostCurves,
  type CostShape,
  costCurves,
  FORMATS,
  type Format,
  formatCosts,
  memoryIsCheapest,
  totalCost,
} from './costs.ts';
import { type TrainingMemory, type TrainingShape, trainingMemory, type WaysOfTraining } from './device_memory.ts';
import { curvesSvg } from './plot.ts';
import { textChart } from './text_chart.ts';

/** TFLOP throughout. */
export interface CostReport extends CostCurves {
  /** What the shape is of. */
  name: string;
  shape: CostShape;
  formats: ({ name: Format } & Cost)[];
  /** Uses between which explicit memory is the cheapest; `to` null: for ever. Empty when `from` ≥ `to`. */
  cheapest: { from: number; to: number | null };
  /** Cost of a reference that is used so often, when that was asked for. */
  at?: { uses: number } & Record<Format, number>;
  /** Bytes of a GPU's memory that training takes, a row a way of training. */
  training: ({ name: string; tokens: number; precision: TrainingShape['precision'] } & TrainingMemory)[];
}

const NAMES: Record<Format, string> = {
  parameters: 'parameters',
  memory: 'explicit memory',
  text: 'text in context',
};

/**
 * @param training ways of training the shape, by name
 * @param uses a number of uses that is looked at more closely
 */
export function costReport(name: string, shape: CostShape, training: WaysOfTraining, uses?: number): CostReport {
  const costs = formatCosts(shape);
  const { from, to } = memoryIsCheapest(shape);
  const total = (format: Format): number => totalCost(costs[format], uses ?? 0);
  return {
    ...{ name, shape },
    formats: FORMATS.map((format) => ({ name: format, ...costs[format] })),
    cheapest: { from, to: Number.isFinite(to) ? to : null },
    ...(uses !== undefined && {
      at: { uses, parameters: total('parameters'), memory: total('memory'), text: total('text') },
    }),
    ...costCurves(shape),
    training: Object.entries(training).map(([way, given]) => {
      const { tokens, precision } = given;
      return { name: way, tokens, precision, ...trainingMemory(given) };
    }),
  };
}

/** The report as text with a chart of about `width` characters. */
export function costText(report: CostReport, { width, ascii }: { width: number; ascii: boolean }): string {
  const { name, shape, formats } = report;
  const rows = formats.map((format) => [NAMES[format.name], figure(format.write), figure(format.read)]);
  const table = [['format', 'write', 'read, each use'], ...rows].map(
    ([format, write, read]) => `  ${format!.padEnd(18)}${write!.padEnd(12)}${read}`,
  );
  return [
    `What a reference of ${shape.referenceTokens} tokens costs in TFLOP (paper, appendix A): ${name}`,
    '',
    ...table,
    '',
    cheapestText(report),
    ...(report.at ? [usesText(report.at)] : []),
    '',
    chartText(report, { width, ascii }),
    '',
    ...trainingText(report.training),
  ].join('\n');
}

/** Figure 4 as a picture. */
export function costSvg(report: CostReport): string {
  const { from, to } = report.cheapest;
  const marks = isEver(report)
    ? [{ x: from, label: `${figure(from)} uses` }, ...(to === null ? [] : [{ x: to, label: `${figure(to)} uses` }])]
    : [];
  return curvesSvg({
    title: `${report.name}: cost of a reference in three formats`,
    xLabel: 'uses of the reference',
    yLabel: 'writing and reading (TFLOP)',
    series: FORMATS.map((format) => ({ name: NAMES[format], xs: report.uses, ys: report.totals[format] })),
    marks: marks.filter(({ x }) => x > 0),
    logX: true,
    logY: true,
  });
}

function isEver({ cheapest: { from, to } }: CostReport): boolean {
  return Number.isFinite(from) && (to === null || from < to);
}

function cheapestText(report: CostReport): string {
  const { from, to } = report.cheapest;
  if (!isEver(report)) return 'Explicit memory is the cheapest format for no number of uses.';
  const range = to === null ? `uses > ${figure(from)}` : `${figure(from)} < uses < ${figure(to)}`;
  return `Explicit memory is the cheapest format for ${range}.`;
}

function usesText({ uses, ...totals }: NonNullable<CostReport['at']>): string {
  const order = [...FORMATS].sort((a, b) => totals[a] - totals[b]);
  const told = order.map((format) => `${NAMES[format]} ${figure(totals[format])}`).join(', ');
  return `Used ${figure(uses)} times, cheapest first: ${told}.`;
}

const GIB = 2 ** 30;

/** A line a way of training; the total is about what a card must have free. */
function trainingText(training: CostReport['training']): string[] {
  const heads = ['GiB', 'tokens', 'weights', 'AdamW', 'gradients', 'activations', 'peak', 'total'];
  const rows = training.map(({ name, tokens, total, ...parts }) => {
    const columns = [
      parts.weights + parts.copies,
      parts.moments,
      parts.gradients,
      parts.activations + parts.memories,
      parts.peak,
      total,
    ];
    return [name, tokens.toLocaleString('en-US'), ...columns.map((bytes) => (bytes / GIB).toFixed(1))];
  });
  const [{ precision } = { precision: 'bfloat16' }] = training;
  return [
    `Memory of a GPU that training takes, estimated (engine: cuda, ${precision}), by tokens of a micro-batch:`,
    '',
    ...[heads, ...rows].map(
      ([name, ...cells]) =>
        `  ${name!.padEnd(27)}${cells.map((cell, i) => cell.padStart(heads[i + 1]!.length + 2)).join('')}`,
    ),
    '',
    'peak: what comes on top at the fullest moment, the loss or new gradients. The driver takes about half a GiB besides.',
  ];
}

function chartText(report: CostReport, { width, ascii }: { width: number; ascii: boolean }): string {
  // Nine characters stand in front of the columns.
  const columns = Math.max(30, Math.min(100, width - 10));
  const { uses, totals } = costCurves(report.shape, columns);
  return textChart({
    xs: uses,
    xLabel: 'uses of the reference',
    yLabel: '   TFLOP',
    curves: FORMATS.map((format) => ({ name: NAMES[format], ys: totals[format] })),
    marks: isEver(report) ? [report.cheapest.from, report.cheapest.to ?? 0].filter((mark) => mark > 0) : [],
    ...{ height: 17, ascii },
  });
}

/** Three digits. */
function figure(value: number): string {
  if (value === 0) return '0';
  if (!Number.isFinite(value)) return 'never';
  const rounded = Number(value.toPrecision(3));
  if (rounded < 1e-3 || rounded >= 1e7) return rounded.toExponential(2);
  return rounded.toLocaleString('en-US', { maximumSignificantDigits: 3 });
}
