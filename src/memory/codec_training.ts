/** Memories that codecs are trained on: written by the model before there is a bank to take them from. */

import type { MemoryConfig } from '../config/schema.ts';
import type { ReferenceDataset } from '../data/references.ts';
import type { Model } from '../model/model.ts';
import { CodecSample, sampledMemories } from './codec.ts';
import type { GrowthPlan } from './growth.ts';
import type { MemoryLayout } from './layout.ts';
import { type ReferenceText, type WriteOptions, writeMemories } from './write.ts';

export interface CodecSampleOptions extends WriteOptions {
  memory: MemoryConfig;
  layout: MemoryLayout;
  /** A random order of the references: the first of them are a uniform sample. */
  plan: GrowthPlan;
  seed: number;
  /** Called before each reference; what it throws ends the work. */
  beforeEach?: () => void;
}

/**
 * Keys and values of the first references of the plan. The same weights, references and seed give the same vectors.
 * @throws UserError when the references are damaged
 */
export async function writeCodecSample(
  model: Model,
  references: ReferenceDataset,
  options: CodecSampleOptions,
): Promise<CodecSample> {
  const { layout, seed } = options;
  const sample = new CodecSample(layout, seed);
  const numbers = new Map<string, number>();
  for await (const { records, rows } of writeMemories(model, firstReferences(references, options, numbers), options)) {
    const places = records.map(({ id }) => numbers.get(id) ?? 0);
    const keptLengths = records.map(({ keptLength }) => keptLength);
    sample.add(places, rows, keptLengths);
  }
  return sample;
}

/** The references, whose places are noted in `numbers`: they are written in another order. */
async function* firstReferences(
  references: ReferenceDataset,
  { plan, layout, memory, beforeEach }: CodecSampleOptions,
  numbers: Map<string, number>,
): AsyncGenerator<ReferenceText> {
  const count = Math.min(references.size, sampledMemories(layout));
  let place = 0;
  for await (const reference of references.inOrder(plan.referencesAt(0, count), memory.contextTokens)) {
    beforeEach?.();
    numbers.set(reference.id, place++);
    yield reference;
  }
}
