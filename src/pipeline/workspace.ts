/** A run opened for work: its folder locked, its configuration checked against the one it began with, an engine chosen. */

import { readFile } from 'node:fs/promises';
import { parse } from 'yaml';
import { configDifferences, resolvedConfigYaml } from '../config/load.ts';
import { type RunConfig, runSchema } from '../config/schema.ts';
import { dataPaths } from '../data/paths.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { openEngine } from '../engine/engine.ts';
import { isSystemError, UserError } from '../errors.ts';
import { exists, writeFileAtomic } from '../io/files.ts';
import { lockRunFolder, RunFolder } from '../io/run_folder.ts';
import type { ModelShape } from '../model/shape.ts';
import type { EventKind } from '../tracking/events.ts';
import { announce, listenToAnnouncements } from '../tracking/progress.ts';
import { RunTracker } from '../tracking/run_tracker.ts';
import type { Ending } from '../tracking/sink.ts';
import { TrackingService } from '../tracking/tracking_service.ts';
import { StopRequest } from '../train/stop.ts';

/** Parts of a configuration that may change between two commands on one run: they decide nothing that is trained. */
const FREE_TO_CHANGE =
  /^(generate|evaluation|tracking|threads|runsFolder)\b|\.(checkpointEvery|keepCheckpoints|prefetch)$|\.onnx\.(model|tokenizer)$/;

export interface Workspace {
  config: RunConfig;
  folder: RunFolder;
  stop: StopRequest;
  /** What the run records. */
  tracker: RunTracker;
  /** Name of the engine that computes. */
  engine: string;
  /** How it stores activations. */
  precision: string;
}

export interface OpenOptions {
  /** Name of the command, for the run's status. */
  command: string;
  /** Go on although the configuration differs from the one that the run began with. */
  acceptChanges?: boolean;
}

/** Messages go where the progress is shown, so that standard output holds results only. */
export const say = announce;

/** Says what somebody who looks at the run later should know too, and records it; a command that records nothing only says it. */
export function note({ tracker }: Partial<Pick<Workspace, 'tracker'>>, kind: EventKind, text: string): void {
  tracker?.event(kind, text);
  say(text);
}

/** The folder of a run. */
export function runFolder(config: RunConfig): RunFolder {
  return new RunFolder(`${config.runsFolder}/${config.name}`);
}

/**
 * Opens a run, does `work` and closes it again, also after an error.
 * @returns the exit status: that of `work`, or of the signal that stopped it
 * @throws UserError run_locked, or config_invalid when the run began with another configuration
 */
export async function withWorkspace(
  config: RunConfig,
  options: OpenOptions,
  work: (workspace: Workspace) => Promise<void>,
): Promise<number> {
  const folder = runFolder(config);
  const lock = await lockRunFolder(folder.root);
  const stop = new StopRequest(say);
  try {
    const cleaned = lock.cleaned.map((path) => `cleaned up after an interrupted process: ${path}`);
    for (const text of cleaned) say(text);
    await settleConfig(folder, config, options);
    return await tracked(folder, config, { ...options, stop }, async (tracker) => {
      for (const text of cleaned) tracker.event('warning', text);
      const started = await startEngine(config);
      await work({ config, folder, stop, tracker, ...started });
      return stop.exitCode;
    });
  } finally {
    stop.release();
    lock.release();
  }
}

/** Does `work` while the run is recorded and shown. */
async function tracked(
  folder: RunFolder,
  config: RunConfig,
  { command, stop }: { command: string; stop: StopRequest },
  work: (tracker: RunTracker) => Promise<number>,
): Promise<number> {
  const tracker = await RunTracker.open(folder, (stage, step) => service.beginStage(stage, step));
  const service = new TrackingService(folder, config, { command, say, onStop: (who) => stop.ask(who) });
  listenToAnnouncements((text) => tracker.line(text));
  let ending: Ending = 'failed';
  try {
    tracker.event('start', `memory3 ${command}`);
    const code = await work(tracker);
    ending = stop.requested ? 'stopped' : 'finished';
    tracker.event(stop.requested ? 'stop' : 'finish', `memory3 ${command} ${ending}`);
    return code;
  } catch (error) {
    recordError(tracker, error);
    throw error;
  } finally {
    try {
      await tracker.endStage();
    } finally {
      // Whatever fails here: its thread would keep the process alive.
      await service.end(ending);
      listenToAnnouncements(undefined);
    }
    await tracker.close();
  }
}

/** An error says more than that it could not be recorded. */
function recordError(tracker: RunTracker, error: unknown): void {
  try {
    tracker.event('error', error instanceof Error ? error.message : String(error));
  } catch {
    // Told by whoever ends the command.
  }
}

/** Starts the engine that the configuration names and says which and why. */
export async function startEngine(config: RunConfig): Promise<Pick<Workspace, 'engine' | 'precision'>> {
  const { name, precision, reason } = await openEngine(config.engine, config.threads, config.precision);
  say(`engine: ${name}, ${precision} (${reason})`);
  return { engine: name, precision };
}

/** Saves the resolved configuration with the run, or checks that it is still the same. */
async function settleConfig(folder: RunFolder, config: RunConfig, { acceptChanges }: OpenOptions): Promise<void> {
  // Before any data is built nothing depends on the configuration yet.
  const saved = (await exists(dataPaths(folder.data).build)) ? await savedConfig(folder) : undefined;
  if (saved !== undefined && acceptChanges !== true) {
    const changed = configDifferences(saved, config).filter((path) => !FREE_TO_CHANGE.test(path));
    if (changed.length > 0) {
      throw new UserError('config_invalid', {
        where: folder.config,
        what: `the run began with other values of: ${changed.join(', ')}`,
        action: 'choose another name for the new run, or give --accept-changes to go on with the new values',
      });
    }
  }
  const yaml = resolvedConfigYaml(config);
  await writeFileAtomic(folder.config, yaml);
}

/** The configuration that the run has; keys that it does not know, for they came later, have their defaults. */
async function savedConfig(folder: RunFolder): Promise<unknown> {
  try {
    const saved: unknown = parse(await readFile(folder.config, 'utf8'));
    const completed = runSchema.safeParse(saved);
    return completed.success ? completed.data : saved;
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return undefined;
    throw new UserError('file_corrupt', {
      where: folder.config,
      what: 'the saved configuration cannot be read',
      action: 'delete this file; it is written again',
      cause: error,
    });
  }
}

/** The model's shape with the vocabulary of the tokenizer. @throws UserError config_invalid when it does not hold it */
export function modelShape(config: RunConfig, tokenizer: Tokenizer): ModelShape {
  const vocabSize = config.model.vocabSize ?? tokenizer.vocabSize;
  if (vocabSize < tokenizer.vocabSize) {
    throw new UserError('config_invalid', {
      where: 'model.vocabSize',
      what: `${vocabSize} is less than the ${tokenizer.vocabSize} tokens of the tokenizer`,
      action: 'leave it out, or give at least the size of the tokenizer',
    });
  }
  return { ...config.model, vocabSize };
}
