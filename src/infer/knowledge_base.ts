/** The knowledge of a run for a program: one object to look at its bank, search it and change it. */

import { checkpointStates } from '../checkpoint/checkpoint.ts';
import { loadConfig } from '../config/load.ts';
import type { RunConfig } from '../config/schema.ts';
import { type DataCounters, newCounters } from '../data/documents.ts';
import { dataPaths } from '../data/paths.ts';
import { ReferenceDataset } from '../data/references.ts';
import { decodeChunk, Tokenizer } from '../data/tokenizer.ts';
import { openEngine } from '../engine/engine.ts';
import { ignoreUserError, UserError } from '../errors.ts';
import { writeFileAtomic } from '../io/files.ts';
import { lockRunFolder, RunFolder } from '../io/run_folder.ts';
import { Bank } from '../memory/bank.ts';
import { BankIndex, type IndexSpec } from '../memory/bank_index.ts';
import { type BankStats, bankStats, folderBytes } from '../memory/bank_stats.ts';
import { chunkQueries } from '../memory/chunk_queries.ts';
import type { ChunkQueries, RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { LexicalEncoder } from '../memory/encoders/lexical.ts';
import { restoreEncoder } from '../memory/encoders/registry.ts';
import { indexesOnDisk } from '../memory/index_files.ts';
import type { BankIdentity, MemoryRecord } from '../memory/layout.ts';
import { type BankRepair, bankProblems, type RepairSources, repairBank } from '../memory/repair.ts';
import type { MemorySearch } from '../memory/retrieve.ts';
import { type Trial, type TuneOptions, tuneIndex } from '../memory/tune.ts';
import { withdraw } from '../memory/withdrawn.ts';
import { type WriteOptions, writeTexts } from '../memory/write.ts';
import { type AddOptions, addKnowledge, editKnowledge, type Knowledge } from './knowledge.ts';
import { retrainedCodecs } from './retrained_codecs.ts';
import { bankReader, openReadable } from './run_bank.ts';
import { lateRetriever, Session } from './session.ts';

/** A reference in the bank: where it comes from and what it says. */
export interface StoredReference {
  id: string;
  document: string;
  /** Empty when the document has none. */
  title: string;
  text: string;
  /** Characters [start, end) of the document. */
  span: [number, number];
}

/** A reference with what was kept of it. */
export interface StoredMemory extends StoredReference {
  /** Token ids of the text. */
  tokens: number[];
  /** Positions of the kept tokens inside `tokens`: memory layers × key-value heads × kept tokens, flat. */
  kept: number[];
  /** Kept tokens that are real. */
  keptLength: number;
  /** Hash of the weights that wrote it. */
  writer: string;
}

export interface SearchHit extends StoredReference {
  /** Cosine similarity to the text that was searched for. */
  score: number;
}

export interface SearchOptions {
  /** Results at most. Default 10. */
  limit?: number;
  /**
   * Also find references that the bank does not hold; those among the results are written and stored (paper §3.2, cold
   * start). When another process has the run they are found and not stored.
   */
  cold?: boolean;
}

export interface ListOptions {
  /** Only those whose title or text contains this, whatever the case. */
  contains?: string;
  /** Only those of the document with this id. */
  document?: string;
}

export interface Added {
  /** Ids of the new memories. */
  ids: string[];
  /** Documents of a file that could not be used, with the reasons. */
  documents: DataCounters;
}

export interface KnowledgeOptions {
  /** Changes to the configuration, as `--set` makes them: `threads=2`. */
  set?: readonly string[];
  /** Checkpoint that writes and that must be able to read the bank; by default the newest of the run. */
  checkpoint?: string;
}

/**
 * A run's bank, as its newest model reads it. Looking needs the bank alone; searching the tokenizer, and the model where
 * the retrieval encoder does; adding and editing the model. Each is loaded when it is first needed. Calls are done one
 * after the other. A change locks the run; other processes may read meanwhile, and find the old version or the new one.
 */
export class KnowledgeBase {
  readonly config: RunConfig;
  readonly folder: RunFolder;
  readonly #checkpoint: string | undefined;
  #reading: Bank | undefined;
  #session: Session | undefined;
  #search: { bank: Bank; search: MemorySearch } | undefined;
  #tokenizer: Tokenizer | undefined;
  /** Settles when the last call that was made is done. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(config: RunConfig, checkpoint: string | undefined) {
    this.config = config;
    this.folder = new RunFolder(`${config.runsFolder}/${config.name}`);
    this.#checkpoint = checkpoint;
  }

  /**
   * @param run path of the run's YAML file (a run folder keeps its own as `config.yaml`), or a configuration
   * @throws UserError config_invalid; that there is no bank or that it is damaged is found when it is first read
   */
  static async open(run: string | RunConfig, options: KnowledgeOptions = {}): Promise<KnowledgeBase> {
    const config = typeof run === 'string' ? (await loadConfig(run, { set: options.set })).config : run;
    return new KnowledgeBase(config, options.checkpoint);
  }

  /** One memory. @throws UserError memory_unknown */
  async get(id: string): Promise<StoredMemory> {
    return await this.#inTurn(async () => {
      const bank = await this.#bank();
      const record = await bank.get(id);
      const [tokens, kept] = [Array.from(record.tokens), Array.from(record.kept)];
      return { ...reference(record), tokens, kept, keptLength: record.keptLength, writer: bank.writer(id) };
    });
  }

  /** The references in the bank, in its order, one segment in memory at a time; later changes are not seen. */
  async *list({ contains, document }: ListOptions = {}): AsyncGenerator<StoredReference> {
    const wanted = contains?.toLowerCase();
    const bank = await this.#inTurn(async () => {
      const { folder, version } = await this.#bank();
      return await Bank.open(folder, { version });
    });
    try {
      for await (const record of bank.list()) {
        if (document !== undefined && record.document !== document) continue;
        if (wanted !== undefined && !`${record.title} ${record.text}`.toLowerCase().includes(wanted)) continue;
        yield reference(record);
      }
    } finally {
      await bank.close();
    }
  }

  /**
   * What retrieval finds for a text, nearest first. Only the last `memory.referenceTokens` tokens of a longer text count.
   * @throws UserError input_empty for a text without tokens; with `cold` config_invalid for an encoder of memories
   */
  async search(text: string, { limit = 10, cold = false }: SearchOptions = {}): Promise<SearchHit[]> {
    if (!Number.isInteger(limit) || limit < 1) {
      throw new UserError('usage_invalid', {
        what: `a search cannot give ${limit} results`,
        action: 'ask for 1 or more',
      });
    }
    return await this.#inTurn(async () => {
      this.#tokenizer ??= await Tokenizer.load(dataPaths(this.folder.data).tokenizer);
      const tokens = await this.#tokenizer.encode(text.trim());
      if (tokens.length === 0) {
        const action = 'give at least one word';
        throw new UserError('input_empty', { what: 'there is no text to search for', action });
      }
      const query = tokens.slice(-this.config.memory.referenceTokens);
      if (cold) return await this.#coldSearch(query, limit);
      const bank = await this.#bank();
      return await hits(await this.#searchOf(bank, this.#tokenizer), bank, query, limit);
    });
  }

  async #coldSearch(query: Int32Array, limit: number): Promise<SearchHit[]> {
    const session = await this.#writing();
    if (!session.isCold) await session.startCold();
    const found = await hits(session.search, session.store, query, limit);
    await session.storeWritten();
    return found;
  }

  /** Memories, versions and bytes. */
  async stats(): Promise<BankStats> {
    return await this.#inTurn(async () => await bankStats(await this.#bank()));
  }

  /**
   * Reads every byte of every version and compares it with its checksums.
   * @returns what is damaged: file, what is wrong with it, what to do; nothing for a whole bank
   * @throws UserError artefact_missing when there is no bank
   */
  async verify(): Promise<UserError[]> {
    return await this.#inTurn(() => bankProblems(this.folder.bank));
  }

  /**
   * Makes what is damaged again from the other files of the bank and, for key-values, from the texts with the checkpoint
   * that wrote them. Removes what a killed process left.
   * @param options.dropDamaged give up what cannot be made again
   * @throws UserError artefact_missing when there is no bank, run_locked, disk_full
   */
  async repair(options: { dropDamaged?: boolean } = {}): Promise<BankRepair> {
    await this.#inTurn(() => this.#closeBank());
    return await this.#locked(async () => {
      const report = await repairBank(this.folder.bank, this.#repairSources(), options);
      await this.#closeBank();
      return report;
    });
  }

  /**
   * Writes the references as JSON lines: id, document, title, text, span. The file is there whole or not at all.
   * @returns the number of lines
   */
  async export(path: string, options: ListOptions = {}): Promise<number> {
    let lines = 0;
    const references = this.list(options);
    async function* chunks(): AsyncGenerator<Uint8Array> {
      for await (const each of references) {
        lines++;
        yield Buffer.from(`${JSON.stringify(each)}\n`);
      }
    }
    await writeFileAtomic(path, chunks());
    return lines;
  }

  /**
   * Writes a text, or the documents of a file, into the bank: one new version, or none after an error.
   * @throws UserError input_missing, input_empty, input_invalid (is there already), run_locked, disk_full
   */
  async add(knowledge: Knowledge | { path: string }, options: AddOptions = {}): Promise<Added> {
    const documents = options.counters ?? newCounters();
    const write = async (session: Session): Promise<string[]> =>
      await addKnowledge(session, knowledge, { ...options, counters: documents });
    return { ids: await this.#write(write), documents };
  }

  /** Replaces what a memory says. @returns the ids of the new memories @throws UserError memory_unknown, input_empty */
  async edit(id: string, text: string): Promise<string[]> {
    return await this.#write((session) => editKnowledge(session, id, text));
  }

  /** Removes memories: all or, after an error, none. @throws UserError memory_unknown, run_locked */
  async delete(ids: readonly string[]): Promise<void> {
    await this.#locked(async () => {
      const { folder, version } = await this.#bank();
      const writer = await Bank.openForWriting(folder, { version });
      await withdraw(writer, ids);
      await writer.delete(ids);
      await this.#reopen();
    });
  }

  /**
   * Rewrites the segments that hold deleted memories, joins small ones, and removes all older versions, so that what was
   * deleted is in no file of the bank any more.
   * @returns bytes of the bank's folder before and after
   * @throws UserError input_invalid while stage two may still go back to an older version
   */
  async compact(): Promise<{ before: number; after: number }> {
    return await this.#locked(async () => {
      await this.#refuseUnfinished();
      const { folder, version } = await this.#bank();
      const before = await folderBytes(folder);
      const writer = await Bank.openForWriting(folder, { version });
      const spec = await BankIndex.specIn(folder);
      await writer.compact();
      await writer.prune([]);
      if (spec !== undefined && (await indexesOnDisk(folder)).length === 0) await rebuildIndex(folder, spec);
      await this.#reopen();
      return { before, after: await folderBytes(folder) };
    });
  }

  /**
   * Measures ways of searching the bank and keeps the fastest that finds enough.
   * @param options.dryRun only measure
   * @throws UserError config_invalid when Faiss is not there or cannot make an index
   */
  async tune(options: TuneOptions & { dryRun?: boolean }): Promise<{ trials: Trial[]; chosen: IndexSpec | undefined }> {
    return await this.#locked(async () => {
      await openEngine(this.config.engine, this.config.threads, this.config.precision);
      const bank = await this.#bank();
      const tokenizer = await Tokenizer.load(dataPaths(this.folder.data).tokenizer);
      const { trials, best } = await tuneIndex(bank, this.#encoderOf(bank.identity, tokenizer), options);
      if (!options.dryRun) await best?.save();
      await best?.close();
      await this.#reopen();
      this.#search = undefined;
      return { trials, chosen: best?.spec };
    });
  }

  async close(): Promise<void> {
    await this.#inTurn(() => this.#closeBank());
  }

  async #closeBank(): Promise<void> {
    await this.#reading?.close();
    await this.#session?.close();
    this.#reading = undefined;
    this.#session = undefined;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return await result;
  }

  /** The version that is read: that of the session once there is one. */
  async #bank(): Promise<Bank> {
    if (this.#session?.hasMemory) return this.#session.bank;
    this.#reading ??= await this.#openBank();
    return this.#reading;
  }

  async #openBank(): Promise<Bank> {
    if (this.#checkpoint !== undefined) return (await this.#writing()).bank;
    for (const stage of ['continual', 'warmup'] as const) {
      const [newest] = await checkpointStates(this.folder.checkpoints(stage));
      if (newest !== undefined) return await openReadable(this.folder.bank, bankReader(newest, this.config));
    }
    return await Bank.open(this.folder.bank);
  }

  async #reopen(): Promise<void> {
    if (this.#session?.hasMemory) return await this.#session.openBank();
    await this.#reading?.close();
    this.#reading = undefined;
  }

  async #searchOf(bank: Bank, tokenizer: Tokenizer): Promise<MemorySearch> {
    if (this.#session?.hasMemory) return this.#session.retriever;
    if (this.#search?.bank !== bank) {
      await openEngine(this.config.engine, this.config.threads, this.config.precision);
      this.#search = { bank, search: lateRetriever(bank, this.#encoderOf(bank.identity, tokenizer)) };
    }
    return this.#search.search;
  }

  /** The encoder of a bank; the model is loaded when it is needed. */
  #encoderOf({ encoder, layout }: BankIdentity, tokenizer: Tokenizer): RetrievalEncoder {
    const queries: ChunkQueries = async (chunks) => {
      const { model, tokenizer } = await this.#model();
      return await chunkQueries(model, { prefix: tokenizer.referencePrefix, memory: this.config.memory })(chunks);
    };
    return restoreEncoder(encoder, { layout, queries, decode: decodeChunk(tokenizer), config: this.config });
  }

  /** What a repair makes lost parts from: the run's references and its newest model. */
  #repairSources(): RepairSources {
    const { config, folder } = this;
    const write = async (): Promise<{ model: Session; options: WriteOptions }> => {
      const model = await this.#model();
      return { model, options: { prefix: model.tokenizer.referencePrefix, memory: config.memory } };
    };
    return {
      encoder: async (identity) =>
        this.#encoderOf(identity, await Tokenizer.load(dataPaths(this.folder.data).tokenizer)),
      encoderState: async ({ kind, dimensions }) => {
        if (kind !== 'lexical' || typeof dimensions !== 'number') return undefined;
        const references = await ReferenceDataset.open(dataPaths(folder.data).references).catch(ignoreUserError);
        return references && (await LexicalEncoder.fit(tokensOf(references), dimensions)).state();
      },
      codecs: async (described) => await retrainedCodecs(config, folder, described),
      rewriter: async (writer) => {
        // What stood in front of a reference in its document is not in the bank.
        if (config.memory.contextTokens > 0) return undefined;
        const { model, options } = (await write().catch(ignoreUserError)) ?? {};
        if (model === undefined || options === undefined || model.weightsHash !== writer) return undefined;
        return (tokens) => writeTexts(model.model, tokens, options);
      },
    };
  }

  /** The model, without the bank. */
  async #model(): Promise<Session> {
    if (this.#session === undefined) {
      await openEngine(this.config.engine, this.config.threads, this.config.precision);
      const options = { checkpoint: this.#checkpoint, memory: false };
      this.#session = await Session.open(this.config, this.folder, options);
    }
    return this.#session;
  }

  /** The model with the bank, to write with. */
  async #writing(): Promise<Session> {
    const session = await this.#model();
    if (!session.hasMemory) await session.openBank();
    return session;
  }

  async #write<T>(work: (session: Session) => Promise<T>): Promise<T> {
    return await this.#locked(async () => await work(await this.#writing()));
  }

  /** Does `work` on the newest version, which another process may have written, while nobody else may write. */
  async #locked<T>(work: () => Promise<T>): Promise<T> {
    return await this.#inTurn(async () => {
      const lock = await lockRunFolder(this.folder.root);
      try {
        await this.#reopen();
        return await work();
      } finally {
        lock.release();
      }
    });
  }

  /** Until stage two is complete, a run that resumes goes back to the version that its checkpoint names. */
  async #refuseUnfinished(): Promise<void> {
    const [newest] = await checkpointStates(this.folder.checkpoints('continual'));
    if (newest === undefined || newest.step >= this.config.continual.steps) return;
    throw new UserError('input_invalid', {
      where: this.folder.bank,
      what: `the continual stage is at step ${newest.step} of ${this.config.continual.steps} and needs older versions of the bank`,
      action: 'finish it with `memory3 continual -c …`, then compact',
    });
  }
}

/** Makes an index anew after the old one went with a segment. */
async function rebuildIndex(folder: string, spec: IndexSpec): Promise<void> {
  const bank = await Bank.open(folder);
  try {
    const index = await BankIndex.build(bank, spec);
    await index?.save();
    await index?.close();
  } finally {
    await bank.close();
  }
}

async function hits(
  search: MemorySearch,
  store: Pick<Bank, 'get'>,
  query: Int32Array,
  limit: number,
): Promise<SearchHit[]> {
  const [found = []] = await search.search([query], limit);
  return await Promise.all(found.map(async ({ id, score }) => ({ ...reference(await store.get(id)), score })));
}

async function* tokensOf(references: ReferenceDataset): AsyncGenerator<Int32Array> {
  for await (const batch of references.batches(1024)) for (const { tokens } of batch) yield tokens;
}

function reference({ id, document, title, text, span }: MemoryRecord): StoredReference {
  return { id, document, title, text, span: [span[0], span[1]] };
}
