/** Which run of Weights & Biases a run folder is. */

import { randomInt } from 'node:crypto';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { ignoreUserError, isSystemError, UserError } from '../../errors.ts';
import { readJson, writeJsonAtomic } from '../../io/files.ts';
import { RunFolder, STAGES } from '../../io/run_folder.ts';
import { readMetrics } from '../metrics_file.ts';
import type { TrackedRun } from '../sink.ts';
import type { RunAbout } from './records.ts';

const identitySchema = z.looseObject({
  version: z.literal(1),
  id: z.string().regex(/^[a-z0-9]{8}$/),
  /** Seconds since 1970. */
  startedAt: z.number(),
});
/** What `<run>/metrics/wandb.json` holds. */
export type Identity = z.infer<typeof identitySchema>;

const ID_LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789';

/**
 * The identity of a run, made and kept at the first call.
 * @param anew a new one, which is not kept: that of a copy, of the same begin
 * @throws UserError file_corrupt
 */
export async function identify(root: string, anew = false): Promise<Identity> {
  const folder = new RunFolder(root);
  const path = join(folder.metrics, 'wandb.json');
  const known = anew ? await readIdentity(path).catch(ignoreUserError) : await readIdentity(path);
  if (known !== undefined && !anew) return known;
  const id = Array.from({ length: 8 }, () => ID_LETTERS[randomInt(ID_LETTERS.length)]).join('');
  // Rows that a killed command made again have later times than those that the run began with.
  const startedAt = known?.startedAt ?? (await firstTime(folder)) ?? Date.now() / 1000;
  const identity: Identity = { version: 1, id, startedAt };
  if (!anew) await writeJsonAtomic(path, identity);
  return identity;
}

async function readIdentity(path: string): Promise<Identity | undefined> {
  const action = 'restore the file, or delete it, for a new run at Weights & Biases';
  let value: unknown;
  try {
    value = await readJson(path, action);
  } catch (error) {
    if (error instanceof UserError && error.code === 'artefact_missing') return undefined;
    throw error;
  }
  const parsed = identitySchema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UserError('file_corrupt', { where: path, what: 'it is not the identity of a run', action });
}

/** When the first row of the run was written. */
async function firstTime(folder: RunFolder): Promise<number | undefined> {
  for (const stage of STAGES) {
    try {
      for await (const row of readMetrics(folder.metricsFile(stage))) {
        const time = row['time/unix_s'];
        if (typeof time === 'number') return time;
        break;
      }
    } catch (error) {
      // A damaged file is told about by whoever reads its rows.
      if (!(error instanceof UserError) && !isSystemError(error)) throw error;
    }
  }
  return undefined;
}

/** What the service is told of a run. WANDB_ENTITY and WANDB_PROJECT go before the configuration. */
export function aboutRun({ config }: TrackedRun, { id, startedAt }: Identity, env = process.env): RunAbout {
  const { entity, project, group, tags, notes } = config.tracking.wandb;
  return {
    id,
    entity: env.WANDB_ENTITY || entity,
    project: env.WANDB_PROJECT || project,
    config: Object.fromEntries(Object.entries(config).map(([name, value]) => [name, JSON.stringify(value ?? null)])),
    group,
    displayName: config.name,
    notes,
    tags,
    host: hostname(),
    platform: `${process.platform}-${process.arch}`,
    startedAt,
  };
}
