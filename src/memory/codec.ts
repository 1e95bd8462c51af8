/**
 * Codecs of memories: the keys and values of heads as short codes of Faiss, with a loss (paper §7.1 and appendix B). One
 * codec is for all keys of a bank and one for all values.
 *
 * Legend: n memories or vectors, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import { FaissCodec, faissAvailable } from '../engine/native/faiss.ts';
import { UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { PURPOSE, randomInt } from '../random.ts';
import { keptCount, type MemoryLayout, rowLength, type StoredCodec, type StoredCodecs } from './layout.ts';

/** Keys, and values, that a codec is trained on: 256 for each of the 256 centroids that a byte numbers. */
const TRAINED_ON = 65_536;
const TESTED_ON = 8192;
/** Memories that the vectors come from, at least, as far as there are so many. */
const SAMPLED_MEMORIES = 2048;
/** One memory of so many is kept for the test. */
const TEST_EVERY = 16;

/**
 * The codec string that `memory.codec` asks for; undefined: none.
 * @throws UserError config_invalid without Faiss, or when Faiss makes no codec of the string for this head dimension
 */
export function chooseCodec(wanted: string | undefined, headDim: number, where = 'memory.codec'): string | undefined {
  if (wanted === undefined) return undefined;
  const faiss = faissAvailable();
  if (!faiss.ok) {
    const action = `install it, or leave ${where} out`;
    throw new UserError('config_invalid', { where, what: `${wanted} needs Faiss: ${faiss.why}`, action });
  }
  const factory = wanted === 'auto' ? automaticCodec(headDim) : wanted;
  try {
    if (FaissCodec.create(headDim, factory).codeBytes > 0) return factory;
  } catch (cause) {
    throw unfit(where, factory, headDim, (cause as Error).message.trim(), cause);
  }
  throw unfit(where, factory, headDim, 'it is an index, not a codec');
}

/**
 * A codec for vectors of `headDim` numbers. For small heads a residual quantiser, which lost least of what was measured
 * (docs/bank.md); for large ones the family of the paper, and at 80 its own.
 */
export function automaticCodec(headDim: number): string {
  if (headDim <= 32) return `RQ${Math.min(headDim / 2, 12)}x8`;
  if (headDim % 16 !== 0) return `PQ${headDim / 2}`;
  return `OPQ${headDim / 4}x${headDim}-Residual2x14-PQ${headDim <= 80 ? 8 : 16}x10`;
}

/** Codecs to compare with each other for vectors of `headDim` numbers, from many bytes to few. */
export function candidateCodecs(headDim: number): string[] {
  const quarters = headDim % 4 === 0 ? [`PQ${headDim / 4}`] : [];
  return [...new Set(['SQ8', 'SQ6', 'SQ4', `PQ${headDim / 2}`, ...quarters, automaticCodec(headDim)])];
}

function unfit(where: string, factory: string, headDim: number, why: string, cause?: unknown): UserError {
  return new UserError('config_invalid', {
    where,
    what: `Faiss cannot use ${factory} for heads of ${headDim} dimensions: ${why}`,
    action: 'choose another codec, or auto',
    cause,
  });
}

/**
 * Trains a codec for keys and one for values, on one thread: the same vectors give the same bytes.
 * @throws Error in Faiss's words, for example when there are fewer vectors than centroids
 */
export async function trainCodecs(factory: string, headDim: number, sample: KeyValueVectors): Promise<StoredCodecs> {
  const train = async (vectors: Float32Array): Promise<StoredCodec> => {
    const codec = FaissCodec.create(headDim, factory, { threads: 1 });
    try {
      await codec.train(vectors);
      const { codeBytes } = codec;
      const state = await codec.bytes();
      return { factory, codeBytes, stateHash: sha256(state), state };
    } finally {
      await codec.close();
    }
  };
  return { keys: await train(sample.keys), values: await train(sample.values) };
}

/**
 * A codec of a bank, ready for use.
 * @throws UserError engine_unavailable without Faiss, artefact_mismatch for a codec of other vectors
 */
export async function restoreCodec(stored: StoredCodec, headDim: number): Promise<FaissCodec> {
  const faiss = faissAvailable();
  if (!faiss.ok) {
    throw new UserError('engine_unavailable', {
      what: `the memories of this bank are codes of ${stored.factory}, and there is no Faiss to read them: ${faiss.why}`,
      action: 'install it, or compile a bank without memory.codec',
    });
  }
  const codec = await FaissCodec.restore(stored.state);
  const { dimensions, codeBytes } = codec;
  if (dimensions === headDim && codeBytes === stored.codeBytes) return codec;
  await codec.close();
  throw new UserError('artefact_mismatch', {
    what: `the codec ${stored.factory} makes ${codeBytes} bytes of ${dimensions} numbers, the bank has ${stored.codeBytes} bytes for ${headDim}`,
    action: 'delete the bank folder and run `memory3 compile`',
  });
}

