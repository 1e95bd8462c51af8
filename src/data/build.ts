/**
 * From corpora to what training reads: tokenizer, token dataset and references in one folder. The folder is built beside
 * and swapped in whole; a folder that was built from the same settings and files is kept.
 */

import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { DataConfig, MemoryConfig, SourceConfig } from '../config/schema.ts';
import { isSystemError, UserError } from '../errors.ts';
import {
  makeFolder,
  readJson,
  replaceFolder,
  sha256,
  sha256File,
  temporaryName,
  writeFileAtomic,
  writeJsonAtomic,
} from '../io/files.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import { trainBpe } from './bpe_trainer.ts';
import { type DataCounters, type Document, listSourceFiles, newCounters, readDocuments } from './documents.ts';
import { inGroups } from './groups.ts';
import { countersSchema, REBUILD } from './manifest.ts';
import { cutReferences, ReferenceDataset, type ReferenceManifest, writeReferences } from './references.ts';
import { textPieces } from './text_pieces.ts';
import { type Split, TokenDataset, TokenDatasetWriter, type TokenManifest } from './token_dataset.ts';
import { Tokenizer } from './tokenizer.ts';

/** Raised whenever the same inputs would give other data. */
const VERSION = 1;
/** The tokenizer's sample is drawn in pieces of so many code units, so that one huge document cannot be all of it. */
const SAMPLE_PIECE = 65_536;

/** Paths inside a data folder. */
export function dataPaths(folder: string) {
  return {
    tokenizer: join(folder, 'tokenizer.json'),
    tokens: join(folder, 'tokens'),
    /** Text of its own for stage two; absent without `data.continual.sources`. */
    continualTokens: join(folder, 'continual-tokens'),
    references: join(folder, 'references'),
    /** Settings, input files and report of the build; written last. */
    build: join(folder, 'build.json'),
  };
}

export interface BuildProgress {
  phase: 'tokenizer' | 'tokens' | 'continual tokens' | 'references';
  /** Documents read so far in this phase. */
  documents: number;
  /** Bytes of the input files read so far in this phase, and in all. */
  bytes: number;
  totalBytes: number;
}

const splitReport = z.strictObject({ documents: z.int(), tokens: z.int(), bytes: z.int() });
const reportSchema = z.strictObject({
  tokenizer: z.strictObject({ hash: z.string(), vocabSize: z.int(), trained: z.boolean() }),
  train: splitReport,
  validation: splitReport,
  /** Text of stage two, when it has its own. */
  continual: z.strictObject({ train: splitReport, validation: splitReport }).optional(),
  references: z.strictObject({ documents: z.int(), references: z.int(), tokens: z.int() }),
  /** What was read and skipped in `data.sources` and in `data.references`. */
  counters: z.strictObject({ sources: countersSchema, references: countersSchema }),
  /** What a user should know although it is no error. */
  warnings: z.array(z.string()),
  /** Hash of tokenizer, tokens and references. */
  contentHash: z.string(),
});
const buildSchema = z.strictObject({
  version: z.literal(VERSION),
  settings: z.record(z.string(), z.unknown()),
  files: z.array(z.strictObject({ path: z.string(), size: z.int(), modified: z.number(), sha256: z.string() })),
  report: reportSchema,
});
type InputFile = z.infer<typeof buildSchema>['files'][number];

export type DataReport = z.infer<typeof reportSchema> & {
  folder: string;
  /** True when the folder was already complete. */
  kept: boolean;
  /** Why it was kept or built. */
  reason: string;
};

/**
 * Makes `folder` hold the data that the configuration asks for: `tokenizer.json`, `tokens/`, `references/`, `build.json`.
 * Data built from the same settings and the same input files is kept, whatever else is built anew beside and swapped in.
 * The same inputs give the same bytes and content hashes.
 * @param seed chooses, with a hash of each document, the validation split and the tokenizer's sample
 * @throws UserError config_invalid, input_missing, input_invalid, input_empty, disk_full
 */
