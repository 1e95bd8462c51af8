/** A line of the list of runs, from the heads and tails of the run's files and a few samples between. */

import { STAGES, type StageName } from '../io/run_folder.ts';
import { judgeState, type RunStatus, statusSchema } from '../tracking/status.ts';
import { type MetricsRow, rowOf } from '../tracking/values.ts';
import type { RunSummary } from './api.ts';
import { damaged, refusalOf } from './refused.ts';
import { lastLines, lastLineWith, numberIn, rowBehind, spreadRows } from './rows.ts';
import { type RunFacts, readFacts } from './run_config.ts';
import { readSmall, stampOf, withFile } from './run_file.ts';
import type { Run } from './runs.ts';

const SPARKS = 60;
/** Rows of each stage that they are taken from. */
const SAMPLES = 30;
/** Files whose values are kept. */
const MOST_KEPT = 20_000;
/** Bytes at the end of a file in which the last rows are looked for, and the last validation, which may be long ago. */
const TAIL_BYTES = 2 ** 17;
const VALIDATION_BYTES = 2 ** 23;
/** Rows that the speed is taken from. */
const SPEED_ROWS = 50;

/** What the ends of a stage's file tell. */
export interface StageEnds {
  stage: StageName;
  bytes: number;
  first: MetricsRow;
  last: MetricsRow;
  validation: MetricsRow | undefined;
  tokensPerSecond: number | undefined;
  secondsPerStep: number | undefined;
  sparks: [at: number, loss: number][];
}

/** Summaries, each made again only when a file of the run has changed. */
export class Summaries {
  readonly #kept = new Map<string, { stamp: string; value: () => unknown }>();
  readonly #found: (run: Run) => string | undefined;

  /** @param found what reading whole files has shown to be wrong */
  constructor(found: (run: Run) => string | undefined = () => undefined) {
    this.#found = found;
  }

  summary(run: Run, now = Date.now() / 1000): RunSummary {
    const problems: string[] = [];
    const attempt = <T>(work: () => T): T | undefined => {
      try {
        return work();
      } catch (error) {
        problems.push(refusalOf(error, run.folder.root).message);
        return undefined;
      }
    };
    const facts = attempt(() => this.#facts(run));
    const status = attempt(() => this.status(run));
    const ends = STAGES.flatMap((stage) => attempt(() => this.ends(run, stage)) ?? []);
    const started = attempt(() => this.#startedAt(run)) ?? numberIn(ends[0]?.first, 'time/unix_s') ?? status?.startedAt;
    const problem = problems[0] ?? this.#found(run);
    return {
      run: run.name,
      state: judgeState(status, now),
      ...progressOf(ends, facts, judgeState(status, now) === 'running'),
      tags: facts?.tags ?? [],
      notes: facts?.notes ?? '',
      ...(started !== undefined && { startedAt: started }),
      ...changedAt(run),
      ...(problem !== undefined && { problem }),
    };
  }

  /** The heartbeat. @throws Refused when it is damaged */
  status(run: Run): RunStatus | undefined {
    return this.#keep(run.folder.status, () => {
      const text = readSmall(run.folder.status, run.within);
      if (text === undefined) return undefined;
      const parsed = statusSchema.safeParse(rowOf(text));
      if (!parsed.success) throw damaged('status.json is not the status of a run');
      return parsed.data;
    });
  }

