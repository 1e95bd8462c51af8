/**
 * From corpora to what training reads: tokenizer, token dataset and references in one folder. The folder is built beside
 * and swapped in whole; a folder that was built from the same settings and files is kept. A build that was killed goes on
 * where its last whole shard ends, and gives the same bytes as one that was not.
 */

import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import type { DataConfig, MemoryConfig, SourceConfig } from '../config/schema.ts';
import { ignoreUserError, UserError } from '../errors.ts';
import { physicalCores } from '../io/cores.ts';
import {
  cleanLeftovers,
  exists,
  makeFolder,
  readJson,
  replaceFolder,
  sha256,
  writeFileAtomic,
  writeJsonAtomic,
} from '../io/files.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import { type BpeProgress, extendBpe, toExtend, trainBpe } from './bpe_trainer.ts';
import {
  type InputFile,
  inputFiles,
  type Plan,
  planDifference,
  planSchema,
  settingsOf,
  VERSION,
} from './build_plan.ts';
import {
  type BuildReport,
  type buildSchema,
  buildWarnings,
  nothingUsable,
  readBuild,
  unreadWords,
  withoutRepetition,
} from './build_report.ts';
import { type CleanReport, type CleanShard, cleanDocuments } from './clean_documents.ts';
import { readDocumentShard } from './document_shards.ts';
import { listSourceFiles, newCounters, readDocuments } from './documents.ts';
import { encodeAll, encodedBefore } from './encode_all.ts';
import type { EncodeJob, EncodeResult, EncodeSetup } from './encode_shard.ts';
import { REBUILD } from './manifest.ts';
import { dataPaths, workFolder } from './paths.ts';
import { cutReferences, ReferenceDataset, type ReferenceManifest, writeReferences } from './references.ts';
import type { SourceReport } from './report.ts';
import { type SourceGroup, sourceGroups } from './source_groups.ts';
import { documentKey, splitOf } from './split.ts';
import { textPieces } from './text_pieces.ts';
import { joinSplits, SPLITS, type Split, TokenDataset, type TokenSplit, writeTokenManifest } from './token_dataset.ts';
import { Tokenizer } from './tokenizer.ts';

/** The tokenizer's sample is drawn in pieces of so many code units, so that one huge document cannot be all of it. */
const SAMPLE_PIECE = 65_536;
/** Less text than this is not worth starting threads for. */
const THREADS_FROM = 4 * 2 ** 20;

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

async function readPlan(work: string): Promise<Plan | undefined> {
  const raw = await readJson(planPath(work), REBUILD).catch(ignoreUserError);
  return planSchema.safeParse(raw).data ?? (await readBuild(work));
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

/** Cleaned documents of a list of sources. */
interface Cleaned {
  folder: string;
  groups: SourceGroup[];
  /** Input files of each group. */
  files: InputFile[][];
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
    return { ...report, warnings: buildWarnings(this.#data, report, own?.report) };
  }

  /** @param list the key of `sources` in the configuration */
  async #clean(phase: BuildProgress['phase'], list: string, sources: readonly SourceConfig[]): Promise<Cleaned> {
    const folder = join(this.#paths.underWay, phase.replaceAll(' ', '-'));
    await makeFolder(folder);
    const groups = sourceGroups(sources);
    const files: InputFile[][] = [];
    for (const group of groups) files.push(await this.#filesOf(group.sources));
    const totalBytes = sizeOf(files.flat());
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
    return { folder, groups, files, shards, report };
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
        const key = documentKey(text);
        if (splitOf(key, this.#seed, this.#data.validationShare) !== 'train') continue;
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
    const sources = text.groups.map(({ name }, number) => {
      const own = results.encoded.filter((_, i) => text.shards[i]!.state.source === number);
      const splits = {
        train: joinSplits(own.map((r) => r.train)),
        validation: joinSplits(own.map((r) => r.validation)),
      };
      const files = text.files[number]!.map(({ path, sha256: hash }) => ({ path, sha256: hash }));
      return { name, files, splits };
    });
    const { contentHash } = await writeTokenManifest(folder, {
      ...{ tokenizerHash: tokenizer.hash, vocabSize: tokenizer.vocabSize, bos: tokenizer.bos },
      ...(alignment > 1 && { pad: tokenizer.pad }),
      sources,
    });
    return { contentHash, sources: sources.map(({ splits }, i) => sourceReport(text, i, splits)) };
  }

  /** One result for each shard of documents; shards that an earlier process encoded are not encoded again. */
  async #encode(
    phase: TokensPhase,
    tokenizer: Tokenizer,
    text: Cleaned,
    folder: string,
    alignment: number,
  ): Promise<EncodeResult[]> {
    const setup: EncodeSetup = {
      tokenizer: this.#paths.tokenizer,
      tokenizerHash: tokenizer.hash,
      seed: this.#seed,
      validationShare: this.#data.validationShare,
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
    const left = missing.map((i) => jobs[i]!);
    for await (const result of encodeAll(setup, left, this.#workers)) {
      results[missing.shift()!] = result;
      tell();
    }
    return results.map((result) => result!);
  }

  async #writeReferences(tokenizer: Tokenizer): Promise<ReferenceManifest> {
    const { referenceTokens } = this.#memory;
    const { references: sources, strict } = this.#data;
    const options = { tokenizerHash: tokenizer.hash, vocabSize: tokenizer.vocabSize, referenceTokens };
    const before = await ReferenceDataset.open(this.#paths.references, options).catch(ignoreUserError);
    if (before && !(strict && unreadWords([], before.manifest.counters) !== '')) return before.manifest;
    const totalBytes = sizeOf(await this.#filesOf(sources));
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

function sourceReport(text: Cleaned, i: number, splits: Record<Split, TokenSplit>): SourceReport {
  const files = text.files[i]!;
  const counts = ({ documents, tokens, bytes }: TokenSplit) => ({ documents, tokens, bytes });
  return {
    name: text.groups[i]!.name,
    files: files.length,
    fileBytes: sizeOf(files),
    ...text.report.sources[i]!,
    train: counts(splits.train),
    validation: counts(splits.validation),
  };
}

const sizeOf = (files: readonly InputFile[]) => files.reduce((sum, { size }) => sum + size, 0);
const bytesOf = (parts: readonly { bytes: number }[]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);
