/** The whole pipeline of a run. Every stage keeps what is there already, so the same command begins and continues a run. */

import type { RunConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { configuredQuestions } from '../eval/evaluate.ts';
import { drawLosses, writeReport } from './report.ts';
import { buildRunData, compile, continual, type StageOptions, showFinished, warmup } from './stages.ts';
import { withWorkspace } from './workspace.ts';

/**
 * Data, warmup, compile, continual, the bank written anew with the final weights, evaluation (paper §3, §5, §6).
 * @returns the exit status: 0, or that of the signal that stopped it after a checkpoint
 */
export function runPipeline(config: RunConfig, options: StageOptions): Promise<number> {
  const started = performance.now();
  return withWorkspace(config, { ...options, command: 'run' }, async (workspace) => {
    // Questions that cannot be read are better known now than after the training.
    if (config.evaluation.questions !== undefined) await configuredQuestions(config);
    if (config.data.references.length === 0) throw noReferences();
    await buildRunData(workspace);
    if (workspace.stop.requested) return;
    if (!(await warmup(workspace, options.resume))) return;
    if (!(await continual(workspace, options.resume))) return;
    await compile(workspace, { stage: 'continual' });
    if (workspace.stop.requested) return;
    await drawLosses(workspace);
    if (config.evaluation.questions === undefined) return;
    await writeReport(workspace, () => (performance.now() - started) / 1000);
  });
}

function noReferences(): UserError {
  return new UserError('config_invalid', {
    where: 'data.references',
    what: 'there is nothing to write as memories',
    action: 'name at least one corpus; for stage one alone use `memory3 data build` and `memory3 warmup`',
  });
}

/** `memory3 eval`. @returns the exit status */
export function runEvaluation(config: RunConfig, options: { acceptChanges?: boolean }): Promise<number> {
  const started = performance.now();
  return withWorkspace(config, { ...options, command: 'eval' }, async (workspace) => {
    await showFinished(workspace);
    await writeReport(workspace, () => (performance.now() - started) / 1000);
  });
}
