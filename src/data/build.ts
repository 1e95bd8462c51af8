/**
 * From corpora to what training reads: tokenizer, token dataset and references in one folder. The folder is built beside
 * and swapped in whole; a folder that was built from the same settings and files is kept. A build that was killed goes on
 * where its last whole shard ends, and gives the same bytes as one that was not.
 */

import { readFile, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import type { DataConfig, MemoryConfig, SourceConfig } from '../config/schema.ts';
import { ignoreUserError, isSystemError, UserError } from '../errors.ts';
import { physicalCores } from '../io/cores.ts';
import {
  cleanLeftovers,
  exists,
  makeFolder,
  readJson,
  replaceFolder,
  sha256,
  sha256File,
  writeFileAtomic,
  writeJsonAtomic,
} from '../io/files.ts';
import { WorkerPool } from '../io/worker_pool.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import { checkSize } from './arrow_file.ts';
import { type BpeProgress, extendBpe, toExtend, trainBpe } from './bpe_trainer.ts';
import { type CleanReport, type CleanShard, cleanDocuments } from './clean_documents.ts';
import { readDocumentShard } from './document_shards.ts';
import { type DataCounters, listSourceFiles, newCounters, readDocuments } from './documents.ts';
import {
  type EncodeJob,
  type EncodeResult,
  type EncodeSetup,
  encodeResultSchema,
  encodeShard,
} from './encode_shard.ts';
import { countersSchema, REBUILD } from './manifest.ts';
import { cutReferences, ReferenceDataset, type ReferenceManifest, writeReferences } from './references.ts';
import {
  type Example,
  exampleSchema,
  type ShownReport,
  type SourceReport,
  sourceReportSchema,
  stageTimeSchema,
} from './report.ts';
import { type SourceGroup, sourceGroups, sourceWeights } from './source_groups.ts';
import { isBadInput, placeOf } from './sources/problem.ts';
import { documentKey, splitOf } from './split.ts';
import { textPieces } from './text_pieces.ts';
import { joinSplits, SPLITS, type Split, TokenDataset, type TokenSplit, writeTokenManifest } from './token_dataset.ts';
import { encodeOnOneThread, Tokenizer } from './tokenizer.ts';

/** Raised whenever the same inputs would give other data. */
const VERSION = 2;
/** The tokenizer's sample is drawn in pieces of so many code units, so that one huge document cannot be all of it. */
const SAMPLE_PIECE = 65_536;
/** Less text than this is not worth starting threads for. */
const THREADS_FROM = 4 * 2 ** 20;

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
    /** What a build that is under way needs to go on; gone when it is complete. */
    underWay: join(folder, 'under-way'),
  };
}

type TokensPhase = 'tokens' | 'continual tokens';

export interface BuildProgress {
  phase:
    | ('documents' | 'continual documents' | 'tokenizer text')
    | ('tokenizer' | 'merges' | TokensPhase)
    | 'references';
  /** Documents, shards or merges done in this phase. */
  done: number;
  /** Bytes done in this phase, and in all: of the input files, or of text; `merges` counts tokens. */
  bytes: number;
  totalBytes: number;
}

const reportSchema = z.strictObject({
  tokenizer: z.strictObject({ hash: z.string(), vocabSize: z.int(), trained: z.boolean() }),
  /** What became of `data.sources`, and of the text of stage two when it has its own. */
  sources: z.array(sourceReportSchema),
  continual: z.array(sourceReportSchema).optional(),
  references: z.strictObject({ references: z.int(), tokens: z.int(), counters: countersSchema }),
  examples: z.array(exampleSchema),
  stages: z.array(stageTimeSchema),
  /** What a user should know although it is no error. */
  warnings: z.array(z.string()),
  /** Hash of tokenizer, tokens and references. */
  contentHash: z.string(),
});
export type BuildReport = z.infer<typeof reportSchema>;

const fileSchema = z.strictObject({ path: z.string(), size: z.int(), modified: z.number(), sha256: z.string() });
type InputFile = z.infer<typeof fileSchema>;
/** What a build is made from. */
const planSchema = z.strictObject({
  version: z.literal(VERSION),
  settings: z.record(z.string(), z.unknown()),
  files: z.array(fileSchema),
});
type Plan = z.infer<typeof planSchema>;
const buildSchema = planSchema.extend({ report: reportSchema });

