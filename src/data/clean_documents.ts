/**
 * The first pass of a build: documents are read in order, cleaned in worker threads (paper §4.2), compared with those kept
 * before, and written as shards. A pass that was killed goes on after its last whole shard: documents are read anew up to
 * there, which is cheap, and what was decided about them is known.
 */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { CleaningConfig, DataConfig } from '../config/schema.ts';
import { ignoreUserError } from '../errors.ts';
import { physicalCores } from '../io/cores.ts';
import { readJson, writeJsonAtomic } from '../io/files.ts';
import { WorkerPool } from '../io/worker_pool.ts';
import type { CleanResult, CleanWorkerData } from './clean_worker.ts';
import { RULES } from './cleaning.ts';
import { type DocumentShard, DocumentShardWriter, readDocumentShard, ShardFolder } from './document_shards.ts';
import { type DataCounters, type Document, newCounters, readDocuments } from './documents.ts';
import { Duplicates, ENTRY_BYTES, unpackEntry } from './duplicates.ts';
import { inGroups } from './groups.ts';
import { REBUILD } from './manifest.ts';
import { EXAMPLES_PER_REASON, type Example, exampleSchema } from './report.ts';
import type { SourceGroup } from './source_groups.ts';
import { excerptOf, isBadInput } from './sources/problem.ts';

/** What was read of a source and what was dropped. */
const tallySchema = z.strictObject({
  documents: z.int(),
  bytes: z.int(),
  dropped: z.record(z.string(), z.strictObject({ documents: z.int(), bytes: z.int() })),
});
/** How far the pass was when a shard was closed. */
const stateSchema = z.strictObject({
  /** Number of the source that its documents are of. */
  source: z.int(),
  /** Documents read so far, and kept. */
  read: z.int(),
  kept: z.int(),
  tallies: z.array(tallySchema),
  examples: z.array(exampleSchema),
});
type State = z.infer<typeof stateSchema>;
export type CleanShard = DocumentShard<State>;

const resultSchema = z.strictObject({
  /** One for each source. */
  sources: z.array(tallySchema.extend({ skipped: z.record(z.string(), z.int()) })),
  /** Records that were skipped and documents that were dropped, the first of each reason and source. */
  examples: z.array(exampleSchema),
});
/** What the pass tells when it is complete. */
export type CleanReport = z.infer<typeof resultSchema>;

export interface CleanOptions
  extends Pick<DataConfig, 'cleaning' | 'deduplication' | 'strict' | 'workers' | 'shardBytes'> {
  minCharacters: number;
  /** Told how many bytes of a file were read, and how many documents in all. */
  onRead(path: string, bytes: number, documents: number): void;
}

/** A shard of very short texts ends at so many: what is known of its documents is in memory until it is whole. */
const SHARD_DOCUMENTS = 2 ** 18;
const EXCERPT_CHARACTERS = 240;

/** Cleans all documents of `groups` into the folder, or goes on with what an earlier process left there. */
export async function cleanDocuments(
  folder: string,
  groups: readonly SourceGroup[],
  options: CleanOptions,
): Promise<{ shards: CleanShard[]; report: CleanReport }> {
  const shards = new ShardFolder(folder, stateSchema);
  const whole = await shards.whole();
  const reportPath = join(folder, 'clean.json');
  const report = resultSchema.safeParse(await readJson(reportPath, REBUILD).catch(ignoreUserError)).data;
  if (report && isOf(report, whole) && !(options.strict && hasBadInput(report))) {
    return { shards: whole, report };
  }
  const pass = new CleanPass(shards, whole, groups, options);
  try {
    const made = await pass.run();
    await writeJsonAtomic(reportPath, made);
    return { shards: pass.whole, report: made };
  } finally {
    await pass.close();
  }
}

/** True when the shards hold all that the report says was kept. */
function isOf({ sources }: CleanReport, whole: readonly CleanShard[]): boolean {
  const droppedOf = ({ dropped }: CleanReport['sources'][number]) =>
    Object.values(dropped).reduce((sum, { documents }) => sum + documents, 0);
  const kept = sources.reduce((sum, source) => sum + source.documents - droppedOf(source), 0);
  return kept === (whole.at(-1)?.state.kept ?? 0);
}

