/** What knowledge costs in a run. */

import { type CostReport, costReport } from '../analysis/cost_report.ts';
import { costShape } from '../analysis/costs.ts';
import { trainingShape, waysOfTraining } from '../analysis/device_memory.ts';
import type { RunConfig } from '../config/schema.ts';
import { dataPaths } from '../data/paths.ts';
import { Tokenizer } from '../data/tokenizer.ts';
import { exists } from '../io/files.ts';
import { runFolder } from './workspace.ts';

/** The costs of a run's shape; of its vocabulary as it is once the tokenizer was made, before as it is to be. */
export async function runCosts(config: RunConfig, uses?: number): Promise<CostReport> {
  const { tokenizer } = dataPaths(runFolder(config).data);
  const tokens = (await exists(tokenizer)) ? (await Tokenizer.load(tokenizer)).vocabSize : undefined;
  const training = waysOfTraining(trainingShape(config, 'warmup', tokens), trainingShape(config, 'continual', tokens));
  return costReport(config.name, costShape(config, tokens), training, uses);
}
