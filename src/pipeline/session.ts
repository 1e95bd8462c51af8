/** A run opened for answering. */

import type { RunConfig } from '../config/schema.ts';
import { Session } from '../infer/session.ts';
import { runFolder, startEngine } from './workspace.ts';

/** Starts the engine and opens the newest model of a run, or the checkpoint named. */
export async function openSession(
  config: RunConfig,
  options: { checkpoint?: string; memory?: boolean } = {},
): Promise<Session> {
  await startEngine(config);
  return await Session.open(config, runFolder(config), options);
}
