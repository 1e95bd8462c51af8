/** Where a stage starts: at step 0, or at a checkpoint that fits the run. */

import { type Checkpoint, latestCheckpoint, listCheckpoints, loadCheckpoint } from '../checkpoint/checkpoint.ts';
import type { NamedArray } from '../checkpoint/safetensors.ts';
import { UserError } from '../errors.ts';
import type { RunFolder } from '../io/run_folder.ts';
import type { ModelShape } from '../model/shape.ts';
import type { TrainingState } from './loop.ts';
import type { Provenance } from './record.ts';
import type { StageName } from './stage.ts';

/**
 * The checkpoint that a stage goes on from.
 * @param resume `auto`: the newest valid one, if any; `never`: none may exist; anything else is a path
 * @throws UserError input_invalid for `never` in a run that has begun; file_corrupt when all are damaged, or that of a
 * damaged checkpoint given by path
 */
export async function findCheckpoint(
  folder: RunFolder,
  stage: StageName,
  resume: string,
  say: (message: string) => void,
): Promise<Checkpoint | undefined> {
  const checkpoints = folder.checkpoints(stage);
  if (resume === 'never') {
    const [newest] = await listCheckpoints(checkpoints);
    if (newest === undefined) return undefined;
    throw new UserError('input_invalid', {
      where: newest.path,
      what: `the ${stage} stage of this run has begun already`,
      action: 'choose another name for the new run, or --resume auto to go on',
    });
  }
  if (resume !== 'auto') return await stageCheckpoint(resume, stage);
  const { newest, invalid } = await latestCheckpoint(checkpoints);
  for (const { error } of invalid) say(`passed over a damaged checkpoint: ${error.message}`);
  if (newest !== undefined) return await loadCheckpoint(newest.path);
  if (invalid.length > 0) throw nothingWhole(checkpoints, stage);
  return undefined;
}

/** Starting anew would delete the damaged checkpoints, which somebody may still want to repair. */
function nothingWhole(checkpoints: string, stage: StageName): UserError {
  return new UserError('file_corrupt', {
    where: checkpoints,
    what: `every checkpoint of the ${stage} stage is damaged`,
    action: 'restore one from a copy, or delete the folder to start the stage anew',
  });
}

async function stageCheckpoint(path: string, stage: StageName): Promise<Checkpoint> {
  const checkpoint = await loadCheckpoint(path);
  if (checkpoint.state.stage === stage) return checkpoint;
  throw new UserError('artefact_mismatch', {
    where: path,
    what: `this is a checkpoint of the ${checkpoint.state.stage} stage, not of ${stage}`,
    action: `give a checkpoint of ${stage}`,
  });
}

/** @throws UserError artefact_mismatch when the checkpoint was made with another tokenizer, dataset or model */
export function requireFit({ path, state }: Checkpoint, shape: ModelShape, provenance: Partial<Provenance>): void {
  const differences: string[] = [];
  if (provenance.tokenizerHash !== undefined && state.tokenizerHash !== provenance.tokenizerHash) {
    differences.push(`tokenizer ${short(state.tokenizerHash)}, the run has ${short(provenance.tokenizerHash)}`);
  }
  if (provenance.datasetHash !== undefined && state.datasetHash !== provenance.datasetHash) {
    differences.push(`dataset ${short(state.datasetHash)}, the run has ${short(provenance.datasetHash)}`);
  }
  for (const key of Object.keys(shape) as (keyof ModelShape)[]) {
    const [saved, wanted] = [state.modelConfig[key], shape[key]];
    if (saved !== wanted) differences.push(`model.${key} ${saved}, the run has ${wanted}`);
  }
  if (differences.length === 0) return;
  throw new UserError('artefact_mismatch', {
    where: path,
    what: `the checkpoint was made with ${differences.join('; ')}`,
    action: 'use the configuration and data that it was made with, or start a run of another name',
  });
}

function short(hash: string): string {
  return hash.slice(0, 12);
}

/** The values of a checkpoint's parameters. */
export function weightValues(parameters: ReadonlyMap<string, NamedArray>): Map<string, Float32Array> {
  return new Map([...parameters].map(([name, { data }]) => [name, data]));
}

/** The counters of the loop at a checkpoint, or at the start. */
export function trainingState(checkpoint: Checkpoint | undefined): TrainingState {
  if (checkpoint === undefined) return { step: 0, tokensSeen: 0, best: undefined };
  const { step, tokensSeen, bestValidation } = checkpoint.state;
  return { step, tokensSeen, best: bestValidation };
}
