/** A run opened for answering, or for changes to its bank. */

import type { RunConfig } from '../config/schema.ts';
import { Session } from '../infer/session.ts';
import { lockRunFolder } from '../io/run_folder.ts';
import { runFolder, startEngine } from './workspace.ts';

/** Starts the engine and opens the newest model of a run, or the checkpoint named. */
export async function openSession(
  config: RunConfig,
  options: { checkpoint?: string; memory?: boolean } = {},
): Promise<Session> {
  await startEngine(config);
  return await Session.open(config, runFolder(config), options);
}

/** Opens a run so that its bank can be changed: it is locked meanwhile. @throws UserError run_locked */
export async function withBankEditor(config: RunConfig, work: (session: Session) => Promise<void>): Promise<void> {
  const lock = await lockRunFolder(runFolder(config).root);
  try {
    const session = await openSession(config);
    try {
      await work(session);
    } finally {
      await session.close();
    }
  } finally {
    lock.release();
  }
}
