/**
 * Token datasets: for each split the documents' tokens back to back in Arrow shards, and a manifest that names the
 * tokenizer and holds the checksums. A row is a document, or a piece of one where a record batch or shard is full: so
 * every record batch but the last of a shard holds the same number of tokens, however long the documents are.
 */

import { join } from 'node:path';
import { type Data, Field, Int32, Int64, type RecordBatch, Schema, Utf8 } from 'apache-arrow';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import {
  type ArrowFileEntry,
  ArrowFileWriter,
  arrowFileSchema,
  type BatchEntry,
  checkSize,
  int32Column,
  int64Column,
  readBatch,
  textColumn,
  tokenListType,
  tokensColumn,
  tokenValues,
  verifyFile,
} from './arrow_file.ts';
import { BatchCache } from './batch_cache.ts';
import type { DataCounters, Document } from './documents.ts';
import { countersSchema, MANIFEST, REBUILD, readManifest, writeManifest } from './manifest.ts';

export const SPLITS = ['train', 'validation'] as const;
export type Split = (typeof SPLITS)[number];

const VERSION = 1;
/** A random window reads one record batch: small enough to be read for it, large enough to be worth a read. */
const BATCH_TOKENS = 65_536;

const splitSchema = z.strictObject({
  tokens: z.int().min(0),
  documents: z.int().min(0),
  /** UTF-8 bytes of the documents' texts. */
  bytes: z.int().min(0),
  shards: z.array(arrowFileSchema),
});
const manifestSchema = z.strictObject({
  tokenizerHash: z.string(),
  vocabSize: z.int().min(1),
  /** The token in the gaps between documents; absent where there are none. */
  pad: z.int().min(0).optional(),
  /** Tokens of a record batch and of a shard; the last ones may hold fewer. */
  batchTokens: z.int().min(1),
  shardTokens: z.int().min(1),
  splits: z.strictObject({ train: splitSchema, validation: splitSchema }),
  counters: countersSchema,
});
export type TokenManifest = z.infer<typeof manifestSchema> & { contentHash: string };

function rowSchema(vocabSize: number): Schema {
  return new Schema([
    new Field('tokens', tokenListType(vocabSize), false),
    new Field('document', new Utf8(), false),
    new Field('title', new Utf8(), false),
    new Field('source', new Utf8(), false),
    new Field('offset', new Int64(), false),
    new Field('part', new Int32(), false),
  ]);
}

export interface TokenDatasetOptions {
  tokenizerHash: string;
  vocabSize: number;
  /** The token that fills gaps between documents, where there are gaps: it is no target of training. */
  pad?: number;
  /** Tokens of a shard. */
  shardTokens: number;
  /** Tokens of a record batch. */
  batchTokens?: number;
}

type ShardOptions = TokenDatasetOptions & { batchTokens: number };

/** Writes `<folder>/{train,validation}/tokens-00000.arrow …` and, last, `<folder>/manifest.json`. */
export class TokenDatasetWriter {
  readonly #folder: string;
  readonly #options: ShardOptions;
  readonly #splits: Record<Split, SplitWriter>;