export type DataReport = BuildReport & {
  folder: string;
  /** True when the folder was already complete. */
  kept: boolean;
  /** Why it was kept or built. */
  reason: string;
};

/**
 * Makes `folder` hold the data that the configuration asks for: `tokenizer.json`, `tokens/`, `references/`, `build.json`.
 * Data built from the same settings and the same input files is kept, whatever else is built anew beside and swapped in.
 * The same inputs give the same bytes and content hashes, with any number of workers.
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
  const work = workFolder(folder);
  const [before, unfinished] = [await readBuild(folder), await readPlan(work)];
  const files = await inputFiles(data, [...(before?.files ?? []), ...(unfinished?.files ?? [])]);
  const plan: Plan = { version: VERSION, settings: settingsOf(data, memory, seed), files };
  const reason = (await reasonToBuild(folder, before, plan)) ?? reasonToReadAgain(data, before?.report);
  if (reason === undefined && before) {
    const why = 'complete, and made from the same settings and files';
    return { ...before.report, folder, kept: true, reason: why };
  }
  await checkTokenizer(data.tokenizer);
  const made = (await readBuild(work))?.report;
  const goesOn =
    unfinished !== undefined &&
    planDifference(unfinished, plan) === undefined &&
    reasonToReadAgain(data, made) === undefined;
  if (!goesOn) await startAnew(work, plan);
  else await cleanLeftovers(work);
  try {
    const report = (goesOn && made) || (await new Build(data, memory, work, seed, files, onProgress).run());
    await writeJsonAtomic(dataPaths(work).build, { ...plan, report });
    await rm(dataPaths(work).underWay, { recursive: true, force: true });
    await replaceFolder(work, folder);
    const why = `${reason ?? 'not built before'}${goesOn ? '; went on with what an earlier build had done' : ''}`;
    return { ...report, folder, kept: false, reason: why };
  } catch (error) {
    // What can only be put right by other settings or files leaves nothing that could be used again.
    if (error instanceof UserError && /^(config|input)_/.test(error.code)) await discard(work);
    throw error;
  }
}

/** Finds what is wrong with a given tokenizer before all text is read. @throws UserError input_invalid, config_invalid */
async function checkTokenizer({ path, extend, vocabSize }: DataConfig['tokenizer']): Promise<void> {
  const given = path ?? extend;
  if (given !== undefined) await Tokenizer.load(given);
  if (extend !== undefined) toExtend(await readFile(extend, 'utf8'), { path: extend, vocabSize });
}

/** Where a build of `folder` is made. */
function workFolder(folder: string): string {
  return join(dirname(folder), `.${basename(folder)}.building`);
}

async function startAnew(work: string, plan: Plan): Promise<void> {
  await discard(work);
  await makeFolder(dataPaths(work).underWay);
  await writeJsonAtomic(planPath(work), plan);
}

/** Killed in the middle of it, nothing is left that a build would go on with. */
async function discard(work: string): Promise<void> {
  for (const path of [dataPaths(work).build, planPath(work), work]) await rm(path, { recursive: true, force: true });
}

const planPath = (work: string) => join(dataPaths(work).underWay, 'plan.json');

/** Everything in the configuration that the data depends on. */
function settingsOf(data: DataConfig, memory: MemoryConfig, seed: number): Record<string, unknown> {
  // Weights are for reading.
  const unweighted = (sources: readonly SourceConfig[]) => sources.map(({ weight: _, ...source }) => source);
  const { cleaning, deduplication, tokenizer, shardBytes, validationShare, minDocumentCharacters } = data;
  return {
    data: {
      sources: unweighted(data.sources),
      continual: { ...data.continual, sources: unweighted(data.continual.sources) },
      references: data.references,
      ...{ cleaning, deduplication, tokenizer, shardBytes, validationShare, minDocumentCharacters },
    },
    memory: { referenceTokens: memory.referenceTokens },
    seed,
  };
}

/** What the folder says it was built from; undefined when there is no (readable) build. */
async function readBuild(folder: string): Promise<z.infer<typeof buildSchema> | undefined> {
  return buildSchema.safeParse(await readJson(dataPaths(folder).build, REBUILD).catch(ignoreUserError)).data;
}

async function readPlan(work: string): Promise<Plan | undefined> {
  const raw = await readJson(planPath(work), REBUILD).catch(ignoreUserError);
  return planSchema.safeParse(raw).data ?? (await readBuild(work));
}

/**
 * What the build of a data folder told.
 * @throws UserError artefact_missing, file_corrupt
 */