/** Keys and values of the same tokens, [n, D] each. */
export interface KeyValueVectors {
  keys: Float32Array;
  values: Float32Array;
}

/**
 * A uniform sample of the keys and values that pass by: each of them is in it with the same probability (reservoir
 * sampling, Vitter 1985, algorithm R). Places of references that are shorter than S hold no vector and do not count.
 */
export class VectorSample {
  readonly #layout: MemoryLayout;
  readonly #seed: number;
  readonly #count: number;
  readonly #keys: Float32Array;
  readonly #values: Float32Array;
  #seen = 0;

  /** @param count vectors at most */
  constructor(layout: MemoryLayout, count: number, seed: number) {
    this.#layout = layout;
    this.#seed = seed;
    this.#count = count;
    this.#keys = new Float32Array(count * layout.headDim);
    this.#values = new Float32Array(count * layout.headDim);
  }

  /** @param rows [n, Lmem, 2, K, S, D] */
  add(rows: Float32Array, keptLengths: ArrayLike<number>): void {
    const { memoryLayers, kvHeads, keptTokens: S, headDim: D } = this.#layout;
    const width = rowLength(this.#layout);
    const part = kvHeads * S * D;
    for (let memory = 0; memory * width < rows.length; memory++) {
      for (let layer = 0; layer < memoryLayers; layer++) {
        for (let head = 0; head < kvHeads; head++) {
          const start = memory * width + 2 * layer * part + head * S * D;
          for (let at = start; at < start + keptLengths[memory]! * D; at += D) this.#take(rows, at, at + part);
        }
      }
    }
  }

  get vectors(): KeyValueVectors {
    const length = Math.min(this.#seen, this.#count) * this.#layout.headDim;
    return { keys: this.#keys.subarray(0, length), values: this.#values.subarray(0, length) };
  }

  get isFull(): boolean {
    return this.#seen >= this.#count;
  }

  #take(rows: Float32Array, key: number, value: number): void {
    const D = this.#layout.headDim;
    const number = this.#seen++;
    const slot = number < this.#count ? number : randomInt(this.#seed, PURPOSE.codecSample, 0, number, number + 1);
    if (slot >= this.#count) return;
    this.#keys.set(rows.subarray(key, key + D), slot * D);
    this.#values.set(rows.subarray(value, value + D), slot * D);
  }
}

/** Memories that a sample of a full number of vectors should come from. */
export function sampledMemories(layout: MemoryLayout): number {
  return Math.max(SAMPLED_MEMORIES, Math.ceil((2 * TRAINED_ON) / keptCount(layout)));
}

/** Vectors to train codecs on, and vectors of other memories to test them with. */
export class CodecSample {
  readonly #train: VectorSample;
  readonly #test: VectorSample;

  constructor(layout: MemoryLayout, seed: number) {
    this.#train = new VectorSample(layout, TRAINED_ON, seed);
    this.#test = new VectorSample(layout, TESTED_ON, seed);
  }

  /**
   * @param numbers of the memories in the sample; they alone say what is for the test
   * @param rows [n, Lmem, 2, K, S, D]
   */
  add(numbers: readonly number[], rows: Float32Array, keptLengths: readonly number[]): void {
    const width = rows.length / numbers.length;
    numbers.forEach((number, i) => {
      const sample = number % TEST_EVERY === TEST_EVERY - 1 ? this.#test : this.#train;
      sample.add(rows.subarray(i * width, (i + 1) * width), [keptLengths[i]!]);
    });
  }

  get train(): KeyValueVectors {
    return this.#train.vectors;
  }

  get test(): KeyValueVectors {
    return this.#test.vectors;
  }

  /** Whether there are as many vectors to train on as there should be. */
  get isFull(): boolean {
    return this.#train.isFull;
  }
}

/** What is lost when vectors are encoded and decoded, |x − x̂|² / |x|² over all of them. */
export interface CodecError {
  keys: number;
  values: number;
}

/** The error of codecs on `vectors`; NaN without any. */
export async function codecError(codecs: StoredCodecs, headDim: number, vectors: KeyValueVectors): Promise<CodecError> {
  const error = async (stored: StoredCodec, x: Float32Array): Promise<number> => {
    const codec = await restoreCodec(stored, headDim);
    try {
      const decoded = await codec.decode(await codec.encode(x));
      let [lost, all] = [0, 0];
      for (let i = 0; i < x.length; i++) {
        lost += (x[i]! - decoded[i]!) ** 2;
        all += x[i]! ** 2;
      }
      return lost / all;
    } finally {
      await codec.close();
    }
  };
  return { keys: await error(codecs.keys, vectors.keys), values: await error(codecs.values, vectors.values) };
}