  /** The ends of a stage's rows; undefined when it has none. @throws Refused when they are damaged */
  ends(run: Run, stage: StageName): StageEnds | undefined {
    const path = run.folder.metricsFile(stage);
    return this.#keep(path, () =>
      withFile(path, run.within, (file) => {
        if (file.size === 0) return undefined;
        const lines = lastLines(file, TAIL_BYTES);
        if (lines.length === 0) return undefined;
        const first = rowBehind(file, 0)?.row;
        const tail = lines.slice(-SPEED_ROWS).map(rowOf);
        const last = tail.at(-1);
        if (first === undefined || last === undefined)
          throw damaged(`${stage}.jsonl has a line that is not a row of metrics`);
        if (numberIn(last, 'step') === undefined) throw damaged(`${stage}.jsonl ends with a row without a step`);
        const spread = spreadRows(file, SAMPLES).map(({ row }) => row);
        return {
          stage,
          bytes: file.size,
          first,
          last,
          validation: rowOf(lastLineWith(file, '"validation/loss":', VALIDATION_BYTES) ?? ''),
          ...speedOf(tail),
          sparks: [...spread, last].flatMap((row) => {
            const [step, loss] = [numberIn(row, 'step'), numberIn(row, 'train/loss')];
            return step === undefined || loss === undefined ? [] : [[step, loss] as [number, number]];
          }),
        };
      }),
    );
  }

  #facts(run: Run): RunFacts {
    return this.#keep(run.folder.config, () => readFacts(run));
  }

  #startedAt(run: Run): number | undefined {
    return this.#keep(`${run.folder.events}#first`, () =>
      withFile(run.folder.events, run.within, (file) => numberIn(rowBehind(file, 0)?.row, 'time')),
    );
  }

  /** A value made from one file, kept until the file changes. What was thrown is kept, too. */
  #keep<T>(key: string, make: () => T): T {
    const seen = stampOf(key.replace(/#first$/, ''));
    // The beginning of a file that only grows stays.
    const stamp = key.endsWith('#first') ? String(seen !== undefined) : `${seen?.size} ${seen?.mtimeMs}`;
    const kept = this.#kept.get(key);
    if (kept?.stamp === stamp) return kept.value() as T;
    let value: () => T;
    try {
      const made = make();
      value = () => made;
    } catch (error) {
      value = () => {
        throw error;
      };
    }
    if (this.#kept.size >= MOST_KEPT) this.#kept.clear();
    this.#kept.set(key, { stamp, value });
    return value();
  }
}

function progressOf(ends: StageEnds[], facts: RunFacts | undefined, isRunning: boolean) {
  const end = ends.at(-1);
  const before = ends.slice(0, -1);
  const stepOf = (one: StageEnds) => numberIn(one.last, 'step') ?? 0;
  const step = ends.reduce((sum, one) => sum + stepOf(one), 0);
  const steps = Math.max(facts?.steps ?? 0, step);
  const tokens = ends.reduce((sum, one) => sum + (numberIn(one.last, 'train/tokens') ?? 0), 0);
  const loss = numberIn(end?.last, 'train/loss');
  const validation = numberIn(end?.validation ?? before.at(-1)?.validation, 'validation/loss');
  const timeLeft = end?.secondsPerStep === undefined ? undefined : (steps - step) * end.secondsPerStep;
  return {
    ...(end && { stage: end.stage }),
    step,
    steps,
    tokens,
    ...(isRunning && timeLeft !== undefined && { timeLeft }),
    ...(loss !== undefined && { loss }),
    ...(validation !== undefined && { validationLoss: validation }),
    ...(end?.tokensPerSecond !== undefined && { tokensPerSecond: end.tokensPerSecond }),
    sparkline: sparkline(ends),
  };
}

/** Of both stages together, as many of each as it has steps. */
function sparkline(ends: StageEnds[]): number[] {
  let before = 0;
  const points: [number, number][] = [];
  for (const { sparks, last } of ends) {
    points.push(...sparks.map(([at, loss]) => [before + at, loss] as [number, number]));
    before += numberIn(last, 'step') ?? 0;
  }
  const losses: number[] = [];
  for (const [at, loss] of points) {
    const slot = Math.min(SPARKS - 1, Math.floor((at / Math.max(1, before)) * SPARKS));
    losses[slot] = loss;
  }
  return losses.filter((loss) => loss !== undefined);
}

function speedOf(rows: (MetricsRow | undefined)[]): Pick<StageEnds, 'tokensPerSecond' | 'secondsPerStep'> {
  const speeds = rows.flatMap((row) => numberIn(row, 'train/tokens_per_s') ?? []);
  const [first, last] = [rows[0], rows.at(-1)];
  const steps = (numberIn(last, 'step') ?? 0) - (numberIn(first, 'step') ?? 0);
  const seconds = (numberIn(last, 'time/unix_s') ?? 0) - (numberIn(first, 'time/unix_s') ?? 0);
  return {
    tokensPerSecond: speeds.length > 0 ? speeds.reduce((sum, speed) => sum + speed, 0) / speeds.length : undefined,
    secondsPerStep: steps > 0 && seconds > 0 ? seconds / steps : undefined,
  };
}

function changedAt(run: Run): { changedAt?: number } {
  const { folder } = run;
  const files = [
    folder.config,
    folder.events,
    folder.status,
    folder.hardware,
    folder.log,
    folder.answers,
    ...STAGES.map((s) => folder.metricsFile(s)),
  ];
  const times = files.flatMap((path) => stampOf(path)?.mtimeMs ?? []);
  return times.length > 0 ? { changedAt: Math.max(...times) / 1000 } : {};
}
