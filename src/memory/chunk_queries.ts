/**
 * The attention queries of chunks of text, as the encoders of keys search with them.
 *
 * Legend: n chunks, Lmem memory layers, K key-value heads, D head dimension.
 */

import { encodeQueries } from '../model/encode_queries.ts';
import type { Model } from '../model/model.ts';
import type { ChunkQueries } from './encoders/encoder.ts';
import { readingPositions } from './reading.ts';
import { BATCH_TOKENS, padded, type WriteOptions } from './write.ts';

/**
 * Encodes chunks at the positions at which text is read, behind the interval of the memories, in passes of at most
 * `batchTokens`.
 * @returns a function that gives [n, Lmem, K, D]
 */
export function chunkQueries(model: Model, options: WriteOptions): ChunkQueries {
  const { memoryLayers, kvHeads, headDim } = model.shape;
  const width = memoryLayers * kvHeads * headDim;
  return async (chunks) => {
    const out = new Float32Array(chunks.length * width);
    const longest = Math.max(0, ...chunks.map((chunk) => chunk.length)) + options.prefix.length;
    const atOnce = Math.max(1, Math.floor((options.batchTokens ?? BATCH_TOKENS) / longest));
    for (let from = 0; from < chunks.length; from += atOnce) {
      const queries = await onePass(model, chunks.slice(from, from + atOnce), options);
      out.set(queries, from * width);
    }
    return out;
  };
}

async function onePass(
  model: Model,
  chunks: readonly Int32Array[],
  { prefix, memory }: WriteOptions,
): Promise<Float32Array> {
  const { memoryLayers, kvHeads, headDim } = model.shape;
  const { ids, lengths } = padded(chunks, prefix);
  const textLength = ids.length / chunks.length - prefix.length;
  const positions = readingPositions(prefix.length, textLength, memory.referenceTokens);
  const queries = encodeQueries(model, ids, lengths, { prefixLength: prefix.length, positions });
  const part = kvHeads * headDim;
  const out = new Float32Array(chunks.length * memoryLayers * part);
  try {
    for (const [layer, tensor] of queries.entries()) {
      const data = await tensor.data<'float32'>();
      for (let chunk = 0; chunk < chunks.length; chunk++) {
        out.set(data.subarray(chunk * part, (chunk + 1) * part), (chunk * memoryLayers + layer) * part);
      }
    }
  } finally {
    for (const tensor of queries) tensor.dispose();
  }
  return out;
}
