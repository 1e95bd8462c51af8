/** The answers about one run that come from its rows, events and log. */

import { eventSchema, type RunEvent } from '../tracking/events.ts';
import { type Media, rowOf } from '../tracking/values.ts';
import type { Axis, RunDetail } from './api.ts';
import type { Indexes } from './indexes.ts';
import { damaged, refusalOf } from './refused.ts';
import { lastLines, numberIn, spreadRows } from './rows.ts';
import { readSmall, stampOf, withFile } from './run_file.ts';
import type { Run } from './runs.ts';
import { offsetsOf } from './series.ts';
import { AXIS_KEYS, StageRows } from './stage_rows.ts';
import type { Summaries } from './summary.ts';

const AXES: readonly Axis[] = ['step', 'tokens', 'time'];
/** Not drawn: they are axes, or say which stage a row is of. */
const NOT_DRAWN = ['step', 'time/unix_s'];
const EVENT_BYTES = 4 * 2 ** 20;
const LOG_BYTES = 2 ** 20;

export function runDetail(run: Run, summaries: Summaries, indexes: Indexes): RunDetail {
  const summary = summaries.summary(run);
  let problem = summary.problem;
  const attempt = <T>(work: () => T, otherwise: T): T => {
    try {
      return work();
    } catch (error) {
      problem ??= refusalOf(error, run.folder.root).message;
      return otherwise;
    }
  };
  const nothing = { keys: [] as string[], media: [] as RunDetail['media'], indexed: 0 };
  const found = attempt(() => rowNames(run, indexes), nothing);
  const status = attempt(() => summaries.status(run), undefined);
  const detail = {
    ...summary,
    ...found,
    hardwareKeys: attempt(() => hardwareKeys(run), []),
    ...(status && { status }),
    summary: attempt(() => finalValues(run), {}),
    hasBank: stampOf(`${run.folder.bank}/CURRENT`) !== undefined,
    hasAnswers: (stampOf(run.folder.answers)?.size ?? 0) > 0,
  };
  return problem === undefined ? detail : { ...detail, problem };
}

function rowNames(run: Run, indexes: Indexes): Pick<RunDetail, 'keys' | 'media' | 'indexed' | 'switch'> {
  return StageRows.with(run, indexes, (stages) => {
    const keys = new Set<string>();
    const media = new Map<string, string>();
    for (const stage of stages) {
      const names = stage.names();
      for (const key of names.keys) keys.add(key);
      for (const [key, type] of names.media) media.set(key, type);
    }
    for (const key of NOT_DRAWN) keys.delete(key);
    const bytes = stages.reduce((sum, { file }) => sum + file.size, 0);
    const known = stages.reduce((sum, stage) => sum + (stage.isWhole ? stage.file.size : stage.indexedBytes), 0);
    return {
      keys: [...keys].sort(),
      media: [...media].sort().map(([key, type]) => ({ key, type: type as Media['type'] })),
      indexed: bytes === 0 ? 1 : known / bytes,
      ...(stages.length > 1 && { switch: switchOf(stages) }),
    };
  });
}

/** Where the rows of the second stage begin. */
function switchOf(stages: StageRows[]): Record<Axis, number> {
  const offsets = offsetsOf(stages)[1]!;
  const first = stages[1]?.first;
  const at = (axis: Axis) => [axis, (numberIn(first, AXIS_KEYS[axis]) ?? 0) + offsets[axis]];
  return Object.fromEntries(AXES.map(at)) as Record<Axis, number>;
}

function hardwareKeys(run: Run): string[] {
  const keys = withFile(run.folder.hardware, run.within, (file) => {
    const rows = spreadRows(file, 8).map(({ row }) => row);
    return [
      ...new Set(
        rows.flatMap((row) => Object.keys(row).filter((key) => key !== 'time' && numberIn(row, key) !== undefined)),
      ),
    ];
  });
  return (keys ?? []).sort();
}

function finalValues(run: Run): Record<string, unknown> {
  const text = readSmall(run.folder.summary, run.within);
  if (text === undefined) return {};
  const values = rowOf(text);
  if (values === undefined) throw damaged('summary.json is not valid');
  return values;
}

/** The newest events, oldest first. A line that is none is left out. */
export function newestEvents(run: Run, limit: number): RunEvent[] {
  const lines = withFile(run.folder.events, run.within, (file) => lastLines(file, Math.min(EVENT_BYTES, file.size)));
  const events: RunEvent[] = [];
  for (let i = (lines?.length ?? 0) - 1; i >= 0 && events.length < limit; i--) events.push(...eventsOf([lines![i]!]));
  return events.reverse();
}

export function eventsOf(lines: readonly string[]): RunEvent[] {
  return lines.flatMap((line) => {
    const parsed = eventSchema.safeParse(rowOf(line));
    return parsed.success ? [parsed.data] : [];
  });
}

/** The last lines of the log. */
export function logTail(run: Run, count: number): string[] {
  const lines = withFile(run.folder.log, run.within, (file) => lastLines(file, Math.min(LOG_BYTES, count * 200)));
  return (lines ?? []).slice(-count);
}
