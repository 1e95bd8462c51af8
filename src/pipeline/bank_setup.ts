/** The bank's identity and retrieval encoder, as the configuration asks for them. */

import type { RunConfig } from '../config/schema.ts';
import type { ReferenceDataset } from '../data/references.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { decodeChunk } from '../data/tokenizer.ts';
import { chunkQueries } from '../memory/chunk_queries.ts';
import { type RetrievalEncoder, storedEncoder } from '../memory/encoders/encoder.ts';
import { newEncoder, restoreEncoder } from '../memory/encoders/registry.ts';
import { type BankIdentity, memoryLayout, modelKey } from '../memory/layout.ts';
import type { Model } from '../model/model.ts';
import type { ModelShape } from '../model/shape.ts';

/** References read at once when the encoder counts their tokens. */
const BATCH = 1024;

export function bankIdentity(
  config: RunConfig,
  shape: ModelShape,
  tokenizer: Tokenizer,
  encoder: RetrievalEncoder,
): BankIdentity {
  return {
    modelKey: modelKey(shape, config.memory),
    tokenizerHash: tokenizer.hash,
    layout: memoryLayout(config.model, config.memory),
    storage: config.memory.storage,
    encoder: storedEncoder(encoder),
  };
}

/**
 * The encoder that a bank was made with, or a new one as `retrieval.encoder` says.
 * @param bank identity of a bank that exists
 */
export async function makeEncoder(
  config: RunConfig,
  model: Model,
  tokenizer: Tokenizer,
  references: ReferenceDataset,
  bank?: BankIdentity,
): Promise<RetrievalEncoder> {
  const queries = chunkQueries(model, { prefix: tokenizer.referencePrefix, memory: config.memory });
  const context = {
    layout: memoryLayout(config.model, config.memory),
    queries,
    decode: decodeChunk(tokenizer),
    config,
  };
  if (bank) return restoreEncoder(bank.encoder, context);
  return await newEncoder(context, tokensOf(references));
}

async function* tokensOf(references: ReferenceDataset): AsyncGenerator<Int32Array> {
  for await (const batch of references.batches(BATCH)) for (const { tokens } of batch) yield tokens;
}
