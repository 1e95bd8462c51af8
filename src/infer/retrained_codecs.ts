/** Codecs of a damaged bank, trained again. */

import { latestCheckpoint, loadCheckpoint } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { dataPaths } from '../data/paths.ts';
import { ReferenceDataset } from '../data/references.ts';
import { Tokenizer } from '../data/tokenizer.ts';
import { openEngine } from '../engine/engine.ts';
import { faissAvailable } from '../engine/native/faiss.ts';
import { ignoreUserError } from '../errors.ts';
import type { RunFolder } from '../io/run_folder.ts';
import { trainCodecs } from '../memory/codec.ts';
import type { CodecDescriptions } from '../memory/codec_files.ts';
import { writeCodecSample } from '../memory/codec_training.ts';
import { growthPlan } from '../memory/growth.ts';
import { memoryLayout, type StoredCodecs } from '../memory/layout.ts';
import { Model } from '../model/model.ts';

/**
 * Trains codecs as `memory3 compile` did, with the last weights of each stage: the bank was made with those of one.
 * @returns undefined when none gives the same codecs, or something that it takes is not there
 */
export async function retrainedCodecs(
  config: RunConfig,
  folder: RunFolder,
  described: CodecDescriptions,
): Promise<StoredCodecs | undefined> {
  if (!faissAvailable().ok) return undefined;
  await openEngine(config.engine, config.threads, config.precision);
  for (const stage of ['warmup', 'continual'] as const) {
    const { newest } = await latestCheckpoint(folder.checkpoints(stage));
    if (newest === undefined) continue;
    const codecs = await trainedWith(newest.path, config, folder, described.keys.factory).catch(ignoreUserError);
    const { keys, values } = described;
    if (codecs?.keys.stateHash === keys.stateHash && codecs.values.stateHash === values.stateHash) return codecs;
  }
  return undefined;
}

async function trainedWith(
  checkpoint: string,
  config: RunConfig,
  folder: RunFolder,
  factory: string,
): Promise<StoredCodecs> {
  const paths = dataPaths(folder.data);
  const tokenizer = await Tokenizer.load(paths.tokenizer);
  const references = await ReferenceDataset.open(paths.references, { tokenizerHash: tokenizer.hash });
  const { parameters, state } = await loadCheckpoint(checkpoint, { optimizer: false });
  const model = new Model(state.modelConfig, new Map([...parameters].map(([name, { data }]) => [name, data])));
  try {
    const { memory, seed, continual } = config;
    const layout = memoryLayout(config.model, memory);
    const plan = growthPlan(continual.growth, references.size, seed);
    const prefix = tokenizer.referencePrefix;
    const sample = await writeCodecSample(model, references, { prefix, memory, layout, plan, seed });
    return await trainCodecs(factory, layout.headDim, sample.train);
  } finally {
    model.dispose();
  }
}
