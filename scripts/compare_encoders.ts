/**
 * How often each retrieval encoder finds the right memory of a question, over all references of a run, with its newest
 * model. Run: npx tsx scripts/compare_encoders.ts <config.yaml> [--set key=value …]
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../src/config/load.ts';
import { retrievalSchema } from '../src/config/schema.ts';
import { dataPaths } from '../src/data/paths.ts';
import { type Reference, ReferenceDataset } from '../src/data/references.ts';
import { openEngine } from '../src/engine/engine.ts';
import { configuredQuestions } from '../src/eval/evaluate.ts';
import { Session } from '../src/infer/session.ts';
import { RunFolder } from '../src/io/run_folder.ts';
import { Bank } from '../src/memory/bank.ts';
import { cutChunks, Retriever } from '../src/memory/retrieve.ts';
import { compileReferences } from '../src/memory/write.ts';
import { bankIdentity, makeEncoder } from '../src/pipeline/bank_setup.ts';

const RANKS = [1, 5, 64];

async function main([path = '', ...rest]: string[]): Promise<void> {
  const { config } = await loadConfig(path, { set: rest.filter((word) => word !== '--set') });
  await openEngine(config.engine, config.threads, config.precision);
  const folder = new RunFolder(join(config.runsFolder, config.name));
  const session = await Session.open(config, folder, { memory: false });
  const { model, tokenizer } = session;
  const references = await ReferenceDataset.open(dataPaths(folder.data).references);
  const prefix = tokenizer.referencePrefix;
  async function* all(): AsyncGenerator<Reference> {
    for await (const batch of references.batches(1024)) yield* batch;
  }
  const documents = new Map<string, string>();
  for await (const { id, document } of all()) documents.set(id, document);
  const known = new Set(documents.values());
  const questions = (await configuredQuestions(config)).filter(({ reference }) => known.has(reference));
  const prompts = await tokenizer.encodeBatch(questions.map(({ prompt }) => prompt));
  // As evaluation asks: the chunk in which the prompt ends.
  const asked = prompts.map((ids) => Int32Array.of(tokenizer.bos, ...ids));
  const queries = asked.map((ids) => cutChunks(ids, config.memory.chunkLength).at(-1) ?? ids);
  console.log(`${questions.length} questions, ${references.size} references, ${config.memory.keptTokens} tokens kept`);
  for (const encoder of retrievalSchema.shape.encoder.unwrap().options) {
    if (encoder === 'onnx' && config.retrieval.onnx === undefined) continue;
    const kind = { ...config, retrieval: { ...config.retrieval, encoder } };
    const bankFolder = await mkdtemp(join(tmpdir(), 'memory3-encoders-'));
    try {
      const made = await makeEncoder(kind, model, tokenizer, references);
      const writer = await Bank.create(bankFolder, bankIdentity(kind, model.shape, tokenizer, made));
      const memories = compileReferences(model, all(), { prefix, memory: config.memory, encoder: made });
      await writer.append(memories, session.weightsHash);
      const bank = await Bank.open(bankFolder);
      const found = await (await Retriever.fromBank(bank, made)).search(queries, Math.max(...RANKS));
      await bank.close();
      const share = (rank: number): string => {
        const right = questions.filter(({ reference }, i) =>
          found[i]!.slice(0, rank).some(({ id }) => documents.get(id) === reference),
        );
        return `${rank}: ${((100 * right.length) / questions.length).toFixed(1)} %`;
      };
      console.log(`${encoder.padEnd(12)} right memory among ${RANKS.map(share).join(', ')}`);
    } finally {
      await rm(bankFolder, { recursive: true, force: true });
    }
  }
  await session.close();
}

await main(process.argv.slice(2));
