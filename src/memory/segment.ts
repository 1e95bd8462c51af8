/**
 * A segment: an immutable folder of memories, named by the hash of its description.
 *
 *   memories.arrow  records (text, tokens, kept positions)
 *   rows.bin        [n, Lmem, 2, K, S, D] as row_format.ts stores it, numbers or codes, one memory contiguous
 *   index.bin       float32 [n, dimensions], the retrieval vectors
 *   segment.json    written last: format version, owner, sizes and block checksums of the three files
 */

import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { isSystemError, UserError } from '../errors.ts';
import { diskError, replaceFolder, sha256, syncFolder, temporaryName, writeJsonAtomic } from '../io/files.ts';
import { BLOCK_BYTES, BlockFile, BlockFileWriter, blockBytesFor, blockSums } from './block_file.ts';
import { codecsSchema, describeCodecs } from './codec_files.ts';
import { type BankIdentity, keptCount, type MemoryRecord } from './layout.ts';
import { encodeRecords, RecordTable } from './records.ts';
import { rowFormat } from './row_format.ts';
import { parseStored, readStored, repairAction } from './stored_json.ts';

const FORMAT_VERSION = 2;
const FLOAT_BYTES = 4;
/** Bytes of rows that are copied at once. */
const BATCH_BYTES = 4 * 2 ** 20;
const RECORDS = 'memories.arrow';
const ROWS = 'rows.bin';
const INDEX = 'index.bin';
const DESCRIPTION = 'segment.json';
const FILES = [RECORDS, ROWS, INDEX] as const;

/** A segment as a manifest lists it. */
export interface SegmentEntry {
  id: string;
  memories: number;
  /** Hash of the weights that wrote the memories. */
  writer: string;
  /** Rows that are no longer in the bank, ascending. */
  deleted: number[];
}

export const segmentEntrySchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f]{16}$/),
  memories: z.int().min(1),
  writer: z.string(),
  deleted: z.array(z.int().min(0)),
}) satisfies z.ZodType<SegmentEntry>;

const descriptionSchema = z.strictObject({
  format: z.literal('memory3-segment'),
  formatVersion: z.literal(FORMAT_VERSION),
  memories: z.int().min(1),
  modelKey: z.string(),
  tokenizerHash: z.string(),
  writer: z.string(),
  layout: z.strictObject({
    memoryLayers: z.int(),
    kvHeads: z.int(),
    keptTokens: z.int(),
    headDim: z.int(),
  }),
  storage: z.string(),
  codecs: codecsSchema.optional(),
  encoder: z.record(z.string(), z.unknown()),
  dimensions: z.int().min(1),
  files: z.strictObject({ [RECORDS]: blockSums, [ROWS]: blockSums, [INDEX]: blockSums }),
});
type Description = z.infer<typeof descriptionSchema>;

/** Memories as they are stored. */
export interface StoredBatch {
  records: readonly MemoryRecord[];
  /** [n, rowBytes] */
  rows: Uint8Array;
  /** [n, dimensions] */
  vectors: Float32Array;
}

/** Folder of a segment inside its bank. */
export function segmentFolder(bankFolder: string, id: string): string {
  return join(bankFolder, `segment-${id}`);
}

/** Ids of the segment folders that lie in a bank folder, listed in a manifest or not. */
export async function segmentsOnDisk(bankFolder: string): Promise<string[]> {
  const names = await readdir(bankFolder);
  return names.filter((name) => name.startsWith('segment-')).map((name) => name.slice('segment-'.length));
}

/** Bytes of the files of a segment, by what they hold. */
export async function segmentBytes(
  bankFolder: string,
  id: string,
): Promise<{ rows: number; vectors: number; records: number }> {
  const size = async (name: string): Promise<number> => (await stat(join(segmentFolder(bankFolder, id), name))).size;
  return { rows: await size(ROWS), vectors: await size(INDEX), records: await size(RECORDS) };
}

/** Writes one segment beside its final place; nothing is visible before `finish`. */
export class SegmentWriter {
  #bankFolder: string;
  #temporary: string;
  #identity: BankIdentity;
  #writer: string;
  #rows: BlockFileWriter;
  #index: BlockFileWriter;
  #records: MemoryRecord[] = [];

