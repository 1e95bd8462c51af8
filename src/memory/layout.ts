/**
 * What a memory is made of and what a bank belongs to.
 *
 * Legend: Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import type { MemoryConfig, ModelConfig } from '../config/schema.ts';
import type { ModelShape } from '../model/shape.ts';
import type { StorageType } from '../ops/index.ts';

/** Shape of one memory: a row is [Lmem, 2 (keys, values), K, S, D], contiguous. */
export interface MemoryLayout {
  memoryLayers: number;
  kvHeads: number;
  keptTokens: number;
  headDim: number;
}

/** What a bank was made for. It never changes in the life of a bank, but for the codecs: those belong to a version. */
export interface BankIdentity {
  /** Shape of the model whose memories these are, see `modelKey`. */
  modelKey: string;
  /** sha256 of the tokenizer file. */
  tokenizerHash: string;
  layout: MemoryLayout;
  /** How the numbers of a memory are stored, see row_format.ts, unless there are codecs. */
  storage: StorageType;
  /** Memories are stored as codes of these, and read as float32. */
  codecs?: StoredCodecs;
  /** The retrieval encoder whose vectors the bank stores. */
  encoder: StoredEncoder;
}

/** A retrieval encoder as it lies in the bank, so that queries are encoded as the references were. */
export interface StoredEncoder {
  dimensions: number;
  /** What `RetrievalEncoder.describe()` returned. */
  description: Record<string, unknown>;
  /** Fitted numbers of the encoder, for example document frequencies; may be empty. */
  state: Uint8Array;
}

/** Which codec a bank stores vectors with. */
export interface CodecDescription {
  /** As `memory.codec` spells it. */
  factory: string;
  /** Bytes of the code of one vector [D]. */
  codeBytes: number;
  /** sha256 of the state. */
  stateHash: string;
}

/** A trained codec as it lies in the bank. */
export interface StoredCodec extends CodecDescription {
  /** What Faiss restores it from. */
  state: Uint8Array;
}

/** One codec for all keys of a bank and one for all values. */
export interface StoredCodecs {
  keys: StoredCodec;
  values: StoredCodec;
}

/** What a reader can read; anything else in a bank is refused. */
export interface ReaderIdentity {
  modelKey: string;
  tokenizerHash: string;
  /** Hashes of the weights whose memories the reader accepts. */
  writers: readonly string[];
}

/** One memory without its numbers: where it comes from and which tokens it kept. */
export interface MemoryRecord {
  id: string;
  /** Id of the document that the reference was cut from. */
  document: string;
  /** Title of the document, empty when it has none. */
  title: string;
  text: string;
  /** Characters [start, end) of the document. */
  span: readonly [number, number];
  /** Token ids of the reference, without the prefix. */
  tokens: Int32Array;
  /** Positions of the kept tokens inside `tokens`, [Lmem, K, S]. */
  kept: Int32Array;
  /** Kept tokens that are real; fewer than S in a reference shorter than S. */
  keptLength: number;
}

/** Memories on their way into a bank. */
export interface MemoryBatch {
  records: readonly MemoryRecord[];
  /** [n, Lmem, 2, K, S, D] */
  rows: Float32Array;
  /** Retrieval vectors of length one, [n, dimensions]. */
  vectors: Float32Array;
}

/** Numbers of one memory: Lmem · 2 · K · S · D. */
export function rowLength(layout: MemoryLayout): number {
  return layout.memoryLayers * 2 * layout.kvHeads * layout.keptTokens * layout.headDim;
}

/** Kept positions of one memory: Lmem · K · S. */
export function keptCount(layout: MemoryLayout): number {
  return layout.memoryLayers * layout.kvHeads * layout.keptTokens;
}

/** The memory layout of a configured model. */
export function memoryLayout(model: ModelConfig, memory: MemoryConfig): MemoryLayout {
  return {
    memoryLayers: model.memoryLayers,
    kvHeads: model.kvHeads,
    keptTokens: memory.keptTokens,
    headDim: model.headDim,
  };
}

/**
 * A readable name for everything about a model's shape that its memories depend on. Two models with the same key can
 * exchange memories as far as shapes go; whether the weights fit is said by the writer's hash.
 */
export function modelKey(model: ModelShape, memory: MemoryConfig): string {
  return [
    `layers=${model.numLayers}/${model.memoryLayers}`,
    `hidden=${model.hiddenSize}`,
    `heads=${model.numHeads}/${model.kvHeads}x${model.headDim}`,
    `mlp=${model.mlpWidth}`,
    `vocab=${model.vocabSize}`,
    `rope=${model.ropeTheta}`,
    `reference=${memory.referenceTokens}/${memory.keptTokens}`,
  ].join(' ');
}
