/** What knowledge costs in each format, for the shape of a run's model (paper, Figure 4). */

import { costShape, FORMATS, formatCosts, memoryIsCheapest, totalsOver } from '../analysis/costs.ts';
import type { CostAnswer } from './api.ts';
import { damaged } from './refused.ts';
import { readRunConfig } from './run_config.ts';
import { readSmall } from './run_file.ts';
import type { Run } from './runs.ts';

const POINTS = 200;
/** Uses that are drawn at least: 10^−1 to 10^6. */
const DECADES = [-1, 6] as const;
const LARGEST_TOKENIZER = 64 * 2 ** 20;

/** @throws Refused when the configuration is damaged */
export function costAnswer(run: Run): CostAnswer {
  const config = readRunConfig(run);
  const shape = costShape(config, config.model.vocabSize ?? tokenizerSize(run));
  const costs = formatCosts(shape);
  const { from, to } = memoryIsCheapest(shape);
  const last = Number.isFinite(to) ? Math.max(DECADES[1], Math.ceil(Math.log10(Math.max(1, to))) + 1) : DECADES[1];
  const uses = Array.from({ length: POINTS }, (_, i) => 10 ** (DECADES[0] + ((last - DECADES[0]) * i) / (POINTS - 1)));
  return {
    formats: FORMATS.map((name) => ({ name, ...costs[name] })),
    cheapest: { from, to: Number.isFinite(to) ? to : null },
    uses,
    totals: totalsOver(costs, uses),
  };
}

/** Rows of the embedding that the run's tokenizer needs. */
function tokenizerSize(run: Run): number {
  const text = readSmall(`${run.folder.data}/tokenizer.json`, run.within, LARGEST_TOKENIZER);
  if (text === undefined) throw damaged('the size of the vocabulary is not known: the run has no tokenizer.json yet');
  try {
    const { model, added_tokens: added = [] } = JSON.parse(text) as {
      model: { vocab: Record<string, number> | unknown[] };
      added_tokens?: { id: number }[];
    };
    const ids = Array.isArray(model.vocab) ? [model.vocab.length - 1] : Object.values(model.vocab);
    const largest = [...ids, ...added.map(({ id }) => id)].reduce((most, id) => Math.max(most, id), 0);
    if (Number.isInteger(largest)) return largest + 1;
  } catch {
    // Told below.
  }
  throw damaged('tokenizer.json is not valid');
}
