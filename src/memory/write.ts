/**
 * From references to memories: "compile" (paper §3.2, warm start).
 *
 * Legend: n references, L tokens of the longest with its prefix, Lmem memory layers, K key-value heads, S kept tokens,
 * D head dimension.
 */

import type { MemoryConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { type EncodedReferences, encodeReferences, keptPlaces } from '../model/encode.ts';
import type { Model } from '../model/model.ts';
import type { RetrievalEncoder, WriteTexts } from './encoders.ts';
import { keptCount, type MemoryBatch, type MemoryLayout, type MemoryRecord, rowLength } from './layout.ts';

/** A reference before it is written. */
export type ReferenceText = Omit<MemoryRecord, 'kept' | 'keptLength'>;

export interface WriteOptions {
  /** Token ids in front of every reference (`<s>Reference:`). */
  prefix: ArrayLike<number>;
  memory: Pick<MemoryConfig, 'referenceTokens' | 'keptTokens' | 'tokenScores'>;
  /** Tokens of one pass through the model, padding and prefix included. Default 4096. */
  batchTokens?: number;
}

export interface CompileOptions extends WriteOptions {
  encoder: RetrievalEncoder;
  /** Called after each batch with the references written so far. */
  onProgress?: (done: number) => void;
}

const BATCH_TOKENS = 4096;
/** References that are sorted by length together, so that little padding is computed. */
const SORTED_TOGETHER = 512;
/** Texts are padded to a multiple of this, so that few shapes occur. */
const PAD_LENGTH = 8;

interface WrittenTexts {
  /** [n, Lmem, 2, K, S, D] */
  rows: Float32Array;
  /** [n, Lmem, K, S] */
  kept: Int32Array;
  /** [n] */
  keptLengths: Int32Array;
}

/**
 * Writes references as they come, in batches of similar length; feed it to `BankWriter.append` or `replaceAll`. The
 * order of the memories differs from that of the references, and is the same each time.
 * @param references stay unread until they are needed
 * @throws UserError input_invalid or input_empty for a reference that is too long or has no tokens
 */
export async function* compileReferences(
  model: Model,
  references: AsyncIterable<ReferenceText> | Iterable<ReferenceText>,
  options: CompileOptions,
): AsyncGenerator<MemoryBatch> {
  let done = 0;
  for await (const { records, rows } of writeMemories(model, references, options)) {
    const tokens = records.map((record) => record.tokens);
    const keptLengths = records.map((record) => record.keptLength);
    yield { records, rows, vectors: options.encoder.encodeReferences({ tokens, rows, keptLengths }) };
    done += records.length;
    options.onProgress?.(done);
  }
}

/** As `compileReferences`, without retrieval vectors: what the current weights make of references. */
export async function* writeMemories(
  model: Model,
  references: AsyncIterable<ReferenceText> | Iterable<ReferenceText>,
  options: WriteOptions,
): AsyncGenerator<Omit<MemoryBatch, 'vectors'>> {
  for await (const batch of similarLengths(references, options)) {
    const tokens = batch.map((reference) => reference.tokens);
    const { rows, kept, keptLengths } = await writeTexts(model, tokens, options);
    const width = kept.length / batch.length;
    const records = batch.map((reference, i) => ({
      ...reference,
      kept: kept.slice(i * width, (i + 1) * width),
      keptLength: keptLengths[i]!,
    }));
    yield { records, rows };
  }
}

/** Writes texts in one pass through the model, without gradient. */
export async function writeTexts(
  model: Model,
  texts: readonly Int32Array[],
  options: WriteOptions,
): Promise<WrittenTexts> {
  const { prefix, memory } = options;
  const { ids, lengths } = padded(texts, prefix);
  const encoded = encodeReferences(model, ids, lengths, {
    prefixLength: prefix.length,
    keptTokens: memory.keptTokens,
    tokenScores: memory.tokenScores,
  });
  const { memoryLayers, kvHeads, headDim } = model.shape;
  const layout = { memoryLayers, kvHeads, keptTokens: memory.keptTokens, headDim };
  try {
    const kept = await keptPlaces(encoded, prefix.length);
    if (kept.length !== texts.length * keptCount(layout)) throw new RangeError(`${kept.length} kept positions`);
    return { rows: await packRows(encoded, layout, texts.length), kept, keptLengths: encoded.keptLengths };
  } finally {
    for (const tensor of [...encoded.keys, ...encoded.values, ...encoded.indices]) tensor.dispose();
  }
}

/** Writes query chunks for the `keys` encoder, in passes of at most `batchTokens`. */
export function textWriter(model: Model, options: WriteOptions): WriteTexts {
  return async (texts) => {
    const longest = Math.max(...texts.map((text) => text.length)) + options.prefix.length;
    const atOnce = Math.max(1, Math.floor((options.batchTokens ?? BATCH_TOKENS) / longest));
    const keptLengths: number[] = [];
    const parts: Float32Array[] = [];
    for (let from = 0; from < texts.length; from += atOnce) {
      const written = await writeTexts(model, texts.slice(from, from + atOnce), options);
      parts.push(written.rows);
      keptLengths.push(...written.keptLengths);
    }
    const rows = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((offset, part) => {
      rows.set(part, offset);
      return offset + part.length;
    }, 0);
    return { rows, keptLengths };
  };
}

/** Prefix and text in each row, [n, L], padded with 0 at the end, and the length of each, prefix included. */
export function padded(
  texts: readonly Int32Array[],
  prefix: ArrayLike<number>,
): { ids: Int32Array; lengths: number[] } {
  const lengths = texts.map((text) => prefix.length + text.length);
  const longest = Math.ceil(Math.max(...lengths) / PAD_LENGTH) * PAD_LENGTH;
  const ids = new Int32Array(texts.length * longest);
  texts.forEach((text, row) => {
    ids.set(prefix, row * longest);
    ids.set(text, row * longest + prefix.length);
  });
  return { ids, lengths };
}

/** Reads the tensors back into rows [n, Lmem, 2, K, S, D]. */
async function packRows(encoded: EncodedReferences, layout: MemoryLayout, count: number): Promise<Float32Array> {
  const width = rowLength(layout);
  const part = layout.kvHeads * layout.keptTokens * layout.headDim;
  const rows = new Float32Array(count * width);
  for (let layer = 0; layer < layout.memoryLayers; layer++) {
    for (const [keyOrValue, tensors] of [encoded.keys, encoded.values].entries()) {
      const data = await tensors[layer]!.data<'float32'>();
      for (let memory = 0; memory < count; memory++) {
        const from = data.subarray(memory * part, (memory + 1) * part);
        rows.set(from, memory * width + (2 * layer + keyOrValue) * part);
      }
    }
  }
  return rows;
}

/** Batches of references of similar length, each at most `batchTokens` when padded. */
async function* similarLengths(
  references: AsyncIterable<ReferenceText> | Iterable<ReferenceText>,
  options: WriteOptions,
): AsyncGenerator<ReferenceText[]> {
  let waiting: ReferenceText[] = [];
  for await (const reference of references) {
    checkLength(reference, options.memory.referenceTokens);
    waiting.push(reference);
    if (waiting.length === SORTED_TOGETHER) {
      yield* cutBatches(waiting, options);
      waiting = [];
    }
  }
  yield* cutBatches(waiting, options);
}

function* cutBatches(references: readonly ReferenceText[], options: WriteOptions): Generator<ReferenceText[]> {
  const limit = options.batchTokens ?? BATCH_TOKENS;
  const sorted = references.toSorted((a, b) => a.tokens.length - b.tokens.length);
  let batch: ReferenceText[] = [];
  for (const reference of sorted) {
    const width = options.prefix.length + reference.tokens.length;
    if (batch.length > 0 && (batch.length + 1) * width > limit) {
      yield batch;
      batch = [];
    }
    batch.push(reference);
  }
  if (batch.length > 0) yield batch;
}

function checkLength(reference: ReferenceText, longest: number): void {
  const { id, tokens } = reference;
  if (tokens.length === 0) throw new UserError('input_empty', { where: `reference ${id}`, what: 'it has no tokens' });
  if (tokens.length <= longest) return;
  const what = `it has ${tokens.length} tokens, a reference has at most ${longest}`;
  throw new UserError('input_invalid', {
    where: `reference ${id}`,
    what,
    action: 'cut the text into shorter references',
  });
}
