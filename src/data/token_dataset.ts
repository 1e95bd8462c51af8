/**
 * Token datasets: for each source and split the documents' tokens back to back in Arrow shards, and a manifest that names
 * tokenizer and sources and holds the checksums. A row is a document, or a piece of one where a record batch is full: so
 * every record batch but the last of a shard holds the same number of tokens, however long the documents are.
 */

import { close, open } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Data, Field, Int32, Int64, Schema, Utf8 } from 'apache-arrow';
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
  missingFile,
  readBatch,
  readInto,
  textColumn,
  tokenListType,
  tokensColumn,
  tokenType,
  tokenValues,
  verifyFile,
} from './arrow_file.ts';
import type { Document } from './documents.ts';
import { MANIFEST, REBUILD, readManifest, writeManifest } from './manifest.ts';

export const SPLITS = ['train', 'validation'] as const;
export type Split = (typeof SPLITS)[number];

const VERSION = 2;
/** Read whole once, to be checked, before windows of it are read. */
const BATCH_TOKENS = 65_536;
/** Shards that a dataset keeps open. */
const OPEN_SHARDS = 8;

export const tokenSplitSchema = z.strictObject({
  tokens: z.int().min(0),
  documents: z.int().min(0),
  /** UTF-8 bytes of the documents' texts. */
  bytes: z.int().min(0),
  shards: z.array(arrowFileSchema),
});
export type TokenSplit = z.infer<typeof tokenSplitSchema>;

const manifestSchema = z.strictObject({
  tokenizerHash: z.string(),
  vocabSize: z.int().min(1),
  /** The token that begins every document and stands nowhere else. */
  bos: z.int().min(0),
  /** The token in the gaps between documents, no target of training; absent where there are no gaps. */
  pad: z.int().min(0).optional(),
  sources: z.array(
    z.strictObject({
      name: z.string(),
      /** What it was made from. */
      files: z.array(z.strictObject({ path: z.string(), sha256: z.string() })),
      splits: z.strictObject({ train: tokenSplitSchema, validation: tokenSplitSchema }),
    }),
  ),
});
type ManifestBody = z.infer<typeof manifestSchema>;
export type TokenManifest = ManifestBody & { contentHash: string };

function rowSchema(vocabSize: number): Schema {
  return new Schema([
    new Field('tokens', tokenListType(vocabSize), false),
    new Field('document', new Utf8(), false),
    new Field('title', new Utf8(), false),
    new Field('url', new Utf8(), false),
    new Field('source', new Utf8(), false),
    new Field('offset', new Int64(), false),
    new Field('part', new Int32(), false),
  ]);
}

/** The rows of a record batch being filled. */
interface Rows {
  /** Where each row's tokens end, after a leading 0. */
  ends: number[];
  documents: Document[];
  parts: number[];
}
const noRows = (): Rows => ({ ends: [0], documents: [], parts: [] });

/** Writes one shard; a shard without documents leaves no file. */
export class TokenShardWriter {
  readonly #path: string;
  readonly #vocabSize: number;
  readonly #tokens: Int32Array;
  readonly #total = { tokens: 0, documents: 0, bytes: 0 };
  #file: ArrowFileWriter | undefined;
  #rows = noRows();
  /** Tokens in the batch being filled. */
  #used = 0;

  /** @param batchTokens tokens of a record batch */
  constructor(path: string, vocabSize: number, batchTokens = BATCH_TOKENS) {
    this.#path = path;
    this.#vocabSize = vocabSize;
    this.#tokens = new Int32Array(batchTokens);
  }

