/** Where documents begin in a sequence of several. B sequences, T tokens. */

/**
 * For each token the place in its sequence of the last `bos` at or before it, 0 where there is none: the first token that
 * it attends to when it attends to its own document only. A document that began in the sequence before goes on from 0.
 * @param ids whole sequences, one behind the other, `[B, T]`
 * @param sequenceLength T
 * @param bos id of the token that begins a document
 * @returns `[B, T]`
 */
export function firstVisibleOf(ids: Int32Array, sequenceLength: number, bos: number): Int32Array {
  let begin = 0;
  return ids.map((id, i) => {
    const place = i % sequenceLength;
    if (place === 0 || id === bos) begin = place;
    return begin;
  });
}
