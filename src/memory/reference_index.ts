/**
 * Search over references that are not memories yet, by vectors made of their texts (paper §3.2, cold start). The vectors
 * are kept beside the references:
 *
 *   vectors.bin    [n, d] float32, in the order of the references
 *   vectors.json   written last: which references and which encoder they are of, and their checksum
 *
 * Legend: n references or queries, d dimensions.
 */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { ReferenceDataset } from '../data/references.ts';
import { isSystemError, UserError } from '../errors.ts';
import { sha256, writeFileAtomic, writeJsonAtomic } from '../io/files.ts';
import type { RetrievalEncoder } from './encoders/encoder.ts';
import type { VectorIndex } from './index.ts';
import { exhaustiveIndex } from './sparse_index.ts';
import { parseStored, readStored } from './stored_json.ts';

const FORMAT_VERSION = 1;
const VECTORS = 'vectors.bin';
const DESCRIPTION = 'vectors.json';
/** References encoded at once. */
const BATCH = 1024;
/** Bytes hashed at once. */
const PART_BYTES = 2 ** 26;

const schema = z.strictObject({ formatVersion: z.literal(FORMAT_VERSION), key: z.string(), sha256: z.string() });

/** A reference that was found: its number, and its cosine similarity to the query. */
export interface FoundReference {
  number: number;
  score: number;
}

export interface ReferenceIndexOptions {
  /** Lets `write` store the vectors, or leaves it out where nothing may be written. */
  store: (write: () => Promise<void>) => Promise<unknown>;
  /** Called while references are encoded, with how many are. */
  onProgress?: (done: number) => void;
}

export class ReferenceIndex {
  /** Says which references it finds by which encoder. */
  readonly key: string;
  readonly #index: VectorIndex;

  private constructor(key: string, vectors: Float32Array, encoder: RetrievalEncoder) {
    const { dimensions } = encoder;
    this.key = key;
    this.#index = exhaustiveIndex({ dimensions, description: encoder.describe() });
    for (let first = 0; first * dimensions < vectors.length; first += BATCH) {
      const part = vectors.subarray(first * dimensions, (first + BATCH) * dimensions);
      this.#index.add(
        Array.from({ length: part.length / dimensions }, (_, i) => first + i),
        part,
      );
    }
  }

  /**
   * Loads the vectors of references, or encodes the references and stores their vectors.
   * @param folder of the references
   * @throws UserError config_invalid for an encoder of memories, which must be written first
   */
  static async open(
    folder: string,
    references: ReferenceDataset,
    encoder: RetrievalEncoder,
    { store, onProgress }: ReferenceIndexOptions,
  ): Promise<ReferenceIndex> {
    refuseMemoryEncoder(encoder);
    const key = referenceKey(references, encoder);
    const numbers = references.size * encoder.dimensions;
    let vectors = await readVectors(folder, key, numbers);
    if (vectors === undefined) {
      const made = await encodeAll(references, encoder, onProgress);
      await store(() => writeVectors(folder, key, made));
      vectors = made;
    }
    return new ReferenceIndex(key, vectors, encoder);
  }

  get size(): number {
    return this.#index.size;
  }

  /** The `count` nearest of each of `queries` [n, d], nearest first. */
  async search(queries: Float32Array, count: number): Promise<FoundReference[][]> {
    const k = Math.min(count, this.size);
    const { ids, scores } = await this.#index.search(queries, k);
    return Array.from({ length: queries.length / this.#index.dimensions }, (_, query) =>
      Array.from({ length: k }, (_, i) => ({ number: ids[query * k + i]!, score: scores[query * k + i]! })),
    );
  }
}

/** The `key` of the index over these references. */
export function referenceKey(references: ReferenceDataset, encoder: RetrievalEncoder): string {
  return sha256(JSON.stringify([references.contentHash, encoder.describe()]), encoder.state());
}

/** @throws UserError config_invalid */
export function refuseMemoryEncoder(encoder: RetrievalEncoder): void {
  if (!encoder.readsMemories) return;
  throw new UserError('config_invalid', {
    where: 'retrieval.encoder',
    what: `a cold start finds references before they are memories, and ${encoder.describe().kind} searches what is inside memories`,
    action: 'compile all references with `memory3 compile`, or make a bank with the encoder lexical, use-lite or onnx',
  });
}

async function encodeAll(
  references: ReferenceDataset,
  encoder: RetrievalEncoder,
  onProgress?: (done: number) => void,
): Promise<Float32Array> {
  const vectors = new Float32Array(references.size * encoder.dimensions);
  let done = 0;
  for await (const batch of references.batches(BATCH)) {
    const texts = batch.map(({ text }) => text);
    const tokens = batch.map((reference) => reference.tokens);
    const encoded = await encoder.encodeReferences({ texts, tokens, rows: new Float32Array(0), keptLengths: [] });
    vectors.set(encoded, done * encoder.dimensions);
    done += batch.length;
    onProgress?.(done);
  }
  return vectors;
}

async function writeVectors(folder: string, key: string, vectors: Float32Array): Promise<void> {
  const count = Math.ceil(vectors.byteLength / PART_BYTES);
  const bytes = new Uint8Array(vectors.buffer, vectors.byteOffset, vectors.byteLength);
  const parts = Array.from({ length: count }, (_, i) => bytes.subarray(i * PART_BYTES, (i + 1) * PART_BYTES));
  await writeFileAtomic(join(folder, VECTORS), parts);
  await writeJsonAtomic(join(folder, DESCRIPTION), { formatVersion: FORMAT_VERSION, key, sha256: sha256(...parts) });
}

/** Stored vectors; undefined when there are none of this key, or damaged ones: they are made anew then. */
async function readVectors(folder: string, key: string, numbers: number): Promise<Float32Array | undefined> {
  const vectors = new Float32Array(numbers);
  const bytes = new Uint8Array(vectors.buffer);
  try {
    const path = join(folder, DESCRIPTION);
    const description = parseStored(await readStored(path, ''), schema, FORMAT_VERSION, path, '');
    if (description.key !== key) return undefined;
    const hash = createHash('sha256');
    let read = 0;
    for await (const chunk of createReadStream(join(folder, VECTORS)) as AsyncIterable<Buffer>) {
      if (read + chunk.length > bytes.length) return undefined;
      bytes.set(chunk, read);
      read += chunk.length;
      hash.update(chunk);
    }
    return read === bytes.length && hash.digest('hex') === description.sha256 ? vectors : undefined;
  } catch (error) {
    if (error instanceof UserError || isSystemError(error)) return undefined;
    throw error;
  }
}
