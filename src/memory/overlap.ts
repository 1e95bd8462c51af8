/**
 * How much of a reference is in a text (paper §3.5): the longest common subsequence of text t and reference r whose
 * matches i_1 < … < i_N in t satisfy i_N − i_1 ≤ 2·|r|, divided by |r|.
 *
 * A common subsequence is computed bit-parallel, 32 reference positions a word (Hyyrö, "Bit-parallel LCS-length
 * computation revisited", 2004). Windows are searched by halving a range of window starts: the subsequence within the
 * union of the windows bounds them all from above, so whole ranges are discarded at once.
 */

const WORD_BITS = 32;

/** Positions of t that occur in r at all, and for each distinct token of r the bit mask of its places. */
class Matches {
  readonly words: number;
  /** Ascending positions in t. */
  readonly positions: number[] = [];
  /** For each of them, where its token's mask starts in `masks`. */
  readonly maskStarts: number[] = [];
  readonly masks: Uint32Array;
  #free: Uint32Array;

  constructor(text: Int32Array, reference: Int32Array) {
    this.words = Math.ceil(reference.length / WORD_BITS);
    this.masks = new Uint32Array(this.words * reference.length);
    this.#free = new Uint32Array(this.words);
    const startOf = new Map<number, number>();
    reference.forEach((token, place) => {
      const start = startOf.get(token) ?? startOf.size * this.words;
      startOf.set(token, start);
      const word = start + Math.floor(place / WORD_BITS);
      this.masks[word] = (this.masks[word] ?? 0) | (1 << (place % WORD_BITS));
    });
    text.forEach((token, position) => {
      const start = startOf.get(token);
      if (start === undefined) return;
      this.positions.push(position);
      this.maskStarts.push(start);
    });
  }

  /** Length of the longest common subsequence that uses matches [from, until) only. */
  commonLength(from: number, until: number): number {
    const { words, masks } = this;
    const free = this.#free.fill(0xffffffff);
    for (let match = from; match < until; match++) {
      const start = this.maskStarts[match]!;
      let carry = 0;
      for (let word = 0; word < words; word++) {
        const row = free[word]!;
        const used = (row & masks[start + word]!) >>> 0;
        const sum = row + used + carry;
        carry = sum > 0xffffffff ? 1 : 0;
        free[word] = sum | (row & ~masks[start + word]!);
      }
    }
    let length = 0;
    // Bits beyond the reference have no mask and stay set, so every cleared bit is a match.
    for (let word = 0; word < words; word++) length += countBits(~free[word]!);
    return length;
  }
}

function countBits(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The longest windowed subsequence if it is longer than `floor`, else `floor`; stops as soon as `enough` is reached. */
function longestWithin(matches: Matches, span: number, floor: number, enough: number): number {
  const { positions } = matches;
  /** First match that does not belong to the window that starts at match `first`. */
  const windowEnd = (first: number): number => {
    const limit = positions[first]! + span;
    let low = first + 1;
    let high = positions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (positions[middle]! <= limit) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  let best = floor;
  const ranges: [number, number][] = positions.length === 0 ? [] : [[0, positions.length]];
  for (let range = ranges.pop(); range !== undefined && best < enough; range = ranges.pop()) {
    const [from, until] = range;
    const end = windowEnd(until - 1);
    if (end - from <= best) continue;
    const bound = matches.commonLength(from, end);
    if (bound <= best) continue;
    if (positions[end - 1]! - positions[from]! <= span) {
      best = bound;
      continue;
    }
    const middle = (from + until) >>> 1;
    ranges.push([middle, until], [from, middle]);
  }
  return best;
}

/** overlap(t, r) in [0, 1]; 0 for an empty reference. */
export function overlap(text: Int32Array, reference: Int32Array): number {
  if (reference.length === 0) return 0;
  const matches = new Matches(text, reference);
  return longestWithin(matches, 2 * reference.length, 0, reference.length) / reference.length;
}

/** Whether overlap(t, r) > threshold; much faster than computing it, because most windows cannot reach the threshold. */
export function exceeds(text: Int32Array, reference: Int32Array, threshold: number): boolean {
  if (reference.length === 0) return false;
  let allowed = Math.min(reference.length, Math.floor(threshold * reference.length));
  // The product may be rounded; the definition compares the quotient.
  while (allowed > 0 && allowed / reference.length > threshold) allowed--;
  while ((allowed + 1) / reference.length <= threshold) allowed++;
  if (allowed >= reference.length) return false;
  const matches = new Matches(text, reference);
  return longestWithin(matches, 2 * reference.length, allowed, allowed + 1) > allowed;
}