  private constructor(
    bankFolder: string,
    identity: BankIdentity,
    writer: string,
    files: [BlockFileWriter, BlockFileWriter],
  ) {
    this.#bankFolder = bankFolder;
    this.#temporary = temporaryFolder(bankFolder);
    this.#identity = identity;
    this.#writer = writer;
    [this.#rows, this.#index] = files;
  }

  static async create(bankFolder: string, identity: BankIdentity, writer: string): Promise<SegmentWriter> {
    const temporary = temporaryFolder(bankFolder);
    const blockBytes = blockSizes(identity);
    const open = (name: typeof ROWS | typeof INDEX) => BlockFileWriter.create(join(temporary, name), blockBytes[name]);
    let rows: BlockFileWriter | undefined;
    try {
      await rm(temporary, { recursive: true, force: true });
      await mkdir(temporary);
      rows = await open(ROWS);
      const index = await open(INDEX);
      return new SegmentWriter(bankFolder, identity, writer, [rows, index]);
    } catch (error) {
      await rows?.abandon();
      await rm(temporary, { recursive: true, force: true });
      throw diskError(error, bankFolder);
    }
  }

  get memories(): number {
    return this.#records.length;
  }

  /** Ids of the memories, by row. */
  get ids(): string[] {
    return this.#records.map((record) => record.id);
  }

  /** Adds memories [from, until) of a batch whose shapes were checked by the caller. */
  async add(batch: StoredBatch, from: number, until: number): Promise<void> {
    const { encoder } = this.#identity;
    const { rowBytes } = rowFormat(this.#identity);
    try {
      await this.#rows.write(batch.rows.subarray(from * rowBytes, until * rowBytes));
      await this.#index.write(floatBytes(batch.vectors, from * encoder.dimensions, until * encoder.dimensions));
    } catch (error) {
      throw diskError(error, this.#bankFolder);
    }
    this.#records.push(...batch.records.slice(from, until));
  }

  /**
   * Fsyncs everything and renames the segment to its place, also to that of a damaged one. The same memories always give
   * the same segment.
   */
  async finish(): Promise<SegmentEntry> {
    try {
      const records = encodeRecords(this.#records, keptCount(this.#identity.layout));
      const description = describe(this.#identity, this.#writer, this.#records.length, {
        [RECORDS]: await BlockFileWriter.writeFile(join(this.#temporary, RECORDS), records),
        [ROWS]: await this.#rows.finish(),
        [INDEX]: await this.#index.finish(),
      });
      await writeJsonAtomic(join(this.#temporary, DESCRIPTION), description);
      const id = segmentId(descriptionText(description));
      const entry = { id, memories: this.#records.length, writer: this.#writer, deleted: [] };
      await this.#moveTo(entry);
      return entry;
    } catch (error) {
      throw diskError(error, this.#bankFolder);
    }
  }

  /** Removes what was written. */
  async abandon(): Promise<void> {
    await this.#rows.abandon();
    await this.#index.abandon();
    await rm(this.#temporary, { recursive: true, force: true });
  }

  async #moveTo(entry: SegmentEntry): Promise<void> {
    const folder = segmentFolder(this.#bankFolder, entry.id);
    try {
      await rename(this.#temporary, folder);
    } catch (error) {
      if (!isSystemError(error) || (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST')) throw error;
      // A folder of this name holds exactly these memories, for its name is their hash, unless it was damaged since.
      const isWhole = await SegmentReader.isWhole(this.#bankFolder, entry, this.#identity);
      if (isWhole) await rm(this.#temporary, { recursive: true, force: true });
      else await replaceFolder(this.#temporary, folder);
    }
    await syncFolder(this.#bankFolder);
  }
}

/** Reads one segment. Its files stay open, so that it can be read even after a writer has pruned it. */
export class SegmentReader {
  readonly entry: SegmentEntry;
  readonly folder: string;
  #identity: BankIdentity;
  #records: BlockFile;
  #rows: BlockFile;
  #index: BlockFile;

  private constructor(
    entry: SegmentEntry,
    folder: string,
    identity: BankIdentity,
    files: [BlockFile, BlockFile, BlockFile],
  ) {
    this.entry = entry;
    this.folder = folder;
    this.#identity = identity;
    [this.#records, this.#rows, this.#index] = files;
  }

  /**
   * Opens the segment of a manifest entry.
   * @throws UserError artefact_missing, file_truncated, file_corrupt, version_unsupported or artefact_mismatch
   */
  static async open(bankFolder: string, entry: SegmentEntry, identity: BankIdentity): Promise<SegmentReader> {
    const folder = segmentFolder(bankFolder, entry.id);
    const description = await readDescription(bankFolder, entry);
    checkOwner(description, entry, identity, folder);
    const opened: BlockFile[] = [];
    try {
      for (const name of FILES) {
        opened.push(await BlockFile.open(join(folder, name), description.files[name], repairAction(bankFolder)));
      }
    } catch (error) {
      await Promise.all(opened.map((file) => file.close()));
      throw error;
    }
    return new SegmentReader(entry, folder, identity, opened as [BlockFile, BlockFile, BlockFile]);
  }

  /** Whether every byte of a segment is there and right. */
  static async isWhole(bankFolder: string, entry: SegmentEntry, identity: BankIdentity): Promise<boolean> {
    let reader: SegmentReader | undefined;
    try {
      reader = await SegmentReader.open(bankFolder, entry, identity);
      await reader.verify();
      return true;
    } catch (error) {
      if (error instanceof UserError) return false;
      throw error;
    } finally {
      await reader?.close();
    }
  }

  /**
   * Opens what is left of a damaged segment: what can be read is right, the rest fails when it is read.
   * @throws UserError when it cannot be told any more what the files held
   */
  static async salvage(bankFolder: string, entry: SegmentEntry, identity: BankIdentity): Promise<SegmentReader> {
    const folder = segmentFolder(bankFolder, entry.id);
    const description = await readDescription(bankFolder, entry).catch(async (error: unknown) => {
      const same = await descriptionOfFiles(folder, entry, identity).catch(() => undefined);
      if (same === undefined || segmentId(descriptionText(same)) !== entry.id) throw error;
      return same;
    });
    const open = (name: (typeof FILES)[number]): Promise<BlockFile> =>
      BlockFile.salvage(join(folder, name), description.files[name], repairAction(bankFolder));
    return new SegmentReader(entry, folder, identity, [await open(RECORDS), await open(ROWS), await open(INDEX)]);
  }

  /** All records, decoded; the whole file is checked and read, a few MB for a full segment. */
  async records(): Promise<RecordTable> {
    const bytes = await this.#records.read(0, this.#records.bytes);
    const table = new RecordTable(bytes);
    if (table.length !== this.entry.memories) {
      const what = `the file holds ${table.length} memories, its description says ${this.entry.memories}`;
      const action = repairAction(join(this.folder, '..'));
      throw new UserError('file_corrupt', { where: this.#records.path, what, action });
    }
    return table;
  }

  /** Rows [from, until) as they are stored, in one read of exactly their bytes once a block is checked. */
  async rows(from: number, until: number): Promise<Uint8Array> {
    const { rowBytes } = rowFormat(this.#identity);
    return await this.#rows.read(from * rowBytes, (until - from) * rowBytes);
  }

  /** Reads a row into `target` at once if its bytes were checked before. @returns false when nothing was read */
  readChecked(row: number, target: Uint8Array): boolean {
    return this.#rows.readChecked(target, row * target.byteLength);
  }

  /** The file of the rows, to read row `row` from at row · rowBytes, once its bytes were checked; valid until `close`. */
  checkedDescriptor(row: number, rowBytes: number): number | undefined {
    return this.#rows.checkedDescriptor(row * rowBytes, rowBytes);
  }

  /** Retrieval vectors [from, until), [until − from, dimensions]. */
  async vectors(from: number, until: number): Promise<Float32Array> {
    const rowBytes = this.#identity.encoder.dimensions * FLOAT_BYTES;
    return new Float32Array((await this.#index.read(from * rowBytes, (until - from) * rowBytes)).buffer);
  }

  /** The memories that are not deleted, in runs of neighbours of about 4 MiB. */
  async *liveBatches(): AsyncGenerator<StoredBatch> {
    const records = await this.records();
    const atOnce = Math.max(1, Math.floor(BATCH_BYTES / rowFormat(this.#identity).rowBytes));
    let next = 0;
    for (const end of [...this.entry.deleted, this.entry.memories]) {
      for (let from = next; from < end; from += atOnce) {
        const until = Math.min(end, from + atOnce);
        const [rows, vectors] = [await this.rows(from, until), await this.vectors(from, until)];
        yield { records: Array.from({ length: until - from }, (_, i) => records.record(from + i)), rows, vectors };
      }
      next = end + 1;
    }
  }

  /** Reads every byte and checks it. @throws UserError file_corrupt or file_truncated, naming the file */
  async verify(): Promise<void> {
    for (const file of [this.#records, this.#rows, this.#index]) await file.verify();
  }

  /** The records as they lie in the file, right or not; for telling what was lost. */
  async uncheckedRecords(): Promise<RecordTable> {
    return new RecordTable(await readFile(this.#records.path));
  }

  async close(): Promise<void> {
    await Promise.all([this.#records.close(), this.#rows.close(), this.#index.close()]);
  }
}

/** Everything wrong with the files of a segment, each named; empty when it is whole. */
export async function segmentProblems(
  bankFolder: string,
  entry: SegmentEntry,
  identity: BankIdentity,
): Promise<UserError[]> {
  const folder = segmentFolder(bankFolder, entry.id);
  const problems: UserError[] = [];
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      problems.push(error);
    }
  };
  await attempt(async () => {
    const description = await readDescription(bankFolder, entry);
    checkOwner(description, entry, identity, folder);
    for (const name of FILES) {
      await attempt(async () => {
        const file = await BlockFile.open(join(folder, name), description.files[name], repairAction(bankFolder));
        await file.verify().finally(() => file.close());
      });
    }
  });
  return problems;
}

async function readDescription(bankFolder: string, entry: SegmentEntry): Promise<Description> {
  const action = repairAction(bankFolder);
  const path = join(segmentFolder(bankFolder, entry.id), DESCRIPTION);
  const text = await readStored(path, action);
  const description = parseStored(text, descriptionSchema, FORMAT_VERSION, path, action);
  if (segmentId(text) === entry.id) return description;
  const what = 'the file does not match the name of its folder';
  throw new UserError('file_corrupt', { where: path, what, action });
}

/** The description that the files of a segment have as they are. */
async function descriptionOfFiles(folder: string, entry: SegmentEntry, identity: BankIdentity): Promise<Description> {
  const blockBytes = blockSizes(identity);
  const sums = (name: (typeof FILES)[number]) => BlockFile.sumsOf(join(folder, name), blockBytes[name]);
  return describe(identity, entry.writer, entry.memories, {
    [RECORDS]: await sums(RECORDS),
    [ROWS]: await sums(ROWS),
    [INDEX]: await sums(INDEX),
  });
}

function blockSizes(identity: BankIdentity): Record<(typeof FILES)[number], number> {
  return {
    [RECORDS]: BLOCK_BYTES,
    [ROWS]: blockBytesFor(rowFormat(identity).rowBytes),
    [INDEX]: blockBytesFor(identity.encoder.dimensions * FLOAT_BYTES),
  };
}

function describe(
  { layout, storage, codecs, encoder, modelKey, tokenizerHash }: BankIdentity,
  writer: string,
  memories: number,
  files: Description['files'],
): Description {
  return {
    format: 'memory3-segment',
    formatVersion: FORMAT_VERSION,
    memories,
    modelKey,
    tokenizerHash,
    writer,
    layout,
    storage,
    codecs: codecs && describeCodecs(codecs),
    encoder: encoder.description,
    dimensions: encoder.dimensions,
    files,
  };
}

function checkOwner(description: Description, entry: SegmentEntry, identity: BankIdentity, folder: string): void {
  const sides: [string, unknown, unknown][] = [
    ['model', description.modelKey, identity.modelKey],
    ['tokenizer', description.tokenizerHash, identity.tokenizerHash],
    ['writer', description.writer, entry.writer],
    ['number of memories', description.memories, entry.memories],
    ['storage', description.storage, identity.storage],
    ['codec of keys', description.codecs?.keys.stateHash, identity.codecs?.keys.stateHash],
    ['codec of values', description.codecs?.values.stateHash, identity.codecs?.values.stateHash],
  ];
  for (const [name, found, expected] of sides) {
    if (found === expected) continue;
    const what = `the segment has ${name} ${found}, its bank says ${expected}`;
    throw new UserError('artefact_mismatch', { where: folder, what, action: repairAction(join(folder, '..')) });
  }
}

function floatBytes(values: Float32Array, from: number, until: number): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset + from * FLOAT_BYTES, (until - from) * FLOAT_BYTES);
}

function temporaryFolder(bankFolder: string): string {
  return temporaryName(join(bankFolder, 'segment'));
}

/** The text that `writeJsonAtomic` writes. */
function descriptionText(description: Description): string {
  return `${JSON.stringify(description, null, 2)}\n`;
}

function segmentId(descriptionText: string): string {
  return sha256(descriptionText).slice(0, 16);
}
