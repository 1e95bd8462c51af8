/** A trained model with its tokenizer and its bank, opened for reading. */

import { latestCheckpoint, loadCheckpoint } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { dataPaths } from '../data/build.ts';
import { decodeChunk, Tokenizer } from '../data/tokenizer.ts';
import { UserError } from '../errors.ts';
import type { RunFolder } from '../io/run_folder.ts';
import type { Bank } from '../memory/bank.ts';
import { chunkQueries } from '../memory/chunk_queries.ts';
import type { RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { restoreEncoder } from '../memory/encoders/registry.ts';
import { type MemorySearch, Retriever } from '../memory/retrieve.ts';
import { Model } from '../model/model.ts';
import { type BankReader, bankReader, openReadable } from './run_bank.ts';

export interface SessionOptions {
  /** Path of a checkpoint; the newest of stage two, or else of stage one, when left out. */
  checkpoint?: string;
  /** False leaves the bank closed. */
  memory?: boolean;
}

export class Session {
  readonly config: RunConfig;
  readonly folder: RunFolder;
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  /** Hash of the model's weights. */
  readonly weightsHash: string;
  private readonly reader: BankReader;
  private opened: { bank: Bank; retriever: MemorySearch; encoder: RetrievalEncoder } | undefined;

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
  }

  async close(): Promise<void> {
    await this.opened?.bank.close();
    this.opened = undefined;
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
