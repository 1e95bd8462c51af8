/**
 * Texts as batches of token ids for an encoder, and the vectors of tokens as vectors of texts.
 *
 * Legend: n texts, L tokens of the longest text of a batch, d dimensions.
 */

/** Tokens of one batch at most, padding included; a single longer text is a batch of its own. */
const BATCH_TOKENS = 4096;

export interface TokenBatch {
  /** Numbers of the texts, in the order of the rows. */
  texts: number[];
  /** Tokens of each that are real, [n]. */
  lengths: number[];
  /** [n, L], at least one column. */
  shape: [number, number];
  /** Token ids, padded at the end, [n, L]. */
  ids: Int32Array;
  /** 1 for a real token, 0 for padding, [n, L]. */
  mask: Int32Array;
}

/** Cuts texts into batches of similar length, so that little padding is computed. */
export function tokenBatches(texts: readonly ArrayLike<number>[], pad: number, limit = BATCH_TOKENS): TokenBatch[] {
  const order = texts.map((_, text) => text).sort((a, b) => texts[a]!.length - texts[b]!.length || a - b);
  const batches: number[][] = [];
  for (const text of order) {
    const last = batches.at(-1);
    if (last !== undefined && (last.length + 1) * texts[text]!.length <= limit) last.push(text);
    else batches.push([text]);
  }
  return batches.map((batch) => padTogether(batch, texts, pad));
}

function padTogether(batch: number[], texts: readonly ArrayLike<number>[], pad: number): TokenBatch {
  const lengths = batch.map((text) => texts[text]!.length);
  const longest = Math.max(1, ...lengths);
  const ids = new Int32Array(batch.length * longest).fill(pad);
  const mask = new Int32Array(batch.length * longest);
  batch.forEach((text, row) => {
    ids.set(texts[text]!, row * longest);
    mask.fill(1, row * longest, row * longest + lengths[row]!);
  });
  return { texts: batch, lengths, shape: [batch.length, longest], ids, mask };
}

/**
 * One vector a text from the vectors of its tokens.
 * @param hidden [n, L, d]
 * @param pooling `cls`: that of the first token; `mean`: the mean over the real tokens
 * @returns [n, d]; zeros for a text without tokens
 */
export function pooled(
  hidden: Float32Array,
  { lengths, shape: [count, longest] }: Pick<TokenBatch, 'lengths' | 'shape'>,
  pooling: 'cls' | 'mean',
): Float32Array {
  const d = hidden.length / (count * longest);
  const out = new Float32Array(count * d);
  for (let text = 0; text < count; text++) {
    const counted = pooling === 'cls' ? Math.min(1, lengths[text]!) : lengths[text]!;
    for (let token = 0; token < counted; token++) {
      const from = (text * longest + token) * d;
      for (let i = 0; i < d; i++) out[text * d + i]! += hidden[from + i]! / counted;
    }
  }
  return out;
}
