/**
 * Retrieval by the memories' own keys (paper, Remark 2): what a memory is read by is what it is found by.
 *
 * Legend: n texts, d dimensions, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import { normalised } from '../index.ts';
import { type MemoryLayout, rowLength } from '../layout.ts';
import type { ChunkQueries, RetrievalEncoder, WrittenReferences } from './encoder.ts';

type Rows = Pick<WrittenReferences, 'rows' | 'keptLengths'>;

/**
 * For each memory layer and key-value head the mean of the kept keys, brought to length one, all of them side by side:
 * [Lmem · K · D]. A query is the mean attention query of the chunk at the same layers and heads. The inner product of the
 * two is therefore the mean cosine over the heads, the query of a head compared with keys of that head only.
 */
export class KeysEncoder implements RetrievalEncoder {
  readonly dimensions: number;
  readonly readsMemories = true;
  readonly kind: string = 'keys';
  protected readonly layout: MemoryLayout;
  readonly #queries: ChunkQueries;

  /** @param queries of the model that is being served or trained */
  constructor(layout: MemoryLayout, queries: ChunkQueries) {
    this.dimensions = layout.memoryLayers * layout.kvHeads * layout.headDim;
    this.layout = layout;
    this.#queries = queries;
  }

  async encodeReferences(references: Rows): Promise<Float32Array> {
    const { headDim: D } = this.layout;
    const sums = new Float32Array((references.rows.length / rowLength(this.layout)) * this.dimensions);
    eachHead(references, this.layout, (memory, head, keys) => {
      const out = memory * this.dimensions + head * D;
      for (let i = 0; i < keys.length; i++) sums[out + (i % D)]! += keys[i]!;
    });
    return this.#headsOfEqualWeight(sums);
  }

  async encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array> {
    return this.#headsOfEqualWeight(await this.#queries(chunks));
  }

  describe(): Record<string, unknown> {
    return { kind: this.kind, dimensions: this.dimensions };
  }

  state(): Uint8Array {
    return new Uint8Array(0);
  }

  #headsOfEqualWeight(vectors: Float32Array): Float32Array {
    return normalised(normalised(vectors, this.layout.headDim), this.dimensions);
  }
}

/**
 * Several vectors a reference: the mean keys find candidates, then each candidate is scored by all its kept keys: the
 * mean over layers and heads of the largest cosine between the query of the head and a kept key of that head (late
 * interaction, Khattab and Zaharia 2020).
 */
export class KeysMultiEncoder extends KeysEncoder {
  override readonly kind: string = 'keys-multi';

  rescore(query: Float32Array, memories: Rows): Float32Array {
    const { memoryLayers, kvHeads, headDim: D } = this.layout;
    const heads = normalised(query, D);
    const scores = new Float32Array(memories.rows.length / rowLength(this.layout));
    eachHead(memories, this.layout, (memory, head, keys) => {
      let best = -1;
      for (let key = 0; key < keys.length; key += D) best = Math.max(best, cosine(heads, head * D, keys, key, D));
      scores[memory]! += best / (memoryLayers * kvHeads);
    });
    return scores;
  }
}

/** Visits the kept keys [kept, D] of every head of every memory; heads are counted through all layers. */
function eachHead(
  { rows, keptLengths }: Rows,
  layout: MemoryLayout,
  visit: (memory: number, head: number, keys: Float32Array) => void,
): void {
  const { memoryLayers, kvHeads, keptTokens: S, headDim: D } = layout;
  const width = rowLength(layout);
  for (let memory = 0; memory * width < rows.length; memory++) {
    for (let layer = 0; layer < memoryLayers; layer++) {
      for (let head = 0; head < kvHeads; head++) {
        const start = memory * width + (layer * 2 * kvHeads + head) * S * D;
        visit(memory, layer * kvHeads + head, rows.subarray(start, start + keptLengths[memory]! * D));
      }
    }
  }
}

/** Cosine of `unit`, of length one from `at` on, with the key that begins at `key`. */
function cosine(unit: Float32Array, at: number, keys: Float32Array, key: number, D: number): number {
  let product = 0;
  let squares = 0;
  for (let i = 0; i < D; i++) {
    product += unit[at + i]! * keys[key + i]!;
    squares += keys[key + i]! ** 2;
  }
  return squares === 0 ? 0 : product / Math.sqrt(squares);
}
