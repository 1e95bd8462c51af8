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
import type { RetrievalEncoder } from './encoders/encoder.ts';
import { keptCount, type MemoryBatch, type MemoryLayout, type MemoryRecord, rowLength } from './layout.ts';

/** A reference before it is written. */
export interface ReferenceText extends Omit<MemoryRecord, 'kept' | 'keptLength'> {
  /** Token ids of the document in front of the reference, which is written as it follows them; alone when left out. */
  context?: Int32Array;
}

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

/** What a pass takes by default. */
export const BATCH_TOKENS = 4096;
/** References that are sorted by length together, so that little padding is computed. The groups do not depend on each other. */
export const SORTED_TOGETHER = 512;
/** Texts are padded to a multiple of this, so that few shapes occur. */
const PAD_LENGTH = 8;

const NO_CONTEXT = new Int32Array(0);

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
    const texts = records.map((record) => record.text);
    yield { records, rows, vectors: await options.encoder.encodeReferences({ texts, tokens, rows, keptLengths }) };
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
    const contexts = batch.map(({ context }) => context ?? NO_CONTEXT);
    const { rows, kept, keptLengths } = await writeTexts(model, tokens, options, contexts);
    const width = kept.length / batch.length;
    const records = batch.map(({ context: _, ...reference }, i) => ({
      ...reference,
      kept: kept.slice(i * width, (i + 1) * width),
      keptLength: keptLengths[i]!,
    }));
    yield { records, rows };
  }
}

/**
 * Writes texts in one pass through the model, without gradient.
 * @param contexts what stands in front of each text, see `ReferenceText`
 */
export async function writeTexts(
  model: Model,
  texts: readonly Int32Array[],
  options: WriteOptions,
  contexts: readonly Int32Array[] = [],
): Promise<WrittenTexts> {
  const { prefix, memory } = options;
  const inContext = contexts.some((context) => context.length > 0);
  const { ids, lengths } = padded(inContext ? texts.map((text, i) => joined(contexts[i]!, text)) : texts, prefix);
  const encoded = encodeReferences(model, ids, lengths, {
    prefixLength: prefix.length,
    keptTokens: memory.keptTokens,
    tokenScores: memory.tokenScores,
    ...(inContext && { contextLengths: contexts.map((context) => context.length) }),
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

function joined(context: Int32Array, text: Int32Array): Int32Array {
  const all = new Int32Array(context.length + text.length);
  all.set(context);
  all.set(text, context.length);
  return all;
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
  const sorted = references.toSorted((a, b) => readTokens(a) - readTokens(b));
  let batch: ReferenceText[] = [];
  for (const reference of sorted) {
    const width = options.prefix.length + readTokens(reference);
    if (batch.length > 0 && (batch.length + 1) * width > limit) {
      yield batch;
      batch = [];
    }
    batch.push(reference);
  }
  if (batch.length > 0) yield batch;
}

/** Tokens of a reference with its context. */
function readTokens({ context = NO_CONTEXT, tokens }: ReferenceText): number {
  return context.length + tokens.length;
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
