/** Which version of a run's bank its model reads. */

import type { CheckpointState } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { Bank } from '../memory/bank.ts';
import { modelKey, type ReaderIdentity } from '../memory/layout.ts';

/** What a checkpoint can read. */
export interface BankReader {
  accepted: ReaderIdentity;
  /** The version that the checkpoint was trained to read next. */
  version: number | undefined;
}

export function bankReader(state: CheckpointState, config: RunConfig): BankReader {
  const { modelConfig, tokenizerHash, weightsHash, bankWriters = [], bankVersion } = state;
  const accepted = {
    modelKey: modelKey(modelConfig, config.memory),
    tokenizerHash,
    writers: [weightsHash, ...bankWriters],
  };
  return { accepted, version: bankVersion === undefined ? undefined : Number(bankVersion) };
}

/**
 * The current version; when later weights wrote it, as in a run that was killed, the one the checkpoint names.
 * @throws UserError artefact_missing without a bank, artefact_mismatch when it is of other weights
 */
export async function openReadable(folder: string, { accepted: identity, version }: BankReader): Promise<Bank> {
  try {
    return await Bank.open(folder, { identity });
  } catch (error) {
    const isForeign = error instanceof UserError && error.code === 'artefact_mismatch';
    if (!isForeign || version === undefined) throw error;
    return await Bank.open(folder, { identity, version });
  }
}
