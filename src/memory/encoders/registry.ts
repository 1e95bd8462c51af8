/** The retrieval encoders by name: a new one as the configuration says, or the one that a bank was made with. */

import type { RunConfig } from '../../config/schema.ts';
import { UserError } from '../../errors.ts';
import type { MemoryLayout, StoredEncoder } from '../layout.ts';
import type { ChunkQueries, DecodeChunk, RetrievalEncoder } from './encoder.ts';
import { KeysEncoder, KeysMultiEncoder } from './keys.ts';
import { LexicalEncoder } from './lexical.ts';
import { OnnxEncoder, type OnnxFiles } from './onnx.ts';
import { UseLiteEncoder, useLitePackages } from './use_lite.ts';

/** What encoders work with besides what is stored of them; each is called when it is needed. */
export interface EncoderContext {
  layout: MemoryLayout;
  /** Attention queries of chunks, by the model that reads the memories. */
  queries: ChunkQueries;
  /** For encoders of text. */
  decode: DecodeChunk;
  /** Which encoder a new bank gets, where the files of one are, and how many threads compute. */
  config: Pick<RunConfig, 'retrieval' | 'threads'>;
}

/**
 * A new encoder as `retrieval.encoder` says.
 * @param references token ids of the references that the bank is for
 * @throws UserError config_invalid when the encoder needs packages that are not installed; see `OnnxEncoder.create`
 */
export async function newEncoder(
  { layout, queries, decode, config }: EncoderContext,
  references: AsyncIterable<Int32Array>,
): Promise<RetrievalEncoder> {
  const { encoder, dimensions } = config.retrieval;
  if (encoder === 'keys') return new KeysEncoder(layout, queries);
  if (encoder === 'keys-multi') return new KeysMultiEncoder(layout, queries);
  if (encoder === 'onnx') return await OnnxEncoder.create(config, decode);
  if (encoder === 'use-lite') {
    // Says now, not after the first batch, that they are missing.
    useLitePackages();
    return new UseLiteEncoder(decode);
  }
  return await LexicalEncoder.fit(references, dimensions);
}

/**
 * The encoder that a bank was made with.
 * @throws UserError version_unsupported for an encoder this program does not know, artefact_missing when its files are
 * not configured
 */
export function restoreEncoder(stored: StoredEncoder, context: EncoderContext): RetrievalEncoder {
  const { layout, queries, decode, config } = context;
  const { kind, documents } = stored.description;
  if (kind === 'lexical' && typeof documents === 'number') {
    return LexicalEncoder.restore(stored.dimensions, documents, stored.state);
  }
  if (kind === 'keys') return new KeysEncoder(layout, queries);
  if (kind === 'keys-multi') return new KeysMultiEncoder(layout, queries);
  if (kind === 'use-lite') return new UseLiteEncoder(decode);
  if (kind === 'onnx') return OnnxEncoder.restore(stored, onnxFiles(config), decode);
  throw new UserError('version_unsupported', {
    what: `the bank was made with the retrieval encoder ${JSON.stringify(kind)}, which this program does not know`,
    action: 'delete the bank folder and run `memory3 compile`',
  });
}

function onnxFiles({ retrieval, threads }: EncoderContext['config']): OnnxFiles | undefined {
  return retrieval.onnx && { ...retrieval.onnx, threads };
}