export async function buildData(
  data: DataConfig,
  memory: MemoryConfig,
  folder: string,
  seed: number,
  onProgress: (progress: BuildProgress) => void = () => undefined,
): Promise<DataReport> {
  if (data.sources.length === 0) {
    const action = 'name at least one corpus under `data.sources`';
    throw new UserError('config_invalid', { where: 'data.sources', what: 'there is no training text', action });
  }
  const settings = settingsOf(data, memory, seed);
  const before = await readBuild(folder);
  const files = await inputFiles(data, before?.files ?? []);
  const reason = await reasonToBuild(folder, before, settings, files);
  if (reason === undefined && before) {
    return { ...before.report, folder, kept: true, reason: 'complete, and made from the same settings and files' };
  }
  const temporary = temporaryName(folder);
  try {
    await makeFolder(temporary);
    const report = await new Build(data, memory, temporary, seed, files, onProgress).run();
    await writeJsonAtomic(dataPaths(temporary).build, { version: VERSION, settings, files, report });
    await replaceFolder(temporary, folder);
    return { ...report, folder, kept: false, reason: reason ?? 'not built before' };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Everything in the configuration that the data depends on. */
function settingsOf(data: DataConfig, memory: MemoryConfig, seed: number): Record<string, unknown> {
  const { sources, continual, references, tokenizer, shardBytes, validationShare, minDocumentCharacters } = data;
  return {
    data: { sources, continual, references, tokenizer, shardBytes, validationShare, minDocumentCharacters },
    memory: { referenceTokens: memory.referenceTokens },
    seed,
  };
}

/** What the folder says it was built from; undefined when there is no (readable) build. */
async function readBuild(folder: string): Promise<z.infer<typeof buildSchema> | undefined> {
  try {
    return buildSchema.safeParse(await readJson(dataPaths(folder).build, REBUILD)).data;
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/** Input files with their hashes; a file of the same size and time as in `known` is not read again. */
async function inputFiles(data: DataConfig, known: readonly InputFile[]): Promise<InputFile[]> {
  const listed = await listSourceFiles([...data.sources, ...data.continual.sources, ...data.references]);
  const paths = new Set([...listed.map(({ path }) => path), ...(data.tokenizer.path ? [data.tokenizer.path] : [])]);
  const files: InputFile[] = [];
  for (const path of paths) {
    const { size, mtimeMs: modified } = await stat(path).catch((cause: unknown) => {
      if (!isSystemError(cause)) throw cause;
      throw new UserError('input_missing', { where: path, what: 'no such file', action: 'check the path', cause });
    });
    const same = known.find((file) => file.path === path && file.size === size && file.modified === modified);
    files.push(same ?? { path, size, modified, sha256: await sha256File(path) });
  }
  return files;
}

/** Why the folder cannot be used as it is, in words; undefined when it can. */
async function reasonToBuild(
  folder: string,
  before: z.infer<typeof buildSchema> | undefined,
  settings: Record<string, unknown>,
  files: readonly InputFile[],
): Promise<string | undefined> {
  if (!before) return 'not built before';
  const setting = firstDifference(before.settings, settings);
  if (setting) return setting;
  const hashes = new Map(before.files.map((file) => [file.path, file.sha256]));
  const changed = files.find((file) => hashes.get(file.path) !== file.sha256);
  if (changed) return `${changed.path} is ${hashes.has(changed.path) ? 'another file than before' : 'new'}`;
  if (files.length !== before.files.length) return 'input files were removed';
  try {
    const tokenizerHash = (await Tokenizer.load(dataPaths(folder).tokenizer)).hash;
    await TokenDataset.open(dataPaths(folder).tokens, 'train', { tokenizerHash });
    await TokenDataset.open(dataPaths(folder).tokens, 'validation', { tokenizerHash });
    if (before.report.continual) await TokenDataset.open(dataPaths(folder).continualTokens, 'train', { tokenizerHash });
    await ReferenceDataset.open(dataPaths(folder).references, { tokenizerHash });
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/** The first leaf where two JSON values differ, as `path changed from a to b`. */
function firstDifference(before: unknown, now: unknown, path = ''): string | undefined {
  const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
  if (isObject(before) && isObject(now)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
    for (const key of keys) {
      const difference = firstDifference(before[key], now[key], path === '' ? key : `${path}.${key}`);
      if (difference) return difference;
    }
    return undefined;
  }
  const [a, b] = [JSON.stringify(before), JSON.stringify(now)];
  return a === b ? undefined : `${path} changed from ${a ?? 'nothing'} to ${b ?? 'nothing'}`;
}

/** One build into a folder of its own. */
class Build {
  readonly #data: DataConfig;
  readonly #memory: MemoryConfig;
  readonly #paths: ReturnType<typeof dataPaths>;
  readonly #seed: number;
  readonly #sizes: Map<string, number>;
  readonly #onProgress: (progress: BuildProgress) => void;

  constructor(
    data: DataConfig,
    memory: MemoryConfig,
    folder: string,
    seed: number,
    files: readonly InputFile[],
    onProgress: (progress: BuildProgress) => void,
  ) {
    this.#data = data;
    this.#memory = memory;
    this.#paths = dataPaths(folder);
    this.#seed = seed;
    this.#sizes = new Map(files.map(({ path, size }) => [path, size]));
    this.#onProgress = onProgress;
  }

  async run(): Promise<z.infer<typeof reportSchema>> {
    await this.#makeTokenizer();
    const tokenizer = await Tokenizer.load(this.#paths.tokenizer);
    const { sources, continual } = this.#data;
    const tokens = await this.#writeTokens(tokenizer, 'tokens', this.#paths.tokens, sources, 1);
    const stageTwo =
      continual.sources.length > 0
        ? await this.#writeTokens(
            tokenizer,
            'continual tokens',
            this.#paths.continualTokens,
            continual.sources,
            continual.alignDocuments,
          )
        : undefined;
    const references = await this.#writeReferences(tokenizer);
    const trained = this.#data.tokenizer.path === undefined;
    return {
      tokenizer: { hash: tokenizer.hash, vocabSize: tokenizer.vocabSize, trained },
      ...splitReports(tokens),
      continual: stageTwo && splitReports(stageTwo),
      references: {
        documents: references.counters.documents,
        references: references.references,
        tokens: references.tokens,
      },
      counters: { sources: tokens.counters, references: references.counters },
      warnings: this.#warnings(tokenizer, tokens, references),
      contentHash: sha256(tokenizer.hash, tokens.contentHash, stageTwo?.contentHash ?? '', references.contentHash),
    };
  }

  /** Copies the given tokenizer, or trains one on a sample of the training documents. */
  async #makeTokenizer(): Promise<void> {
    const { path, vocabSize } = this.#data.tokenizer;
    if (path !== undefined) {
      await Tokenizer.load(path);
      await writeFileAtomic(this.#paths.tokenizer, await readFile(path));
    } else {
      const json = await trainBpe(this.#sampleTexts(), { vocabSize });
      await writeFileAtomic(this.#paths.tokenizer, JSON.stringify(json));
    }
  }

  /** About `sampleBytes` of the training text, pieces chosen by hash, so that every source has its share. */
  async *#sampleTexts(): AsyncGenerator<string> {
    const sources = [...this.#data.sources, ...this.#data.continual.sources];
    const share = this.#data.tokenizer.sampleBytes / (await this.#sizeOf(sources));
    for await (const document of this.#read('tokenizer', sources, newCounters())) {
      const key = documentKey(document);
      if (this.#splitOf(key) !== 'train') continue;
      let piece = 0;
      for (const text of textPieces(document.text, SAMPLE_PIECE)) {
        piece += 1;
        if (randomUniform(this.#seed, PURPOSE.split, piece, key) < share) yield text;
      }
    }
  }

  /** @param alignment every document begins at a multiple of so many tokens */
  async #writeTokens(
    tokenizer: Tokenizer,
    phase: 'tokens' | 'continual tokens',
    folder: string,
    sources: readonly SourceConfig[],
    alignment: number,
  ): Promise<TokenManifest> {
    const counters = newCounters();
    const writer = new TokenDatasetWriter(folder, {
      tokenizerHash: tokenizer.hash,
      vocabSize: tokenizer.vocabSize,
      pad: alignment > 1 ? tokenizer.pad : undefined,
      shardTokens: this.#data.shardBytes,
    });
    try {
      for await (const group of inGroups(this.#read(phase, sources, counters))) {
        const encoded = await tokenizer.encodeBatch(group.map(({ text }) => text));
        for (const [i, document] of group.entries()) {
          const ids = new Int32Array(1 + encoded[i]!.length);
          ids[0] = tokenizer.bos;
          ids.set(encoded[i]!, 1);
          await writer.append(this.#splitOf(documentKey(document)), document, ids);
        }
      }
      if (counters.documents === 0) throw nothingUsable(counters);
      return await writer.finish(counters);
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  async #writeReferences(tokenizer: Tokenizer): Promise<ReferenceManifest> {
    const { referenceTokens } = this.#memory;
    const counters = newCounters();
    const documents = this.#read('references', this.#data.references, counters);
    const options = { tokenizerHash: tokenizer.hash, vocabSize: tokenizer.vocabSize, referenceTokens };
    const references = cutReferences(documents, tokenizer, referenceTokens);
    return await writeReferences(this.#paths.references, references, options, counters);
  }

  /** Documents of `sources` with progress. References keep ids of their own, so a second document of an id is skipped. */
  async *#read(
    phase: BuildProgress['phase'],
    sources: readonly SourceConfig[],
    counters: DataCounters,
  ): AsyncGenerator<Document> {
    const isReference = phase === 'references';
    const options = isReference ? { uniqueIds: true } : { minCharacters: this.#data.minDocumentCharacters };
    const totalBytes = await this.#sizeOf(sources);
    let path = '';
    let finished = 0;
    for await (const document of readDocuments(sources, counters, options)) {
      if (document.source.path !== path) {
        finished += this.#sizes.get(path) ?? 0;
        path = document.source.path;
      }
      this.#onProgress({ phase, documents: counters.documents, bytes: finished + document.source.offset, totalBytes });
      yield document;
    }
    this.#onProgress({ phase, documents: counters.documents, bytes: totalBytes, totalBytes });
  }

  async #sizeOf(sources: readonly SourceConfig[]): Promise<number> {
    const files = await listSourceFiles(sources);
    return files.reduce((sum, { path }) => sum + (this.#sizes.get(path) ?? 0), 0);
  }

  #splitOf(key: number): Split {
    return randomUniform(this.#seed, PURPOSE.split, 0, key) < this.#data.validationShare ? 'validation' : 'train';
  }

  #warnings(tokenizer: Tokenizer, tokens: TokenManifest, references: ReferenceManifest): string[] {
    const { vocabSize, path } = this.#data.tokenizer;
    const { sequenceLength, validationShare } = this.#data;
    const warnings: string[] = [];
    if (path === undefined && tokenizer.vocabSize < vocabSize) {
      warnings.push(
        `the vocabulary has ${tokenizer.vocabSize} tokens, not ${vocabSize}: no further pair occurs twice in the sample`,
      );
    }
    const { train, validation } = tokens.splits;
    if (train.tokens <= sequenceLength) {
      warnings.push(`${train.tokens} training tokens do not fill one sequence of ${sequenceLength}`);
    }
    if (validationShare > 0 && validation.tokens <= sequenceLength) {
      warnings.push(`${validation.tokens} validation tokens do not fill one sequence of ${sequenceLength}`);
    }
    if (this.#data.references.length > 0 && references.references === 0) {
      warnings.push('`data.references` holds no usable text');
    }
    return warnings;
  }
}

function splitReports({ splits: { train, validation } }: TokenManifest): Pick<DataReport, 'train' | 'validation'> {
  const report = ({ documents, tokens, bytes }: z.infer<typeof splitReport>) => ({ documents, tokens, bytes });
  return { train: report(train), validation: report(validation) };
}

/** 48 bits of a hash of the document: the number under which its random choices are looked up. */
function documentKey(document: Document): number {
  return Number.parseInt(sha256(document.id, '\0', document.text).slice(0, 12), 16);
}

function nothingUsable(counters: DataCounters): UserError {
  const reasons = Object.entries(counters.skipped).map(([reason, count]) => `${count} × ${reason}`);
  const example = counters.examples[0];
  return new UserError('input_empty', {
    where: example ? `${example.path} at byte ${example.offset}` : 'data.sources',
    what: `no usable document in data.sources (skipped: ${reasons.join(', ') || 'none'})${example ? `: ${example.detail}` : ''}`,
    action: 'check `textField`, the encoding of the files and `data.minDocumentCharacters`',
  });
}
