/** The sink of Weights & Biases, in the mode that the configuration names. */

import type { Sink, SinkOptions, TrackedRun } from '../sink.ts';
import { OfflineSink } from './offline.ts';

export async function makeWandbSink(run: TrackedRun, options: SinkOptions): Promise<Sink> {
  if (run.config.tracking.wandb.mode === 'offline') return new OfflineSink(run, options);
  const { OnlineSink } = await import('./online.ts');
  return new OnlineSink(run, options);
}
