import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type RunConfig, runSchema } from '../../../src/config/schema.ts';

/** When the runs of the tests began, in seconds since 1970. */
export const STARTED = 1_700_000_000;
export const ID = 'abc12345';

export function configOf(wandb: object = {}): RunConfig {
  return runSchema.parse({
    name: 'tracked',
    data: { sources: [{ path: 'texts' }] },
    tracking: { sinks: ['wandb'], wandb },
  });
}

/** A run folder whose identity is known. */
export function makeRun(root: string): string {
  mkdirSync(join(root, 'metrics'), { recursive: true });
  writeFileSync(join(root, 'metrics/wandb.json'), JSON.stringify({ version: 1, id: ID, startedAt: STARTED }));
  return root;
}
