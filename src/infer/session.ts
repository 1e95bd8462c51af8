/** A trained model with its tokenizer and its bank, opened for reading. */

import { latestCheckpoint, loadCheckpoint } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { dataPaths } from '../data/paths.ts';
import { ReferenceDataset } from '../data/references.ts';
import { decodeChunk, Tokenizer } from '../data/tokenizer.ts';
import { UserError } from '../errors.ts';
import type { RunFolder } from '../io/run_folder.ts';
import { Bank } from '../memory/bank.ts';
import { chunkQueries } from '../memory/chunk_queries.ts';
import type { RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { restoreEncoder } from '../memory/encoders/registry.ts';
import { Versions } from '../memory/manifest.ts';
import type { ReferenceIndexOptions } from '../memory/reference_index.ts';
import { type MemorySearch, Retriever } from '../memory/retrieve.ts';
import { Model } from '../model/model.ts';
import { ColdStart, type MemoryStore, type OpenedBank } from './cold_start.ts';
import { type BankReader, bankReader, openReadable } from './run_bank.ts';
import { RunWriter } from './run_writer.ts';

export interface SessionOptions {
  /** Path of a checkpoint; the newest of stage two, or else of stage one, when left out. */
  checkpoint?: string;
  /** False leaves the bank closed. */
  memory?: boolean;
}

export interface ColdStartOptions {
  /** Told what is stored, and once why something is not. */
  say?: (line: string) => void;
  /** Called while vectors of the references are made, the first time: references done and in all. */
  onProgress?: (done: number, total: number) => void;
}

/** Memories that could not be stored and are kept for later answers. */
const MOST_UNSTORED = 1024;

export class Session {
  readonly config: RunConfig;
  readonly folder: RunFolder;
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** Hash of the model's weights. */
  readonly weightsHash: string;
  private readonly reader: BankReader;
  private opened: OpenedBank | undefined;
  private cold: ColdStart | undefined;
  /** Set with `cold`. */
  private coldOptions: { writer: RunWriter; say: (line: string) => void; index: ReferenceIndexOptions } | undefined;

  private constructor(
    config: RunConfig,
    folder: RunFolder,
    tokenizer: Tokenizer,
    model: Model,
    checkpoint: { weightsHash: string; reader: BankReader },
  ) {
    this.config = config;
    this.folder = folder;
    this.tokenizer = tokenizer;
    this.model = model;
    this.weightsHash = checkpoint.weightsHash;
    this.reader = checkpoint.reader;
  }

  /**
   * Opens the newest checkpoint of a run, or the one named, and the bank when it is wanted.
   * @throws UserError artefact_missing without a checkpoint or bank, artefact_mismatch when they do not fit each other
   */
  static async open(config: RunConfig, folder: RunFolder, options: SessionOptions = {}): Promise<Session> {
    const path = options.checkpoint ?? (await newestCheckpoint(folder));
    const { parameters, state } = await loadCheckpoint(path, { optimizer: false });
    const tokenizer = await Tokenizer.load(dataPaths(folder.data).tokenizer);
    if (tokenizer.hash !== state.tokenizerHash) {
      throw new UserError('artefact_mismatch', {
        where: path,
        what: `the checkpoint was trained with tokenizer ${state.tokenizerHash.slice(0, 12)}, the run has ${tokenizer.hash.slice(0, 12)}`,
        action: 'give a checkpoint of this run, or build the data and train again',
      });
    }
    const model = new Model(state.modelConfig, new Map([...parameters].map(([name, { data }]) => [name, data])));
    const { weightsHash } = state;
    const session = new Session(config, folder, tokenizer, model, { weightsHash, reader: bankReader(state, config) });
    try {
      if (options.memory !== false) await session.openBank();
      return session;
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  /** The bank version that is read. @throws Error when the session was opened without memory */
  get bank(): Bank {
    return this.memory.bank;
  }

  /** Search over the bank version that is read. */
  get retriever(): MemorySearch {
    return this.memory.retriever;
  }

  get encoder(): RetrievalEncoder {
    return this.memory.encoder;
  }

  /** True once `startCold` was called. */
  get isCold(): boolean {
    return this.cold !== undefined;
  }

  /** Search for an answer: over the bank, with a cold start over the references too. */
  get search(): MemorySearch {
    return this.cold ?? this.retriever;
  }

  /** Where an answer reads what `search` found. */
  get store(): MemoryStore {
    return this.cold ?? this.bank;
  }

  get hasMemory(): boolean {
    return this.opened !== undefined;
  }

  /** Opens the current version of the bank in `folder`, again after a change; by default the one that is open, or the run's. */
  async openBank(folder = this.opened?.bank.folder ?? this.folder.bank): Promise<void> {
    const bank = await openReadable(folder, this.reader);
    const queries = chunkQueries(this.model, { prefix: this.tokenizer.referencePrefix, memory: this.config.memory });
    const encoder = restoreEncoder(bank.identity.encoder, {
      layout: bank.identity.layout,
      queries,
      decode: decodeChunk(this.tokenizer),
      config: this.config,
    });
    await this.opened?.bank.close();
    this.opened = { bank, retriever: lateRetriever(bank, encoder), encoder };
    if (this.coldOptions) this.cold = await this.cold?.reopened(this.opened, this.coldOptions.index);
  }

  /**
   * From now on answers also find references that the bank does not hold; the model writes them when they are first found
   * (paper §3.2, cold start).
   * @throws UserError config_invalid for an encoder that finds memories only, artefact_missing or input_empty without
   * references
   */
  async startCold({ say = () => {}, onProgress }: ColdStartOptions = {}): Promise<void> {
    const { config, tokenizer, model } = this;
    const { references: folder } = dataPaths(this.folder.data);
    const references = await ReferenceDataset.open(folder, { tokenizerHash: tokenizer.hash });
    if (references.size === 0) {
      const action = 'name a corpus under `data.references` and build the data';
      throw new UserError('input_empty', { where: folder, what: 'there are no references to start from', action });
    }
    const writer = new RunWriter(this.folder.root, say);
    const index: ReferenceIndexOptions = {
      store: (write) => writer.attempt(write),
      onProgress: (done) => onProgress?.(done, references.size),
    };
    const write = { prefix: tokenizer.referencePrefix, memory: config.memory };
    const sources = { references, folder, model, write, contextTokens: config.memory.contextTokens };
    this.cold = await ColdStart.open(sources, this.memory, index);
    this.coldOptions = { writer, say, index };
  }

  /**
   * Stores the memories that a cold start has written, as one version of the bank. Where the run cannot be written to, they
   * stay in use for this session.
   * @returns the ids that were stored
   */
  async storeWritten(): Promise<string[]> {
    if (!this.cold || !this.coldOptions || this.cold.newIds.length === 0) return [];
    const { writer, say } = this.coldOptions;
    const ids: string[] = [];
    const isStored = await writer.attempt(async () => {
      const versions = await Versions.open(this.bank.folder);
      const isChanged = (await versions.current()).contentHash !== this.bank.contentHash;
      // By another process, since it was opened.
      if (isChanged) await this.openBank();
      const memories = this.cold?.newMemories();
      if (memories === undefined || memories.records.length === 0) return;
      const bank = await Bank.openForWriting(this.bank.folder, { version: this.bank.version });
      await bank.append([memories], this.weightsHash);
      await this.openBank();
      for (const { id } of memories.records) ids.push(id);
      say(`cold start: ${ids.length} references written, bank version ${this.bank.version}`);
    });
    if (!isStored && this.cold.newIds.length > MOST_UNSTORED) this.cold.forget();
    return ids;
  }

  async close(): Promise<void> {
    await this.opened?.bank.close();
    this.opened = undefined;
    this.cold = undefined;
    this.model.dispose();
  }

  private get memory() {
    if (this.opened === undefined) throw new Error('the session was opened without memory');
    return this.opened;
  }
}

/** Search that loads the vectors at the first query: changing a bank needs none. */
export function lateRetriever(bank: Bank, encoder: RetrievalEncoder): MemorySearch {
  let loaded: Promise<Retriever> | undefined;
  return {
    tokens: (id) => bank.tokens(id),
    search: async (chunks, count) => {
      loaded ??= Retriever.fromBank(bank, encoder);
      return (await loaded).search(chunks, count);
    },
  };
}

/** The newest whole checkpoint of stage two, or else of stage one. @throws UserError artefact_missing */
export async function newestCheckpoint(folder: RunFolder): Promise<string> {
  for (const stage of ['continual', 'warmup'] as const) {
    const { newest } = await latestCheckpoint(folder.checkpoints(stage));
    if (newest !== undefined) return newest.path;
  }
  throw new UserError('artefact_missing', {
    where: folder.root,
    what: 'the run has no checkpoint',
    action: 'train first: `memory3 run -c …`',
  });
}