  constructor(folder: string, options: TokenDatasetOptions) {
    this.#folder = folder;
    this.#options = { ...options, batchTokens: Math.min(options.batchTokens ?? BATCH_TOKENS, options.shardTokens) };
    this.#splits = {
      train: new SplitWriter(join(folder, 'train'), this.#options),
      validation: new SplitWriter(join(folder, 'validation'), this.#options),
    };
  }

  /**
   * Appends a document and waits for the disk where a record batch is full.
   * @param ids its tokens, from the begin of text on; at least one
   * @throws UserError disk_full
   */
  async append(split: Split, document: Document, ids: Int32Array): Promise<void> {
    await this.#splits[split].append(document, ids);
  }

  /** Closes the shards and writes the manifest. */
  async finish(counters: DataCounters): Promise<TokenManifest> {
    const body = {
      ...this.#options,
      splits: { train: await this.#splits.train.finish(), validation: await this.#splits.validation.finish() },
      counters,
    };
    await writeManifest(this.#folder, VERSION, body);
    return await readManifest(this.#folder, VERSION, manifestSchema);
  }

  /** Gives up: removes unfinished files. */
  async abort(): Promise<void> {
    for (const split of SPLITS) await this.#splits[split].abort();
  }
}

/** The rows of a record batch being filled. */
interface Rows {
  /** Where each row's tokens end, after a leading 0. */
  ends: number[];
  documents: string[];
  titles: string[];
  sources: string[];
  offsets: number[];
  parts: number[];
}
const noRows = (): Rows => ({ ends: [0], documents: [], titles: [], sources: [], offsets: [], parts: [] });

class SplitWriter {
  readonly #folder: string;
  readonly #options: ShardOptions;
  readonly #tokens: Int32Array;
  readonly #shards: ArrowFileEntry[] = [];
  #shard: ArrowFileWriter | undefined;
  #rows = noRows();
  /** Tokens in the batch being filled, and in the current shard with it. */
  #batchUsed = 0;
  #shardUsed = 0;
  #total = { tokens: 0, documents: 0, bytes: 0 };

  constructor(folder: string, options: ShardOptions) {
    this.#folder = folder;
    this.#options = options;
    this.#tokens = new Int32Array(options.batchTokens);
  }

  async append(document: Document, ids: Int32Array): Promise<void> {
    const { batchTokens, shardTokens } = this.#options;
    for (let done = 0, part = 0; done < ids.length; part++) {
      const room = Math.min(batchTokens - this.#batchUsed, shardTokens - this.#shardUsed);
      const piece = ids.subarray(done, done + room);
      this.#addRow(document, part, piece);
      done += piece.length;
      if (piece.length === room) await this.#flush();
    }
    this.#total.tokens += ids.length;
    this.#total.documents += 1;
    this.#total.bytes += Buffer.byteLength(document.text);
  }

  #addRow(document: Document, part: number, tokens: Int32Array): void {
    this.#tokens.set(tokens, this.#batchUsed);
    this.#batchUsed += tokens.length;
    this.#shardUsed += tokens.length;
    this.#rows.ends.push(this.#batchUsed);
    this.#rows.documents.push(document.id);
    this.#rows.titles.push(document.title ?? '');
    this.#rows.sources.push(document.source.path);
    this.#rows.offsets.push(document.source.offset);
    this.#rows.parts.push(part);
  }

  /** Writes the batch, and closes the shard when it is full. */
  async #flush(): Promise<void> {
    const { vocabSize, shardTokens } = this.#options;
    if (this.#batchUsed > 0) {
      const name = `tokens-${String(this.#shards.length).padStart(5, '0')}.arrow`;
      this.#shard ??= await ArrowFileWriter.create(join(this.#folder, name), rowSchema(vocabSize));
      const rows = this.#rows;
      const columns: Data[] = [
        tokensColumn(vocabSize, rows.ends, this.#tokens.subarray(0, this.#batchUsed)),
        ...[rows.documents, rows.titles, rows.sources].map(textColumn),
        int64Column(rows.offsets),
        int32Column(rows.parts),
      ];
      await this.#shard.append(columns, rows.parts.length, this.#batchUsed);
      this.#rows = noRows();
      this.#batchUsed = 0;
    }
    if (this.#shardUsed === shardTokens) await this.#closeShard();
  }

  async #closeShard(): Promise<void> {
    if (this.#shard) this.#shards.push(await this.#shard.close());
    this.#shard = undefined;
    this.#shardUsed = 0;
  }

  async finish(): Promise<z.infer<typeof splitSchema>> {
    await this.#flush();
    await this.#closeShard();
    return { ...this.#total, shards: this.#shards };
  }

  async abort(): Promise<void> {
    await this.#shard?.abort();
  }
}

interface PlacedBatch {
  /** File of the shard. */
  path: string;
  entry: BatchEntry;
  /** Position of its first token in the stream of the split. */
  start: number;
}

export interface OpenOptions {
  /** Hash of the tokenizer that the dataset must have been made with. */
  tokenizerHash?: string;
  /** Bytes of record batches kept in memory. */
  cacheBytes?: number;
}

/** Reads the tokens of one split as one stream: documents back to back, each begun by its begin-of-text token. */
export class TokenDataset {
  readonly folder: string;
  readonly split: Split;
  readonly manifest: TokenManifest;
  readonly numTokens: number;
  readonly numDocuments: number;
  /** Hash of all splits' content. */
  readonly contentHash: string;
  readonly #batches: PlacedBatch[];
  readonly #cache: BatchCache<RecordBatch>;

  private constructor(folder: string, split: Split, manifest: TokenManifest, cacheBytes: number) {
    this.folder = folder;
    this.split = split;
    this.manifest = manifest;
    this.contentHash = manifest.contentHash;
    this.numTokens = manifest.splits[split].tokens;
    this.numDocuments = manifest.splits[split].documents;
    this.#cache = new BatchCache(cacheBytes);
    let start = 0;
    this.#batches = manifest.splits[split].shards.flatMap((shard) =>
      shard.batches.map((entry) => {
        const placed = { path: join(folder, split, shard.file), entry, start };
        start += entry.tokens;
        return placed;
      }),
    );
  }

  /**
   * Opens a split: reads the manifest and checks the sizes of the split's shards. The bytes of a record batch are checked
   * when it is first read; `verify` checks all.
   * @throws UserError artefact_missing, version_unsupported, file_corrupt, file_truncated; artefact_mismatch when it was
   *   made with another tokenizer
   */
  static async open(folder: string, split: Split, options: OpenOptions = {}): Promise<TokenDataset> {
    const manifest = await readManifest(folder, VERSION, manifestSchema);
    requireTokenizer(folder, manifest.tokenizerHash, options.tokenizerHash);
    for (const shard of manifest.splits[split].shards) await checkSize(join(folder, split), shard);
    return new TokenDataset(folder, split, manifest, options.cacheBytes ?? 64 * 2 ** 20);
  }

  /**
   * Tokens [start, start + length) of the stream.
   * @throws RangeError outside the stream; UserError when a file is damaged
   */
  async window(start: number, length: number): Promise<Int32Array> {
    if (!(start >= 0 && length >= 0 && start + length <= this.numTokens)) {
      throw new RangeError(`tokens [${start}, ${start + length}) are outside the ${this.numTokens} of the dataset`);
    }
    const out = new Int32Array(length);
    for (let done = 0, i = this.#find(start); done < length; i++) {
      const batch = this.#batches[i]!;
      const values = tokenValues(await this.#read(i), 0);
      const from = start + done - batch.start;
      const part = values.subarray(from, from + length - done);
      out.set(part, done);
      done += part.length;
    }
    return out;
  }

  /**
   * Reads every byte of the split and compares it with the checksums.
   * @throws UserError file_truncated, file_corrupt or artefact_missing for the first damaged file
   */
  async verify(): Promise<void> {
    for (const shard of this.manifest.splits[this.split].shards) await verifyFile(join(this.folder, this.split), shard);
  }

  async #read(i: number): Promise<RecordBatch> {
    const { path, entry } = this.#batches[i]!;
    return await this.#cache.get(i, entry.bytes, () => readBatch(path, rowSchema(this.manifest.vocabSize), entry));
  }

  /** The batch that holds token `position`: the last that starts at or before it. */
  #find(position: number): number {
    let low = 0;
    for (let high = this.#batches.length; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (this.#batches[middle]!.start <= position) low = middle;
      else high = middle;
    }
    return low;
  }
}

/** Refuses an artefact of another tokenizer than `wanted` (undefined: any). */
export function requireTokenizer(folder: string, made: string, wanted: string | undefined): void {
  if (wanted === undefined || made === wanted) return;
  throw new UserError('artefact_mismatch', {
    where: join(folder, MANIFEST),
    what: `made with tokenizer ${made.slice(0, 12)}…, but tokenizer ${wanted.slice(0, 12)}… is in use`,
    action: REBUILD,
  });
}
