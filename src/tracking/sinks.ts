/** The sinks that a configuration names. */

import type { RunConfig } from '../config/schema.ts';
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

export function makeSinks(root: string, config: RunConfig, options: SinkOptions): Promise<Sink[]> {
  return Promise.all(config.tracking.sinks.map((name) => makeSink(name, { root, config }, options)));
}
