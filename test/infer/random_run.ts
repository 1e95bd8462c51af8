/** A run folder that was never trained: a small corpus, random weights as its checkpoint, all references in its bank. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { saveCheckpoint } from '../../src/checkpoint/checkpoint.ts';
import { type RunConfig, runSchema } from '../../src/config/schema.ts';
import { modelHash } from '../../src/continual/training_bank.ts';
import { buildData } from '../../src/data/build.ts';
import { dataPaths } from '../../src/data/paths.ts';
import { ReferenceDataset } from '../../src/data/references.ts';
import { Tokenizer } from '../../src/data/tokenizer.ts';
import { openEngine } from '../../src/engine/engine.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import { Bank } from '../../src/memory/bank.ts';
import { storedEncoder } from '../../src/memory/encoders/encoder.ts';
import { LexicalEncoder } from '../../src/memory/encoders/lexical.ts';
import { memoryLayout, modelKey, type StoredCodecs } from '../../src/memory/layout.ts';
import { compileReferences } from '../../src/memory/write.ts';
import { Model } from '../../src/model/model.ts';
import { initParameters, type ModelShape, parameterShapes } from '../../src/model/shape.ts';
import { openText, type TrainingText } from '../../src/train/text_batches.ts';
import { collect, source, temporaryFolder } from '../data/support.ts';

/** Weights so large that every token and memory moves the scores. */
const MODEL = {
  ...{ numLayers: 3, hiddenSize: 24, numHeads: 4, kvHeads: 2, headDim: 6, mlpWidth: 32, memoryLayers: 2 },
  ...{ initStd: 0.4, embeddingStd: 1 },
};

/** Fact number `i`: about its own name. */
export const fact = (i: number): { id: string; text: string; title: string } => {
  const name = `${'bdfgklmnpr'[i % 10]}a${'bdfgklmnpr'[Math.floor(i / 10)]}o`;
  return { id: `e${i}`, title: name, text: `${name} has color ${'aeiou'[i % 5]}l${'aeiou'[Math.floor(i / 5) % 5]}.` };
};

export interface RandomRun extends TrainingText {
  config: RunConfig;
  folder: RunFolder;
  model: Model;
  tokenizer: Tokenizer;
  references: ReferenceDataset;
}

/** @param changes laid over the configuration of the run */
export async function randomRun(changes: Record<string, object> = {}): Promise<RandomRun> {
  await openEngine('cpu', 1);
  const root = temporaryFolder();
  const facts = Array.from({ length: 30 }, (_, i) => fact(i));
  const path = join(root, 'facts.jsonl');
  writeFileSync(path, facts.map((record) => `${JSON.stringify(record)}\n`).join(''));
  const config = runSchema.parse({
    name: 'random',
    runsFolder: root,
    ...changes,
    data: {
      ...{ sources: [source(path)], references: [source(path)], tokenizer: { vocabSize: 280 } },
      ...{ sequenceLength: 32, validationShare: 0.3 },
    },
    model: MODEL,
    memory: { referenceTokens: 24, keptTokens: 4, chunkLength: 8, memoriesPerChunk: 2, ...changes.memory },
    retrieval: { dimensions: 128, ...changes.retrieval },
  });
  const folder = new RunFolder(join(root, 'random'));
  await buildData(config.data, config.memory, folder.data, config.seed);
  const paths = dataPaths(folder.data);
  const tokenizer = await Tokenizer.load(paths.tokenizer);
  const shape = { ...config.model, vocabSize: tokenizer.vocabSize };
  const run = {
    ...{ config, folder, tokenizer, model: new Model(shape, initParameters(shape, 5)) },
    ...(await openText(paths.tokens, config.data.sources)),
    references: await ReferenceDataset.open(paths.references),
  };
  await saveRandom(run, shape);
  return run;
}

async function saveRandom({ config, folder, tokenizer, model }: RandomRun, shape: ModelShape): Promise<void> {
  const shapes = parameterShapes(shape);
  const weights = await model.weights();
  await saveCheckpoint(folder.checkpoints('continual'), 1, {
    parameters: new Map([...weights].map(([name, data]) => [name, { shape: shapes.get(name) ?? [], data }])),
    optimizer: new Map(),
    state: {
      ...{ stage: 'continual', tokensSeen: 0, modelConfig: shape, tokenizerHash: tokenizer.hash, datasetHash: 'd' },
      ...{ metricsRows: {}, bankWriters: [], config },
    },
  });
}

/** Writes the first `count` references (all of them by default) into a new bank, as codes when there are codecs. */
export async function writeBank(
  { config, folder, model, tokenizer, references }: RandomRun,
  count = references.size,
  codecs?: StoredCodecs,
): Promise<void> {
  const all = (await collect(references.batches(references.size))).flat();
  const encoder = await LexicalEncoder.fit(
    all.map(({ tokens }) => tokens),
    config.retrieval.dimensions,
  );
  const writer = await Bank.create(folder.bank, {
    modelKey: modelKey(model.shape, config.memory),
    tokenizerHash: tokenizer.hash,
    layout: memoryLayout(config.model, config.memory),
    storage: 'float32',
    codecs,
    encoder: storedEncoder(encoder),
  });
  const options = { prefix: tokenizer.referencePrefix, memory: config.memory, encoder };
  await writer.append(compileReferences(model, all.slice(0, count), options), await modelHash(model));
}
