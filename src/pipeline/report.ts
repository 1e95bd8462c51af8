/** The end of a run: the table of answers, `report.json` and a picture of both loss curves. */

import { join } from 'node:path';
import { curvesSvg } from '../analysis/plot.ts';
import { ignoreUserError } from '../errors.ts';
import { type EvaluationReport, evaluate, reportTable } from '../eval/evaluate.ts';
import { Session } from '../infer/session.ts';
import { writeFileAtomic, writeJsonAtomic } from '../io/files.ts';
import type { RunFolder, StageName } from '../io/run_folder.ts';
import { readMetrics } from '../tracking/metrics_file.ts';
import { lastRow } from '../tracking/run_rows.ts';
import type { MetricsRow } from '../tracking/values.ts';
import type { TrainingState } from '../train/loop.ts';
import { note, say, type Workspace } from './workspace.ts';

export interface RunReport extends EvaluationReport {
  /** Seconds that the command took. */
  seconds: number;
  engine: string;
  precision: string;
}

/** Evaluates the newest checkpoint with its bank and writes `report.json`; prints the table on standard output. */
export async function writeReport(workspace: Workspace, seconds: () => number): Promise<void> {
  const { config, folder, engine, precision } = workspace;
  const session = await Session.open(config, folder);
  try {
    const warn = (text: string): void => note(workspace, 'warning', text);
    const scores = await evaluate(session, warn);
    const report: RunReport = { ...scores, seconds: Math.round(seconds()), engine, precision };
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

/** The last losses of a finished stage (its last step is validated) and its best validation, as final values of the run. */
export async function stageSummary(
  folder: RunFolder,
  stage: StageName,
  { best, tokensSeen }: Pick<TrainingState, 'best' | 'tokensSeen'>,
): Promise<Record<string, number>> {
  const last = (await lastRow(folder.metricsFile(stage)).catch(ignoreUserError)) ?? {};
  const values = {
    final_tokens: tokensSeen,
    final_loss: last['train/loss'],
    final_validation_loss: last['validation/loss'],
    best_validation_loss: best?.loss,
    best_validation_step: best?.step,
  };
  const known = Object.entries(values).filter((entry): entry is [string, number] => typeof entry[1] === 'number');
  return Object.fromEntries(known.map(([name, value]) => [`${stage}/${name}`, value]));
}

/** Losses are averaged over this many parts of each stage, so that the picture shows their course and not their noise. */
const POINTS = 200;

/** Draws training and validation losses of both stages over tokens into `loss.svg`. */
export async function drawLosses({ config, folder }: Workspace): Promise<void> {
  const warmup = await stageCurves(folder.metricsFile('warmup'), 0, () => true);
  const start = warmup.tokens;
  // A plain step of stage two trains on other text, without memories.
  const continual = await stageCurves(
    folder.metricsFile('continual'),
    start,
    (row) => row['memory/attention_share'] !== undefined,
  );
  const path = join(folder.root, 'loss.svg');
  const svg = curvesSvg({
    title: `${config.name}: loss in both stages`,
    xLabel: 'training tokens (millions)',
    yLabel: 'loss (nats per token)',
    series: [
      { name: 'warmup', ...warmup.training },
      { name: 'continual, with memories', ...continual.training },
      { name: 'validation, warmup', ...warmup.validation },
      { name: 'validation, with memories', ...continual.validation },
      { name: 'validation, without', ...continual.withoutMemory },
    ].filter(({ xs }) => xs.length > 0),
    marks: start > 0 && continual.tokens > start ? [{ x: start / 1e6, label: 'memories from here on' }] : [],
  });
  await writeFileAtomic(path, svg);
  say(`loss curves: ${path}`);
}

/** Values over tokens in millions. */
interface Curve {
  xs: number[];
  ys: number[];
}

interface StageCurves {
  /** Means over equal parts of the steps. */
  training: Curve;
  validation: Curve;
  withoutMemory: Curve;
  /** Tokens of the run at the end of the stage. */
  tokens: number;
}

/**
 * The curves of a stage, from rows that are read one after the other: a long run has more than memory holds.
 * @param start tokens of the stages before
 * @param counts which rows the training curve is of
 */
async function stageCurves(path: string, start: number, counts: (row: MetricsRow) => boolean): Promise<StageCurves> {
  const steps = Number((await lastRow(path))?.step ?? 0);
  const size = Math.max(1, Math.ceil(steps / POINTS));
  const curve = (): Curve => ({ xs: [], ys: [] });
  const curves: StageCurves = { training: curve(), validation: curve(), withoutMemory: curve(), tokens: start };
  let part = { sum: 0, rows: 0, x: 0 };
  const endPart = (): void => {
    if (part.rows > 0) add(curves.training, part.x, part.sum / part.rows);
    part = { sum: 0, rows: 0, x: 0 };
  };
  for await (const row of readMetrics(path)) {
    curves.tokens = start + Number(row['train/tokens'] ?? 0);
    const x = curves.tokens / 1e6;
    if (counts(row)) part = { sum: part.sum + Number(row['train/loss']), rows: part.rows + 1, x };
    if (Number(row.step) % size === 0) endPart();
    for (const [into, key] of [
      [curves.validation, 'validation/loss'],
      [curves.withoutMemory, 'validation/loss_without_memory'],
    ] as const) {
      const value = row[key];
      if (typeof value === 'number') add(into, x, value);
    }
  }
  endPart();
  return curves;
}

function add({ xs, ys }: Curve, x: number, y: number): void {
  xs.push(x);
  ys.push(y);
}
