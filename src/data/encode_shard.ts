/** From a shard of documents to a shard of tokens for each split. */

import { z } from 'zod';
import { writeJsonAtomic } from '../io/files.ts';
import type { ArrowFileEntry } from './arrow_file.ts';
import { readDocumentShard } from './document_shards.ts';
import { inGroups } from './groups.ts';
import { documentKey, splitOf } from './split.ts';
import { SPLITS, type Split, TokenShardWriter, tokenSplitSchema } from './token_dataset.ts';
import { Tokenizer } from './tokenizer.ts';

export interface EncodeSetup {
  /** Path and hash of the `tokenizer.json`. */
  tokenizer: string;
  tokenizerHash: string;
  seed: number;
  validationShare: number;
}

export interface EncodeJob {
  /** Where the documents are. */
  folder: string;
  documents: ArrowFileEntry;
  /** The file to write for each split. */
  paths: Record<Split, string>;
  /** Every document takes a multiple of so many tokens, filled up with padding. */
  alignment: number;
  /** A JSON file for the result, written last: a build that goes on uses it again. */
  record: string;
}

export const encodeResultSchema = z.strictObject({ train: tokenSplitSchema, validation: tokenSplitSchema });
export type EncodeResult = z.infer<typeof encodeResultSchema>;

/** The tokenizer of this thread. */
let loaded: { hash: string; tokenizer: Promise<Tokenizer> } | undefined;

/**
 * Encodes every document of the shard and writes it to its split.
 * @throws UserError when the shard or the tokenizer is damaged, disk_full
 */
export async function encodeShard(setup: EncodeSetup, job: EncodeJob): Promise<EncodeResult> {
  const hash = setup.tokenizerHash;
  if (loaded?.hash !== hash) loaded = { hash, tokenizer: Tokenizer.load(setup.tokenizer) };
  const tokenizer = await loaded.tokenizer;
  const writers = {
    train: new TokenShardWriter(job.paths.train, tokenizer.vocabSize),
    validation: new TokenShardWriter(job.paths.validation, tokenizer.vocabSize),
  };
  try {
    for await (const group of inGroups(readDocumentShard(job.folder, job.documents))) {
      const encoded = await tokenizer.encodeBatch(group.map(({ text }) => text));
      for (const [i, document] of group.entries()) {
        const split = splitOf(documentKey(document.text), setup.seed, setup.validationShare);
        await writers[split].append(document, documentTokens(tokenizer, encoded[i]!, job.alignment));
      }
    }
    const result = { train: await writers.train.close(), validation: await writers.validation.close() };
    await writeJsonAtomic(job.record, result);
    return result;
  } catch (error) {
    for (const split of SPLITS) await writers[split].abort();
    throw error;
  }
}

/** The tokens of a document from its begin of text on, filled up to a multiple of `alignment`. */
function documentTokens({ bos, pad }: Tokenizer, ids: Int32Array, alignment: number): Int32Array {
  const length = Math.ceil((1 + ids.length) / alignment) * alignment;
  const tokens = new Int32Array(length).fill(pad, 1 + ids.length);
  tokens[0] = bos;
  tokens.set(ids, 1);
  return tokens;
}