/** A strict pass must find it again. */
function hasBadInput({ sources }: CleanReport): boolean {
  return sources.some(({ skipped }) => Object.keys(skipped).some(isBadInput));
}

/** Documents of one source on their way through a worker. */
interface Group {
  source: number;
  documents: Document[];
}

class CleanPass {
  readonly whole: CleanShard[];
  readonly #shards: ShardFolder<State>;
  readonly #groups: readonly SourceGroup[];
  readonly #options: CleanOptions;
  #pool: WorkerPool<string[], CleanResult> | undefined;
  #duplicates: Duplicates | undefined;
  readonly #counters: DataCounters[];
  readonly #state: State;
  /** Groups that workers have, in order. */
  readonly #underWay: Group[] = [];
  #writer: DocumentShardWriter | undefined;
  /** Ids of the documents of the shard being written, for what is said of later ones that are like them; their entries. */
  #written: string[] = [];
  #entries: Uint8Array[] = [];

  constructor(shards: ShardFolder<State>, whole: CleanShard[], groups: readonly SourceGroup[], options: CleanOptions) {
    const { cleaning, deduplication, workers } = options;
    this.#shards = shards;
    this.whole = [...whole];
    this.#groups = groups;
    this.#options = options;
    this.#counters = groups.map(newCounters);
    this.#state = structuredClone(whole.at(-1)?.state) ?? {
      ...{ source: 0, read: 0, kept: 0, examples: [] },
      tallies: groups.map(() => ({ documents: 0, bytes: 0, dropped: {} })),
    };
    const compares = deduplication.exact || deduplication.near;
    // First, since its memory may not be there: threads that were started would keep the process alive.
    if (compares) this.#duplicates = new Duplicates(deduplication, shards.path);
    if (compares || cleans(cleaning)) {
      const data: CleanWorkerData = { cleaning, deduplication };
      const size = workers || physicalCores();
      this.#pool = new WorkerPool({ module: './clean_worker', caller: import.meta.url, data, size });
    }
  }

  async run(): Promise<CleanReport> {
    await this.#remember();
    for await (const { texts, entries } of this.#cleaned()) {
      const { source, documents } = this.#underWay.shift()!;
      if (source !== this.#state.source) await this.#closeShard();
      this.#state.source = source;
      let signed = 0;
      for (const [i, { text, dropped }] of texts.entries()) {
        const document = text === undefined ? documents[i]! : { ...documents[i]!, text };
        const entry = dropped ? undefined : entries.subarray(ENTRY_BYTES * signed, ENTRY_BYTES * ++signed);
        await this.#decide(documents[i]!, document, dropped, entry);
      }
    }
    await this.#closeShard();
    const sources = this.#state.tallies.map((tally, i) => ({ ...tally, skipped: this.#counters[i]!.skipped }));
    const examples = [...this.#counters.flatMap((counters) => counters.examples), ...this.#state.examples];
    return { sources, examples };
  }

  /** Takes the documents of the shards that are there as known. */
  async #remember(): Promise<void> {
    if (!this.#duplicates) return;
    for (const number of this.whole.keys()) {
      const entries = await readFile(this.#shards.shardPath(number, 'entries'));
      for (let at = 0; at < entries.length; at += ENTRY_BYTES) this.#add(entries.subarray(at, at + ENTRY_BYTES));
    }
  }

  /** What the workers make of all texts, in order; without rules every text stays as it is. */
  async *#cleaned(): AsyncGenerator<CleanResult> {
    if (this.#pool) yield* this.#pool.map(this.#jobs());
    else for await (const texts of this.#jobs()) yield { texts: texts.map(() => ({})), entries: new Uint8Array(0) };
  }

  /** Texts for the workers, of documents that no whole shard has decided about. */
  async *#jobs(): AsyncGenerator<string[]> {
    const decided = this.#state.read;
    let read = 0;
    for (const [source, group] of this.#groups.entries()) {
      const { minCharacters, strict, onRead } = this.#options;
      const onBytes = (path: string, bytes: number) => onRead(path, bytes, read);
      const options = { minCharacters, strict, onBytes };
      const documents = readDocuments(group.sources, this.#counters[source]!, options);
      async function* undecided() {
        for await (const document of documents) if (++read > decided) yield document;
      }
      for await (const texts of inGroups(undecided())) {
        this.#underWay.push({ source, documents: texts });
        yield texts.map(({ text }) => text);
      }
    }
  }

  /** Keeps a document or drops it. @param raw as it was read */
  async #decide(
    raw: Document,
    document: Document,
    broken: { reason: string; detail: string } | undefined,
    entry: Uint8Array | undefined,
  ): Promise<void> {
    const tally = this.#state.tallies[this.#state.source]!;
    const bytes = Buffer.byteLength(raw.text);
    this.#state.read += 1;
    tally.documents += 1;
    tally.bytes += bytes;
    const dropped = broken ?? (await this.#repetition(entry));
    if (dropped) {
      const { reason, detail } = dropped;
      const count = tally.dropped[reason] ?? { documents: 0, bytes: 0 };
      tally.dropped[reason] = { documents: count.documents + 1, bytes: count.bytes + bytes };
      if (count.documents < EXAMPLES_PER_REASON) this.#state.examples.push(exampleOf(raw, reason, detail));
      return;
    }
    await this.#keep(document, entry);
  }

  /** What kept document it repeats, in words. */
  async #repetition(entry: Uint8Array | undefined): Promise<{ reason: string; detail: string } | undefined> {
    if (!entry || !this.#duplicates) return undefined;
    const { exact, signature } = unpackEntry(entry);
    const found = this.#duplicates.check(exact, signature);
    if (!found) return undefined;
    const { dropped } = this.#state.tallies[this.#state.source]!;
    const wanted = (dropped[found.kind]?.documents ?? 0) < EXAMPLES_PER_REASON;
    const as = wanted ? `as ${await this.#idOfKept(found.of)}` : `as document ${found.of}`;
    const detail = found.kind === 'duplicate' ? `the same ${as}` : `${found.similarity.toFixed(2)} the same ${as}`;
    return { reason: found.kind, detail };
  }

  async #keep(document: Document, entry: Uint8Array | undefined): Promise<void> {
    this.#writer ??= await DocumentShardWriter.create(this.#shards.shardPath(this.whole.length, 'documents'));
    await this.#writer.append(document, Buffer.byteLength(document.text));
    this.#written.push(document.id);
    this.#state.kept += 1;
    if (entry && this.#duplicates) {
      this.#add(entry);
      this.#entries.push(entry);
    }
    const isFull = this.#writer.bytes >= this.#options.shardBytes || this.#written.length === SHARD_DOCUMENTS;
    if (isFull) await this.#closeShard();
  }

  #add(entry: Uint8Array): void {
    const { exact, signature } = unpackEntry(entry);
    this.#duplicates?.add(exact, signature);
  }

  async #closeShard(): Promise<void> {
    if (!this.#writer) return;
    const { bytes } = this.#writer;
    const shard = { file: await this.#writer.close(), bytes, state: structuredClone(this.#state) };
    await this.#shards.commit(this.whole.length, shard, Buffer.concat(this.#entries));
    this.whole.push(shard);
    this.#writer = undefined;
    this.#written = [];
    this.#entries = [];
  }

  /** The id of the kept document of this running number: in the shard being written, or read again from an earlier one. */
  async #idOfKept(number: number): Promise<string> {
    const before = this.whole.at(-1)?.state.kept ?? 0;
    if (number >= before) return this.#written[number - before]!;
    const shard = this.whole.find(({ state }) => number < state.kept)!;
    let at = this.whole[this.whole.indexOf(shard) - 1]?.state.kept ?? 0;
    for await (const document of readDocumentShard(this.#shards.path, shard.file)) {
      if (at++ === number) return document.id;
    }
    throw new Error(`kept document ${number} is in no shard`);
  }

  async close(): Promise<void> {
    await this.#writer?.abort();
    await this.#pool?.close();
    this.#duplicates?.close();
  }
}

function cleans(config: CleaningConfig): boolean {
  return config.unicode !== 'none' || RULES.some(({ key, off }) => config[key] !== off);
}

function exampleOf({ text, source }: Document, reason: string, detail: string): Example {
  return { reason, path: source.path, offset: source.offset, detail, excerpt: excerptOf(text, EXCERPT_CHARACTERS) };
}
