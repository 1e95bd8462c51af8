/** The end of a run: the table of answers, `report.json` and a picture of both loss curves. */

import { join } from 'node:path';
import { curvesSvg } from '../analysis/plot.ts';
import { type EvaluationReport, evaluate, reportTable } from '../eval/evaluate.ts';
import { Session } from '../infer/session.ts';
import { writeFileAtomic, writeJsonAtomic } from '../io/files.ts';
import type { RunFolder, StageName } from '../io/run_folder.ts';
import { readMetrics } from '../tracking/metrics_file.ts';
import type { MetricsRow } from '../tracking/values.ts';
import type { TrainingState } from '../train/loop.ts';
import { note, say, type Workspace } from './workspace.ts';

export interface RunReport extends EvaluationReport {
  /** Seconds that the command took. */
  seconds: number;
  engine: string;
}

/** Evaluates the newest checkpoint with its bank and writes `report.json`; prints the table on standard output. */
export async function writeReport(workspace: Workspace, seconds: () => number): Promise<void> {
  const { config, folder, engine } = workspace;
  const session = await Session.open(config, folder);
  try {
    const warn = (text: string): void => note(workspace, 'warning', text);
    const report: RunReport = { ...(await evaluate(session, warn)), seconds: Math.round(seconds()), engine };
    const path = join(folder.root, 'report.json');
    await writeJsonAtomic(path, report);
    await workspace.tracker.summary(evaluationSummary(report));
    process.stdout.write(`\n${reportTable(report)}\n\n`);
    say(`report: ${path}`);
  } finally {
    await session.close();
  }
}

/** Results of an evaluation as final values of the run. */
export function evaluationSummary({ heldOut, retrieval, edits, deletions }: EvaluationReport): Record<string, number> {
  const ways = {
    right_memory: heldOut.withMemory,
    no_memory: heldOut.withoutMemory,
    text_in_context: heldOut.rag,
    retrieved_memories: heldOut.retrieved,
  };
  const scores = Object.entries(ways).flatMap(([way, { accuracy, loss }]) => [
    [`evaluation/${way}_accuracy`, accuracy],
    [`evaluation/${way}_loss`, loss],
  ]);
  const followed = (changes: EvaluationReport['edits']): number => changes.filter((change) => change.followed).length;
  return {
    'evaluation/questions': heldOut.questions,
    ...Object.fromEntries(scores),
    'evaluation/found_first_share': retrieval.first,
    'evaluation/found_share': retrieval.read,
    'evaluation/edits': edits.length,
    'evaluation/edits_followed': followed(edits),
    'evaluation/deletions': deletions.length,
    'evaluation/deletions_followed': followed(deletions),
  };
}

/** The last losses of a stage and its best validation, as final values of the run. */
export async function stageSummary(
  folder: RunFolder,
  stage: StageName,
  { best, tokensSeen }: TrainingState,
): Promise<Record<string, number>> {
  const last: Record<string, number> = { [`${stage}/final_tokens`]: tokensSeen };
  const keys = { 'train/loss': 'loss', 'validation/loss': 'validation_loss' };
  for await (const row of readMetrics(folder.metricsFile(stage))) {
    for (const [key, name] of Object.entries(keys)) {
      if (typeof row[key] === 'number') last[`${stage}/final_${name}`] = row[key];
    }
  }
  if (best === undefined) return last;
  return { ...last, [`${stage}/best_validation_loss`]: best.loss, [`${stage}/best_validation_step`]: best.step };
}

/** Losses are averaged over this many parts of each stage, so that the picture shows their course and not their noise. */
const POINTS = 200;

/** Draws training and validation losses of both stages over tokens into `loss.svg`. */
export async function drawLosses({ config, folder }: Workspace): Promise<void> {
  const warmup = await rowsOf(folder.metricsFile('warmup'));
  const continual = await rowsOf(folder.metricsFile('continual'));
  const start = Number(warmup.at(-1)?.['train/tokens'] ?? 0);
  const path = join(folder.root, 'loss.svg');
  const validation = [
    validationCurve('validation, warmup', warmup, 0, 'validation/loss'),
    validationCurve('validation, with memories', continual, start, 'validation/loss'),
    validationCurve('validation, without', continual, start, 'validation/loss_without_memory'),
  ];
  const svg = curvesSvg({
    title: `${config.name}: loss in both stages`,
    xLabel: 'training tokens (millions)',
    yLabel: 'loss (nats per token)',
    series: [
      { name: 'warmup', ...smoothed(warmup, 0) },
      {
        name: 'continual, with memories',
        ...smoothed(
          continual.filter((row) => row['memory/attention_share'] !== undefined),
          start,
        ),
      },
      ...validation,
    ].filter(({ xs }) => xs.length > 0),
    marks: start > 0 && continual.length > 0 ? [{ x: start / 1e6, label: 'memories from here on' }] : [],
  });
  await writeFileAtomic(path, svg);
  say(`loss curves: ${path}`);
}

type Curve = { name: string; xs: number[]; ys: number[] };

/** Values of the steps that were validated, over tokens in millions. */
function validationCurve(name: string, rows: readonly MetricsRow[], start: number, key: string): Curve {
  const validated = rows.filter((row) => typeof row[key] === 'number');
  return { name, xs: validated.map((row) => tokensAt(row, start)), ys: validated.map((row) => Number(row[key])) };
}

function tokensAt(row: MetricsRow | undefined, start: number): number {
  return (start + Number(row?.['train/tokens'])) / 1e6;
}

async function rowsOf(path: string): Promise<MetricsRow[]> {
  const rows: MetricsRow[] = [];
  for await (const row of readMetrics(path)) rows.push(row);
  return rows;
}

/** Means over equal parts of the rows. */
function smoothed(rows: readonly MetricsRow[], start: number): { xs: number[]; ys: number[] } {
  const size = Math.max(1, Math.ceil(rows.length / POINTS));
  const xs: number[] = [];
  const ys: number[] = [];
  for (let from = 0; from < rows.length; from += size) {
    const part = rows.slice(from, from + size);
    xs.push(tokensAt(part.at(-1), start));
    ys.push(part.reduce((sum, row) => sum + Number(row['train/loss']), 0) / part.length);
  }
  return { xs, ys };
}
