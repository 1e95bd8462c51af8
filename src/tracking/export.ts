/** A sink made again from the files of a run, whether or not somebody writes them meanwhile. */

import { readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { makeFolder, replaceFolder, syncFolder, temporaryName } from '../io/files.ts';
import { RunFolder, type StageName } from '../io/run_folder.ts';
import { csvPath } from './csv.ts';
import { Follower } from './follower.ts';
import { Progress } from './progress.ts';
import { lastRow, lastStep } from './run_rows.ts';
import type { Ending, SinkName } from './sink.ts';
import { makeSink } from './sinks.ts';
import { judgeState, readStatus } from './status.ts';
import { isTensorboardName, tensorboardFolder } from './tensorboard/sink.ts';

/** Failures in a row after which an export over the network gives up. */
const MOST_FAILURES = 6;

export interface Exported {
  place: string;
  rows: number;
}

/**
 * Makes the sink `to` anew from a run. Files take their place when they are complete; W&B gets a new run.
 * @param out file or folder instead of the one in the run folder
 * @throws UserError artefact_missing for a run without rows, usage_invalid for a place that cannot be taken, export_failed,
 *   file_corrupt
 */
export async function exportRun(root: string, config: RunConfig, to: SinkName, out?: string): Promise<Exported> {
  const folder = new RunFolder(root);
  const stages = await stagesWithRows(folder);
  if (to === 'wandb') {
    if (out !== undefined) throw unusable(out, 'W&B decides where its runs lie', 'leave --out away');
    return await fill(folder, config, to, stages);
  }
  const target = resolve(out ?? (to === 'csv' ? csvPath(folder.root) : tensorboardFolder(folder.root)));
  if (out === undefined) await refuseIfFed(folder, to);
  await refuseIfForeign(target, to);
  const temporary = temporaryName(target);
  try {
    await makeFolder(dirname(target));
    await rm(temporary, { recursive: true, force: true });
    const { rows } = await fill(folder, config, to, stages, temporary);
    if (to === 'tensorboard') await replaceFolder(temporary, target);
    else await rename(temporary, target);
    await syncFolder(dirname(target));
    return { place: target, rows };
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw error instanceof UserError ? error : failed(to, target, error);
  }
}

/** Hands all rows, load, lines and final values to a new sink. */
async function fill(
  folder: RunFolder,
  config: RunConfig,
  to: SinkName,
  stages: readonly StageName[],
  path?: string,
): Promise<Exported> {
  const total = await lastStep(folder, stages);
  const sink = await makeSink(to, { root: folder.root, config }, { anew: true, path });
  const progress = new Progress({ label: `export to ${to}`, total, unit: 'rows' });
  let rows = 0;
  const onTaken = (taken: number): void => {
    rows += taken;
    progress.update(Math.min(rows, total));
  };
  const follower = new Follower(sink, folder, { fromStart: true, onTaken });
  try {
    follower.begin(stages);
    while (!(await follower.pump())) {
      const { failures, error } = follower.trouble;
      // The disk does not change its mind soon; a network may.
      if (path !== undefined || failures >= MOST_FAILURES) throw failed(to, sink.place, error);
      await sleep(500);
    }
    if (await follower.finish(await endingOf(folder))) return { place: sink.place, rows };
    throw failed(to, sink.place, follower.trouble.error);
  } finally {
    progress.stop();
    await sink.close().catch(() => undefined);
  }
}

/** Stage one is complete when stage two has rows. */
async function stagesWithRows(folder: RunFolder): Promise<readonly StageName[]> {
  if ((await lastRow(folder.metricsFile('continual'))) !== undefined) return ['warmup', 'continual'];
  if ((await lastRow(folder.metricsFile('warmup'))) !== undefined) return ['warmup'];
  throw new UserError('artefact_missing', {
    where: folder.metrics,
    what: 'the run has no rows of metrics',
    action: 'name the folder of a run that has begun to train',
  });
}

async function endingOf(folder: RunFolder): Promise<Ending> {
  const state = judgeState(await readStatus(folder.status).catch(() => undefined));
  return state === 'stopped' || state === 'failed' ? state : state === 'crashed' ? 'failed' : 'finished';
}

/** A command that writes into the sink would go on in the file that is replaced. */
async function refuseIfFed(folder: RunFolder, to: SinkName): Promise<void> {
  const status = await readStatus(folder.status).catch(() => undefined);
  if (judgeState(status) !== 'running' || !status?.sinks.some(({ name }) => name === to)) return;
  throw new UserError('run_locked', {
    where: folder.root,
    what: `process ${status.pid} on ${status.host} is writing the run and feeds ${to} itself`,
    action: 'name another place with --out, or wait for its end',
  });
}

/** Nothing that may be somebody's own is replaced. */
async function refuseIfForeign(target: string, to: SinkName): Promise<void> {
  const found = await stat(target).catch(() => undefined);
  if (found === undefined) return;
  if (to === 'csv') {
    if (found.isDirectory()) throw unusable(target, 'it is a folder', 'name a file, such as run.csv');
    return;
  }
  if (!found.isDirectory()) throw unusable(target, 'it is a file', 'name a folder');
  const foreign = (await readdir(target)).find((name) => !isTensorboardName(name));
  if (foreign !== undefined) throw unusable(target, `it holds other files, such as ${foreign}`, 'name a new folder');
}

function unusable(where: string, what: string, action: string): UserError {
  return new UserError('usage_invalid', { where: `--out ${where}`, what, action });
}

function failed(to: SinkName, where: string, cause: unknown): UserError {
  const what = cause instanceof Error ? cause.message : String(cause);
  return new UserError('export_failed', {
    where,
    what: `${to} does not take the run: ${what}`,
    action: 'nothing was replaced; mend the cause and export again',
    cause,
  });
}
