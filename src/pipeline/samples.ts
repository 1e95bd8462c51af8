/** Texts that a model in training gives, for the record. */

import type { RunConfig } from '../config/schema.ts';
import type { TrainingBank } from '../continual/training_bank.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { generate } from '../infer/generate.ts';
import type { Model } from '../model/model.ts';

/**
 * Goes on from a prompt with the weights as they are then, the likeliest token each time; with a bank each chunk reads the
 * memories of the version that the training reads.
 */
export function sampler(
  config: RunConfig,
  tokenizer: Tokenizer,
  model: Model,
  bank?: TrainingBank,
): (prompt: string) => Promise<string> {
  const { maxTokens } = config.tracking.samples;
  const options = { maxTokens, temperature: 0, topP: 1, stop: config.generate.stop, seed: config.seed };
  return async (prompt) => {
    const memories = bank && { search: await bank.retriever(), store: bank.bank };
    const { text } = await generate({ config, tokenizer, model, ...memories }, prompt, {
      ...options,
      memory: !!memories,
    });
    return text;
  };
}