export async function readBuildReport(folder: string): Promise<BuildReport> {
  const where = dataPaths(folder).build;
  const parsed = buildSchema.safeParse(await readJson(where, REBUILD));
  if (parsed.success) return parsed.data.report;
  const what = 'not a report of this version of the program';
  throw new UserError('file_corrupt', { where, what, action: REBUILD, cause: parsed.error });
}

/**
 * What `memory3 data report` shows of a data folder.
 * @param data gives the weights and the length of a sequence, which belong to reading
 * @throws UserError artefact_missing, file_corrupt
 */
export async function readReport(
  folder: string,
  { sources, continual, sequenceLength }: DataConfig,
): Promise<ShownReport> {
  const report = await readBuildReport(folder);
  const weighted = (reports: readonly SourceReport[], list: readonly SourceConfig[]) => {
    const weights = sourceWeights(list);
    return reports.map((source) => ({ ...source, weight: weights?.get(source.name) }));
  };
  const { references, tokens, counters } = report.references;
  return {
    ...report,
    folder,
    sequenceLength,
    sources: weighted(report.sources, sources),
    ...(report.continual && { continual: weighted(report.continual, continual.sources) }),
    references: { references, tokens, documents: counters.documents },
  };
}

/** Input files with their hashes; a file of the same size and time as in `known` is not read again. */
async function inputFiles(data: DataConfig, known: readonly InputFile[]): Promise<InputFile[]> {
  const { sources, continual, references, tokenizer } = data;
  const listed = await listSourceFiles([...sources, ...continual.sources, ...tokenizer.sources, ...references]);
  const given = [tokenizer.path, tokenizer.extend].filter((path) => path !== undefined);
  const keyOf = ({ path, size, modified }: Omit<InputFile, 'sha256'>) => `${size} ${modified} ${path}`;
  const hashes = new Map(known.map((file) => [keyOf(file), file.sha256]));
  const files: InputFile[] = [];
  for (const path of new Set([...listed.map((file) => file.path), ...given])) {
    try {
      const { size, mtimeMs: modified } = await stat(path);
      const hash = hashes.get(keyOf({ path, size, modified })) ?? (await sha256File(path));
      files.push({ path, size, modified, sha256: hash });
    } catch (cause) {
      if (!isSystemError(cause)) throw cause;
      // Of a corpus it is counted when it is to be read.
      if (!given.includes(path)) continue;
      throw new UserError('input_missing', { where: path, what: cause.message, action: 'check the path', cause });
    }
  }
  return files;
}