  /**
   * Appends a document and waits for the disk where a record batch is full.
   * @param ids its tokens, from the begin of text on; at least one
   * @throws UserError disk_full
   */
  async append(document: Document, ids: Int32Array): Promise<void> {
    for (let done = 0, part = 0; done < ids.length; part++) {
      const piece = ids.subarray(done, done + this.#tokens.length - this.#used);
      this.#tokens.set(piece, this.#used);
      this.#used += piece.length;
      this.#rows.ends.push(this.#used);
      this.#rows.documents.push(document);
      this.#rows.parts.push(part);
      done += piece.length;
      if (this.#used === this.#tokens.length) await this.#flush();
    }
    this.#total.tokens += ids.length;
    this.#total.documents += 1;
    this.#total.bytes += Buffer.byteLength(document.text);
  }

  async #flush(): Promise<void> {
    if (this.#used === 0) return;
    this.#file ??= await ArrowFileWriter.create(this.#path, rowSchema(this.#vocabSize));
    const { ends, documents, parts } = this.#rows;
    const columns: Data[] = [
      tokensColumn(this.#vocabSize, ends, this.#tokens.subarray(0, this.#used)),
      textColumn(documents.map(({ id }) => id)),
      textColumn(documents.map(({ title }) => title ?? '')),
      textColumn(documents.map(({ url }) => url ?? '')),
      textColumn(documents.map(({ source }) => source.path)),
      int64Column(documents.map(({ source }) => source.offset)),
      int32Column(parts),
    ];
    await this.#file.append(columns, parts.length, this.#used);
    this.#rows = noRows();
    this.#used = 0;
  }

  /** Puts the file in place; tells what it holds. */
  async close(): Promise<TokenSplit> {
    await this.#flush();
    const shards = this.#file ? [await this.#file.close()] : [];
    return { ...this.#total, shards };
  }

  /** Gives up: removes the unfinished file. */
  async abort(): Promise<void> {
    await this.#file?.abort();
  }
}

/** The shards of `splits` as one. */
export function joinSplits(splits: readonly TokenSplit[]): TokenSplit {
  const sum = (count: (split: TokenSplit) => number) => splits.reduce((total, split) => total + count(split), 0);
  return {
    tokens: sum(({ tokens }) => tokens),
    documents: sum(({ documents }) => documents),
    bytes: sum(({ bytes }) => bytes),
    shards: splits.flatMap(({ shards }) => shards),
  };
}

/** Writes `<folder>/manifest.json`, which makes the shards in `<folder>/<split>/` a dataset. */
export async function writeTokenManifest(folder: string, body: ManifestBody): Promise<TokenManifest> {
  await writeManifest(folder, VERSION, body);
  return await readManifest(folder, VERSION, manifestSchema);
}

interface PlacedBatch {
  folder: string;
  shard: ArrowFileEntry;
  entry: BatchEntry;
  /** Position of its first token in the stream of the split. */
  start: number;
}

export interface OpenOptions {
  /** Hash of the tokenizer that the dataset must have been made with. */
  tokenizerHash?: string;
}

/** Tokens of one source in the stream of a split. */
export interface TokenSegment {
  name: string;
  start: number;
  tokens: number;
}

/**
 * Reads the tokens of one split as one stream: the sources in order, in each the documents back to back, each begun by its
 * begin-of-text token. Nothing is held in memory; what is read often stays in the operating system's page cache.
 */
export class TokenDataset {
  readonly folder: string;
  readonly split: Split;
  readonly manifest: TokenManifest;
  readonly numTokens: number;
  readonly numDocuments: number;
  readonly segments: readonly TokenSegment[];
  /** Hash of all splits' content. */
  readonly contentHash: string;
  readonly #batches: PlacedBatch[] = [];
  /** Where the token values of a batch lie in its file; there once its checksum was compared. */
  readonly #valuesAt = new Map<number, Promise<number>>();
  readonly #files = new OpenFiles();

  private constructor(folder: string, split: Split, manifest: TokenManifest) {
    this.folder = folder;
    this.split = split;
    this.manifest = manifest;
    this.contentHash = manifest.contentHash;
    const segments: TokenSegment[] = [];
    let start = 0;
    for (const { name, splits } of manifest.sources) {
      segments.push({ name, start, tokens: splits[split].tokens });
      for (const shard of splits[split].shards) {
        for (const entry of shard.batches) {
          this.#batches.push({ folder: join(folder, split), shard, entry, start });
          start += entry.tokens;
        }
      }
    }
    this.segments = segments;
    this.numTokens = start;
    this.numDocuments = manifest.sources.reduce((sum, { splits }) => sum + splits[split].documents, 0);
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
    const dataset = new TokenDataset(folder, split, manifest);
    for (const shard of dataset.shards) await checkSize(join(folder, split), shard);
    return dataset;
  }

  /** The files of the split in the order of the stream. */
  get shards(): ArrowFileEntry[] {
    return this.manifest.sources.flatMap(({ splits }) => splits[this.split].shards);
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
    for (let done = 0, i = length > 0 ? this.#find(start) : 0; done < length; i++) {
      const batch = this.#batches[i]!;
      const from = start + done - batch.start;
      const count = Math.min(length - done, batch.entry.tokens - from);
      out.set(await this.#read(i, from, count), done);
      done += count;
    }
    return out;
  }

  /**
   * Reads every byte of the split and compares it with the checksums.
   * @throws UserError file_truncated, file_corrupt or artefact_missing for the first damaged file
   */
  async verify(): Promise<void> {
    for (const shard of this.shards) await verifyFile(join(this.folder, this.split), shard);
  }

  /** Closes its files; a later `window` opens them again. */
  async close(): Promise<void> {
    await this.#files.close();
  }

  /** Tokens [from, from + count) of batch `i`. */
  async #read(i: number, from: number, count: number): Promise<Uint16Array | Uint32Array> {
    const { folder, shard } = this.#batches[i]!;
    const path = join(folder, shard.file);
    const valuesAt = await this.#checked(i, path);
    const { ArrayType } = tokenType(this.manifest.vocabSize);
    const values = new ArrayType(count);
    const bytes = new Uint8Array(values.buffer);
    await this.#files.use(path, (file) => readInto(file, bytes, valuesAt + from * ArrayType.BYTES_PER_ELEMENT, path));
    return values;
  }

  /** Compares a batch with its checksum the first time; gives the byte of the file where its token values begin. */
  #checked(i: number, path: string): Promise<number> {
    const known = this.#valuesAt.get(i);
    if (known) return known;
    const { vocabSize } = this.manifest;
    const { entry } = this.#batches[i]!;
    const checked = readBatch(path, rowSchema(vocabSize), entry).then(({ batch, body }) => {
      const values = tokenValues(batch, 0);
      return entry.offset + values.byteOffset - body.byteOffset;
    });
    this.#valuesAt.set(i, checked);
    // A failed read is not remembered.
    checked.catch(() => this.#valuesAt.delete(i));
    return checked;
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

const openFd = promisify(open);
const closeFd = promisify(close);

/** A few files kept open, those used last. */
class OpenFiles {
  /** Descriptors: a handle that is forgotten would be closed with a complaint. */
  readonly #open = new Map<string, { file: Promise<number>; users: number }>();

  /** Calls `read` with the open file; it stays open while anybody reads. */
  async use(path: string, read: (file: number) => Promise<void>): Promise<void> {
    const known = this.#open.get(path);
    const entry = known ?? { file: openFd(path, 'r'), users: 0 };
    if (known) this.#open.delete(path);
    this.#open.set(path, entry);
    entry.users += 1;
    try {
      await read(await entry.file);
    } catch (error) {
      throw missingFile(error, path);
    } finally {
      entry.users -= 1;
      await this.#closeBeyond(OPEN_SHARDS);
    }
  }

  async close(): Promise<void> {
    await this.#closeBeyond(0);
  }

  async #closeBeyond(count: number): Promise<void> {
    if (this.#open.size <= count) return;
    for (const [path, { file, users }] of this.#open) {
      if (this.#open.size <= count) break;
      if (users > 0) continue;
      this.#open.delete(path);
      // One that could not be opened has told so to whoever wanted to read it.
      await file.then(closeFd, () => undefined);
    }
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
