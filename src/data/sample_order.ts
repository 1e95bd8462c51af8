/**
 * Which training sequence is seen when: a mixture of sources by weight, each in a keyed permutation, any position computable
 * alone. T tokens of a sequence.
 */

import { PURPOSE, permute } from '../random.ts';
import type { TokenSegment } from './token_dataset.ts';

/** A source's part of the order. */
interface Part {
  name: string;
  /** Position of its first token in the stream. */
  start: number;
  /** Whole sequences that it holds. */
  sequences: number;
  /** How many of an epoch's sequences come from it. */
  perEpoch: number;
  /** The epoch's slots [firstSlot, firstSlot + perEpoch) are its own. */
  firstSlot: number;
}

/**
 * An epoch has as many sequences as the sources hold together. Without weights each is seen once in it. With weights, a
 * source gives exactly its share of the epoch (rounded by largest remainder), drawn round after round of all its sequences,
 * over epochs if need be; the rounds that begin in one epoch are shuffled together. So after every epoch each was seen as
 * often as any other, or once more. Pure functions of the position, so a resumed run or any number of ranks sees the same order.
 */
export class SampleOrder {
  readonly sequenceLength: number;
  /** Sequences of an epoch. */
  readonly numSamples: number;
  readonly parts: readonly Part[];

  /**
   * @param sequenceLength T; a sample is T tokens and one more for the last target, all of one source
   * @param weights of the sources by name, for all or for none of them
   */
  constructor(segments: readonly TokenSegment[], sequenceLength: number, weights?: ReadonlyMap<string, number>) {
    this.sequenceLength = sequenceLength;
    const sequences = segments.map(({ tokens }) => Math.max(0, Math.floor((tokens - 1) / sequenceLength)));
    this.numSamples = sequences.reduce((sum, count) => sum + count, 0);
    const shares = segments.map(({ name }, i) => (sequences[i] === 0 ? 0 : (weights?.get(name) ?? sequences[i]!)));
    const perEpoch = apportion(this.numSamples, shares);
    let firstSlot = 0;
    this.parts = segments.map(({ name, start }, i) => {
      const part = { name, start, sequences: sequences[i]!, perEpoch: perEpoch[i]!, firstSlot };
      firstSlot += part.perEpoch;
      return part;
    });
  }

  /**
   * Where the sequence at position `index` of the endless order begins in the stream.
   * @throws RangeError when there is no whole sequence
   */
  startAt(seed: number, index: number): number {
    if (this.numSamples === 0) throw new RangeError(`no sequence of ${this.sequenceLength} tokens and its last target`);
    const epoch = Math.floor(index / this.numSamples);
    const slot = permute(seed, PURPOSE.sampleOrder, epoch, index % this.numSamples, this.numSamples);
    const part = this.parts.findLast(({ firstSlot, perEpoch }) => perEpoch > 0 && firstSlot <= slot)!;
    const sequence = sequenceOf(part, seed, epoch, slot - part.firstSlot);
    return part.start + sequence * this.sequenceLength;
  }
}

/** Which of the source's own sequences its `turn`-th slot of an epoch shows. */
function sequenceOf({ name, sequences, perEpoch }: Part, seed: number, epoch: number, turn: number): number {
  // All of them in every epoch: the order of the slots is order enough.
  if (perEpoch === sequences) return turn;
  const drawn = epoch * perEpoch + turn;
  const round = Math.floor(drawn / sequences);
  return permute(seed + hashOf(name), PURPOSE.mixture, round, drawn % sequences, sequences);
}

/** FNV-1a, so that sources of the same size are not read in the same order. */
function hashOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 1;
}

/** `total` split into whole numbers in the ratio of `shares`: each its part rounded down, what is left to the largest remainders. */
function apportion(total: number, shares: readonly number[]): number[] {
  const sum = shares.reduce((a, b) => a + b, 0);
  if (sum === 0) return shares.map(() => 0);
  const exact = shares.map((share) => (total * share) / sum);
  const counts = exact.map(Math.floor);
  const left = total - counts.reduce((a, b) => a + b, 0);
  const byRemainder = exact
    .map((value, i) => ({ i, rest: value - counts[i]! }))
    .sort((a, b) => b.rest - a.rest || a.i - b.i);
  for (const { i } of byRemainder.slice(0, left)) counts[i]! += 1;
  return counts;
}