/** Why the folder cannot be used as it is, in words; undefined when it can. */
async function reasonToBuild(
  folder: string,
  before: z.infer<typeof buildSchema> | undefined,
  plan: Plan,
): Promise<string | undefined> {
  if (!before) return 'not built before';
  const difference = planDifference(before, plan);
  if (difference) return difference;
  try {
    const tokenizerHash = (await Tokenizer.load(dataPaths(folder).tokenizer)).hash;
    const { tokens, continualTokens, references } = dataPaths(folder);
    for (const path of [tokens, ...(before.report.continual ? [continualTokens] : [])]) {
      for (const split of SPLITS) await TokenDataset.open(path, split, { tokenizerHash });
    }
    await ReferenceDataset.open(references, { tokenizerHash });
    return undefined;
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}

/** A strict build of what was built with bad input must find it. */
function reasonToReadAgain({ strict }: DataConfig, report: BuildReport | undefined): string | undefined {
  if (!strict || !report) return undefined;
  const unread = unreadWords([...report.sources, ...(report.continual ?? [])], report.references.counters);
  return unread === '' ? undefined : `data.strict is set, and not everything could be read: ${unread}`;
}

/** What makes two plans give other data, in words. */
function planDifference(before: Plan, now: Plan): string | undefined {
  const setting = firstDifference(before.settings, now.settings);
  if (setting) return setting;
  const hashes = new Map(before.files.map((file) => [file.path, file.sha256]));
  const changed = now.files.find((file) => hashes.get(file.path) !== file.sha256);
  if (changed) return `${changed.path} is ${hashes.has(changed.path) ? 'another file than before' : 'new'}`;
  return now.files.length === before.files.length ? undefined : 'input files were removed';
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

/** Cleaned documents of a list of sources. */
interface Cleaned {
  folder: string;
  groups: SourceGroup[];
  shards: CleanShard[];
  report: CleanReport;
}

/** One build in its work folder. */
class Build {
  readonly #data: DataConfig;
  readonly #memory: MemoryConfig;
  readonly #paths: ReturnType<typeof dataPaths>;
  readonly #seed: number;
  readonly #files: ReadonlyMap<string, InputFile>;
  readonly #onProgress: (progress: BuildProgress) => void;
  readonly #stages: BuildReport['stages'] = [];

  constructor(
    data: DataConfig,
    memory: MemoryConfig,
    work: string,
    seed: number,
    files: readonly InputFile[],
    onProgress: (progress: BuildProgress) => void,
  ) {
    this.#data = data;
    this.#memory = memory;
    this.#paths = dataPaths(work);
    this.#seed = seed;
    this.#files = new Map(files.map((file) => [file.path, file]));
    this.#onProgress = onProgress;
  }

  get #workers(): number {
    return this.#data.workers || physicalCores();
  }

  async run(): Promise<BuildReport> {
    const { sources, continual, tokenizer: wanted } = this.#data;
    const text = await this.#clean('documents', 'data.sources', sources);
    const stageTwo =
      continual.sources.length > 0
        ? await this.#clean('continual documents', 'data.continual.sources', continual.sources)
        : undefined;
    const own =
      wanted.sources.length > 0 && wanted.path === undefined
        ? await this.#clean('tokenizer text', 'data.tokenizer.sources', wanted.sources)
        : undefined;
    const tokenizer = await this.#makeTokenizer(own ? [own] : stageTwo ? [text, stageTwo] : [text]);
    const tokens = await this.#writeTokens('tokens', tokenizer, text, 1);
    const aligned = continual.alignDocuments;
    const continualTokens = stageTwo && (await this.#writeTokens('continual tokens', tokenizer, stageTwo, aligned));
    const references = await this.#writeReferences(tokenizer);
    const hashes = [tokenizer.hash, tokens.contentHash, continualTokens?.contentHash ?? '', references.contentHash];
    const report = {
      tokenizer: { hash: tokenizer.hash, vocabSize: tokenizer.vocabSize, trained: wanted.path === undefined },
      sources: tokens.sources,
      continual: continualTokens?.sources,
      references: {
        references: references.references,
        tokens: references.tokens,
        counters: references.counters,
      },
      examples: withoutRepetition([
        ...text.report.examples,
        ...(stageTwo?.report.examples ?? []),
        ...(own?.report.examples ?? []),
        ...references.counters.examples,
      ]),
      stages: this.#stages,
      contentHash: sha256(...hashes),
    };
    return { ...report, warnings: [...this.#warnings(report), ...warningsOfTokenizerText(own?.report)] };
  }

  /** @param list the key of `sources` in the configuration */
  async #clean(phase: BuildProgress['phase'], list: string, sources: readonly SourceConfig[]): Promise<Cleaned> {
    const folder = join(this.#paths.underWay, phase.replaceAll(' ', '-'));
    await makeFolder(folder);
    const groups = sourceGroups(sources);
    const totalBytes = await this.#bytesOf(sources);
    const { cleaning, deduplication, strict, workers, shardBytes, minDocumentCharacters: minCharacters } = this.#data;
    const read = bytesRead();
    const onRead = (path: string, bytes: number, done: number) =>
      this.#onProgress({ phase, done, bytes: read(path, bytes), totalBytes });
    const options = { cleaning, deduplication, strict, workers, shardBytes, minCharacters, onRead };
    const { shards, report } = await this.#timed(phase, async () => {
      const cleaned = await cleanDocuments(folder, groups, options);
      return { ...cleaned, bytes: bytesOf(cleaned.report.sources) };
    });
    if (shards.length === 0) throw nothingUsable(list, report);
    return { folder, groups, shards, report };
  }

  /** Copies the given tokenizer, or trains or extends one on a sample of the training documents. */
  async #makeTokenizer(texts: readonly Cleaned[]): Promise<Tokenizer> {
    const { path, extend, vocabSize } = this.#data.tokenizer;
    const target = this.#paths.tokenizer;
    if (path !== undefined) {
      await writeFileAtomic(target, await readFile(path));
    } else if (!(await exists(target))) {
      await this.#timed('tokenizer', async () => {
        const sample = { bytes: 0 };
        const sampled = this.#sampleTexts(texts, sample);
        const workers = bytesOf(texts.flatMap(({ shards }) => shards)) < THREADS_FROM ? 0 : this.#workers;
        const options = { vocabSize, workers, progress: (now: BpeProgress) => this.#tellMerges(now) };
        const json =
          extend === undefined
            ? await trainBpe(sampled, options)
            : await extendBpe(await readFile(extend, 'utf8'), sampled, { ...options, path: extend });
        await writeFileAtomic(target, JSON.stringify(json));
        return sample;
      });
    }
    return await Tokenizer.load(target);
  }

  #tellMerges({ tokens, wanted }: BpeProgress): void {
    if (tokens > 0) this.#onProgress({ phase: 'merges', done: tokens, bytes: tokens, totalBytes: wanted });
  }

  /** About `sampleBytes` of the training text, pieces chosen by hash, so that every source has its share. */
  async *#sampleTexts(texts: readonly Cleaned[], sample: { bytes: number }): AsyncGenerator<string> {
    const shards = texts.flatMap(({ folder, shards: list }) => list.map((shard) => ({ folder, shard })));
    const totalBytes = bytesOf(shards.map(({ shard }) => shard));
    const share = this.#data.tokenizer.sampleBytes / totalBytes;
    let bytes = 0;
    for (const [done, { folder, shard }] of shards.entries()) {
      this.#onProgress({ phase: 'tokenizer', done, bytes, totalBytes });
      for await (const { text } of readDocumentShard(folder, shard.file)) {
        if (this.#splitOf(text) !== 'train') continue;
        const key = documentKey(text);
        let number = 0;
        for (const piece of textPieces(text, SAMPLE_PIECE)) {
          number += 1;
          if (randomUniform(this.#seed, PURPOSE.split, number, key) >= share) continue;
          sample.bytes += Buffer.byteLength(piece);
          yield piece;
        }
      }
      bytes += shard.bytes;
    }
    this.#onProgress({ phase: 'tokenizer', done: shards.length, bytes, totalBytes });
  }

  /**
   * Encodes all shards of documents and writes the manifest of their tokens.
   * @param alignment every document begins at a multiple of so many tokens
   */
  async #writeTokens(
    phase: TokensPhase,
    tokenizer: Tokenizer,
    text: Cleaned,
    alignment: number,
  ): Promise<WrittenTokens> {
    const folder = phase === 'tokens' ? this.#paths.tokens : this.#paths.continualTokens;
    const results = await this.#timed(phase, async () => {
      const encoded = await this.#encode(phase, tokenizer, text, folder, alignment);
      return { encoded, bytes: bytesOf(text.shards) };
    });
    const sources = await Promise.all(
      text.groups.map(async ({ name, sources: members }, number) => {
        const own = results.encoded.filter((_, i) => text.shards[i]!.state.source === number);
        const splits = {
          train: joinSplits(own.map((r) => r.train)),
          validation: joinSplits(own.map((r) => r.validation)),
        };
        const files = (await this.#filesOf(members)).map(({ path, sha256: hash }) => ({ path, sha256: hash }));
        return { name, files, splits };
      }),
    );
    const { contentHash } = await writeTokenManifest(folder, {
      ...{ tokenizerHash: tokenizer.hash, vocabSize: tokenizer.vocabSize, bos: tokenizer.bos },
      ...(alignment > 1 && { pad: tokenizer.pad }),
      sources,
    });
    const reports = sources.map(({ splits }, i) => this.#sourceReport(text, i, splits));
    return { contentHash, sources: await Promise.all(reports) };
  }

  /** One result for each shard of documents; shards that an earlier process encoded are not encoded again. */
  async #encode(
    phase: TokensPhase,
    tokenizer: Tokenizer,
    text: Cleaned,
    folder: string,
    alignment: number,
  ): Promise<EncodeResult[]> {
    const { seed, validationShare } = { seed: this.#seed, validationShare: this.#data.validationShare };
    const setup: EncodeSetup = {
      tokenizer: this.#paths.tokenizer,
      tokenizerHash: tokenizer.hash,
      seed,
      validationShare,
    };
    const jobs = text.shards.map(({ file: documents }, i): EncodeJob => {
      const number = String(i).padStart(5, '0');
      const path = (split: Split) => join(folder, split, `tokens-${number}.arrow`);
      const paths = { train: path('train'), validation: path('validation') };
      return { folder: text.folder, documents, paths, alignment, record: join(text.folder, `tokens-${number}.json`) };
    });
    const results: (EncodeResult | undefined)[] = [];
    // One after the other: thousands of files at once may be more than a process can open.
    for (const job of jobs) results.push(await encodedBefore(folder, job));
    const missing = [...results.keys()].filter((i) => results[i] === undefined);
    const totalBytes = bytesOf(text.shards);
    const tell = () => {
      const done = results.filter((result) => result !== undefined).length;
      const bytes = text.shards.reduce((sum, shard, i) => sum + (results[i] ? shard.bytes : 0), 0);
      this.#onProgress({ phase, done, bytes, totalBytes });
    };
    tell();
    for await (const result of encodeAll(
      setup,
      missing.map((i) => jobs[i]!),
      this.#data.workers || physicalCores(),
    )) {
      results[missing.shift()!] = result;
      tell();
    }
    return results.map((result) => result!);
  }

  async #sourceReport(text: Cleaned, i: number, splits: Record<Split, TokenSplit>): Promise<SourceReport> {
    const { name, sources } = text.groups[i]!;
    const files = await this.#filesOf(sources);
    const counts = ({ documents, tokens, bytes }: TokenSplit) => ({ documents, tokens, bytes });
    return {
      name,
      files: files.length,
      fileBytes: files.reduce((sum, { size }) => sum + size, 0),
      ...text.report.sources[i]!,
      train: counts(splits.train),
      validation: counts(splits.validation),
    };
  }

  async #writeReferences(tokenizer: Tokenizer): Promise<ReferenceManifest> {
    const { referenceTokens } = this.#memory;
    const { references: sources, strict } = this.#data;
    const options = { tokenizerHash: tokenizer.hash, vocabSize: tokenizer.vocabSize, referenceTokens };
    const before = await ReferenceDataset.open(this.#paths.references, options).catch(ignoreUserError);
    if (before && !(strict && unreadWords([], before.manifest.counters) !== '')) return before.manifest;
    const totalBytes = await this.#bytesOf(sources);
    const counters = newCounters();
    const read = bytesRead();
    const onBytes = (path: string, bytes: number) =>
      this.#onProgress({ phase: 'references', done: counters.documents, bytes: read(path, bytes), totalBytes });
    return await this.#timed('references', async () => {
      // References keep ids of their own, so a second document of an id is skipped.
      const documents = readDocuments(sources, counters, { uniqueIds: true, strict, onBytes });
      const references = cutReferences(documents, tokenizer, referenceTokens);
      const manifest = await writeReferences(this.#paths.references, references, options, counters);
      return { ...manifest, bytes: counters.bytes };
    });
  }

  /** Does the work of a stage and notes how long it took. */
  async #timed<T extends { bytes: number }>(stage: string, work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await work();
    this.#stages.push({ stage, seconds: (performance.now() - started) / 1000, bytes: result.bytes });
    return result;
  }

  async #filesOf(sources: readonly SourceConfig[]): Promise<InputFile[]> {
    return (await listSourceFiles(sources)).flatMap(({ path }) => this.#files.get(path) ?? []);
  }

  async #bytesOf(sources: readonly SourceConfig[]): Promise<number> {
    return (await this.#filesOf(sources)).reduce((sum, { size }) => sum + size, 0);
  }

  #splitOf(text: string): Split {
    return splitOf(text, this.#seed, this.#data.validationShare);
  }

  #warnings({ tokenizer, sources, continual, references }: Omit<BuildReport, 'warnings'>): string[] {
    const { vocabSize } = this.#data.tokenizer;
    const { sequenceLength, validationShare } = this.#data;
    const warnings: string[] = [];
    if (tokenizer.trained && tokenizer.vocabSize < vocabSize) {
      warnings.push(
        `the vocabulary has ${tokenizer.vocabSize} tokens, not ${vocabSize}: no further pair occurs twice in the sample`,
      );
    }
    for (const split of validationShare > 0 ? SPLITS : (['train'] as const)) {
      const tokens = tokensOf(sources, split);
      const called = split === 'train' ? 'training' : split;
      if (tokens <= sequenceLength)
        warnings.push(`${tokens} ${called} tokens do not fill one sequence of ${sequenceLength}`);
    }
    for (const { name, train } of [...sources, ...(continual ?? [])]) {
      if (train.tokens <= sequenceLength && tokensOf(sources, 'train') > sequenceLength) {
        warnings.push(`the source ${name} does not fill one sequence of ${sequenceLength} tokens and is never seen`);
      }
    }
    if (this.#data.references.length > 0 && references.references === 0) {
      warnings.push('`data.references` holds no usable text');
    }
    const unread = unreadWords([...sources, ...(continual ?? [])], references.counters);
    if (unread !== '') warnings.push(`not everything could be read: ${unread}; \`memory3 data report\` says where`);
    return warnings;
  }
}

