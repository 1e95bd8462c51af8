/** The heartbeat of a run: written by the process that works on it, judged by whoever looks. */

import { rename, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { ignoreUserError, UserError } from '../errors.ts';
import { readJson, temporaryName } from '../io/files.ts';

export const statusSchema = z.looseObject({
  version: z.literal(1),
  /** `running` until the command ends; one that was killed stays so, and its beat stops. */
  state: z.enum(['running', 'finished', 'stopped', 'failed']),
  /** `warmup`, `compile`, `run`, … */
  command: z.string(),
  pid: z.int(),
  /** Host name. */
  host: z.string(),
  /** Seconds since 1970. */
  startedAt: z.number(),
  beatAt: z.number(),
  sinks: z.array(
    z.looseObject({
      name: z.string(),
      /** Where a person looks at it. */
      place: z.string(),
      /** Last step that it took; −1: none yet. */
      step: z.int(),
      /** Rows that wait in the files. */
      waiting: z.int(),
      /** Failures since it last took something, and the last one. */
      failures: z.int(),
      error: z.string().optional(),
    }),
  ),
});
export type RunStatus = z.infer<typeof statusSchema>;

/** Seconds between two beats, and without one after which a run counts as crashed. */
export const BEAT = { every: 5, crashedAfter: 30 };

export type RunState = RunStatus['state'] | 'crashed' | 'unknown';

/** What became of a run; `unknown` for one that has never beaten. */
export function judgeState(status: RunStatus | undefined, now = Date.now() / 1000): RunState {
  if (status === undefined) return 'unknown';
  return status.state === 'running' && now - status.beatAt > BEAT.crashedAfter ? 'crashed' : status.state;
}

/** The status for people, a fact a line. */
export function describeStatus(status: RunStatus | undefined, now = Date.now() / 1000): string {
  const state = judgeState(status, now);
  if (status === undefined) return 'state: unknown, no command has worked on the run yet';
  const { command, pid, host, startedAt, beatAt, sinks } = status;
  const begun = new Date(startedAt * 1000).toISOString();
  return [
    `state: ${state}`,
    `command: memory3 ${command}, process ${pid} on ${host}, since ${begun}`,
    `last beat: ${Math.max(0, Math.round(now - beatAt))} s ago`,
    ...(sinks.length === 0 ? ['sinks: none'] : sinks.map(describeSink)),
  ].join('\n');
}

function describeSink({ name, place, step, waiting, failures, error }: RunStatus['sinks'][number]): string {
  const held = step < 0 ? 'no step yet' : `up to step ${step}`;
  const trouble = error === undefined ? '' : `; failed ${failures} times in a row: ${error}`;
  return `sink ${name}: ${held}, ${waiting} rows wait${place === '' ? '' : `, ${place}`}${trouble}`;
}

/** Replaces the file in one step. It need not survive a power cut: a beat that is lost was one. */
export async function writeStatus(path: string, status: RunStatus): Promise<void> {
  const temporary = temporaryName(path);
  await writeFile(temporary, `${JSON.stringify(status)}\n`);
  await rename(temporary, path);
}

/** @returns undefined when there is none. @throws UserError file_corrupt */
export async function readStatus(path: string): Promise<RunStatus | undefined> {
  const action = 'delete the file; the next command on the run writes it again';
  let value: unknown;
  try {
    value = await readJson(path, action);
  } catch (error) {
    if (error instanceof UserError && error.code === 'file_corrupt') throw error;
    return ignoreUserError(error);
  }
  const parsed = statusSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UserError('file_corrupt', { where: path, what: 'it is not the status of a run', action });
}
