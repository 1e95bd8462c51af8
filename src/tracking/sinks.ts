/** The sinks that a configuration names. */

import type { RunConfig } from '../config/schema.ts';
import type { SinkState } from './follower.ts';
import type { Sink, SinkName, SinkOptions, TrackedRun } from './sink.ts';

type Maker = (run: TrackedRun, options: SinkOptions) => Promise<Sink>;

/** Loaded when they are wanted. */
const MAKERS: Partial<Record<SinkName, Maker>> = {
  wandb: async (run, options) => (await import('./wandb/wandb.ts')).makeWandbSink(run, options),
  tensorboard: async (run, options) => (await import('./tensorboard/sink.ts')).makeTensorboardSink(run, options),
  csv: async (run, options) => (await import('./csv.ts')).makeCsvSink(run, options),
};

export async function makeSink(name: SinkName, run: TrackedRun, options: SinkOptions = {}): Promise<Sink> {
  const make = MAKERS[name];
  if (make === undefined) throw new Error(`there is no sink ${name}`);
  return await make(run, options);
}

/** The sinks of a configuration, and those that could not be made, with the reason. */
export async function makeSinks(
  root: string,
  config: RunConfig,
  options: SinkOptions,
): Promise<{ sinks: Sink[]; unmade: SinkState[] }> {
  const made: { sinks: Sink[]; unmade: SinkState[] } = { sinks: [], unmade: [] };
  for (const name of new Set(config.tracking.sinks)) {
    try {
      made.sinks.push(await makeSink(name, { root, config }, options));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      made.unmade.push({ name, place: '', step: -1, waiting: 0, failures: 1, error: message });
    }
  }
  return made;
}