function warningsOfTokenizerText(report: CleanReport | undefined): string[] {
  const unread = unreadWords(report?.sources ?? []);
  return unread === '' ? [] : [`not everything of \`data.tokenizer.sources\` could be read: ${unread}`];
}

/** Adds up the bytes of files that are read one after the other. */
function bytesRead(): (path: string, bytesOfIt: number) => number {
  let [finished, current, seen] = [0, '', 0];
  return (path, bytes) => {
    if (path !== current) finished += seen;
    [current, seen] = [path, bytes];
    return finished + seen;
  };
}

interface WrittenTokens {
  contentHash: string;
  sources: SourceReport[];
}

const bytesOf = (parts: readonly { bytes: number }[]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);
const tokensOf = (sources: readonly SourceReport[], split: Split) =>
  sources.reduce((sum, source) => sum + source[split].tokens, 0);

/** What is left out because the input is at fault, by reason, in words; empty when nothing is. */
function unreadWords(
  sources: readonly Pick<SourceReport, 'skipped'>[],
  references: Pick<DataCounters, 'skipped'> = { skipped: {} },
): string {
  const counts = new Map<string, number>();
  for (const [reason, count] of sources.flatMap(({ skipped }) => Object.entries(skipped))) {
    if (isBadInput(reason)) counts.set(reason, (counts.get(reason) ?? 0) + count);
  }
  const listed = [...counts].map(([reason, count]) => `${count} × ${reason}`);
  for (const [reason, count] of Object.entries(references.skipped)) {
    if (isBadInput(reason)) listed.push(`${count} × ${reason} in the references`);
  }
  return listed.join(', ');
}

