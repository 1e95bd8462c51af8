/** A run opened for answering. */

import type { RunConfig } from '../config/schema.ts';
import { Session } from '../infer/session.ts';
import { Progress } from '../tracking/progress.ts';
import { runFolder, say, startEngine } from './workspace.ts';

export interface SessionOptions {
  checkpoint?: string;
  memory?: boolean;
  /** Answers also write references that the bank lacks. */
  cold?: boolean;
}

/** Starts the engine and opens the newest model of a run, or the checkpoint named. */
export async function openSession(config: RunConfig, options: SessionOptions = {}): Promise<Session> {
  await startEngine(config);
  const session = await Session.open(config, runFolder(config), options);
  const progress = vectorProgress();
  try {
    if (options.cold && session.hasMemory) await session.startCold({ say, onProgress: progress.update });
    return session;
  } catch (error) {
    await session.close();
    throw error;
  } finally {
    progress.stop();
  }
}

/** Shows how far the vectors of the references are, when they have to be made. */
export function vectorProgress(): { update: (done: number, total: number) => void; stop: () => void } {
  let progress: Progress | undefined;
  return {
    update: (done, total) => {
      progress ??= new Progress({ label: 'vectors of the references', total, unit: 'references' });
      progress.update(done);
    },
    stop: () => progress?.stop(),
  };
}