/** A file may be read for the tokens and for the references. */
function withoutRepetition(examples: readonly Example[]): Example[] {
  const places = new Map(examples.map((example) => [`${example.reason}\0${example.path}\0${example.offset}`, example]));
  return [...places.values()];
}

/** What an earlier process made of the job, when its files are there. */
async function encodedBefore(folder: string, job: EncodeJob): Promise<EncodeResult | undefined> {
  const raw = await readJson(job.record, REBUILD).catch(ignoreUserError);
  const result = encodeResultSchema.safeParse(raw).data;
  if (!result) return undefined;
  try {
    for (const split of SPLITS) for (const shard of result[split].shards) await checkSize(join(folder, split), shard);
    return result;
  } catch (error) {
    return ignoreUserError(error);
  }
}

/** The results of `jobs` in order; one job alone needs no threads. */
async function* encodeAll(
  setup: EncodeSetup,
  jobs: readonly EncodeJob[],
  workers: number,
): AsyncGenerator<EncodeResult> {
  if (jobs.length < 2) {
    for (const job of jobs) yield await encodeShard(setup, job);
    return;
  }
  const size = Math.min(workers, jobs.length);
  const restore = encodeOnOneThread();
  const pool = new WorkerPool<EncodeJob, EncodeResult>({
    ...{ module: './encode_worker', caller: import.meta.url, data: setup, size },
  });
  try {
    yield* pool.map(jobs);
  } finally {
    await pool.close();
    restore();
  }
}

function nothingUsable(list: string, { sources, examples }: CleanReport): UserError {
  const reasons = sources.flatMap(({ skipped, dropped }) => [
    ...Object.entries(skipped),
    ...Object.entries(dropped).map(([reason, { documents }]) => [reason, documents] as const),
  ]);
  const listed = reasons.map(([reason, count]) => `${count} × ${reason}`).join(', ') || 'none';
  const example: Example | undefined = examples[0];
  const isMissing = reasons.length > 0 && reasons.every(([reason]) => reason === 'no such file');
  return new UserError(isMissing ? 'input_missing' : 'input_empty', {
    where: example ? placeOf(example.path, example.offset) : list,
    what: `no usable document in ${list} (skipped: ${listed})${example ? `: ${example.detail}` : ''}`,
    action: isMissing
      ? 'check the path; relative paths are taken from the working directory'
      : 'check `textField`, the encoding of the files, `data.minDocumentCharacters` and `data.cleaning`',
  });
}
