/** A trained model with its tokenizer and its bank, opened for reading. */

import { latestCheckpoint, loadCheckpoint } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { dataPaths } from '../data/build.ts';
import { Tokenizer } from '../data/tokenizer.ts';
import { UserError } from '../errors.ts';
import type { RunFolder } from '../io/run_folder.ts';
import { Bank } from '../memory/bank.ts';
import { type RetrievalEncoder, restoreEncoder } from '../memory/encoders.ts';
import { modelKey, type ReaderIdentity } from '../memory/layout.ts';
import { Retriever } from '../memory/retrieve.ts';
import { textWriter } from '../memory/write.ts';
import { Model } from '../model/model.ts';

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
  private readonly accepted: ReaderIdentity;
  /** The bank version that the checkpoint was trained to read next. */
  private readonly bankVersion: number | undefined;
  private opened: { bank: Bank; retriever: Retriever; encoder: RetrievalEncoder } | undefined;

  private constructor(
    config: RunConfig,
    folder: RunFolder,
    tokenizer: Tokenizer,
    model: Model,
    checkpoint: { weightsHash: string; writers: readonly string[]; bankVersion: number | undefined },
  ) {
    this.config = config;
    this.folder = folder;
    this.tokenizer = tokenizer;
    this.model = model;
    this.weightsHash = checkpoint.weightsHash;
    this.bankVersion = checkpoint.bankVersion;
    this.accepted = {
      modelKey: modelKey(model.shape, config.memory),
      tokenizerHash: tokenizer.hash,
      writers: [checkpoint.weightsHash, ...checkpoint.writers],
    };
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
    const { weightsHash, bankWriters: writers = [] } = state;
    const bankVersion = state.bankVersion === undefined ? undefined : Number(state.bankVersion);
    const session = new Session(config, folder, tokenizer, model, { weightsHash, writers, bankVersion });
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

  get retriever(): Retriever {
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
    const bank = await this.readableVersion(folder);
    const write = textWriter(this.model, { prefix: this.tokenizer.referencePrefix, memory: this.config.memory });
    const encoder = restoreEncoder(bank.identity.encoder, bank.identity.layout, write);
    const retriever = await Retriever.fromBank(bank, encoder);
    await this.opened?.bank.close();
    this.opened = { bank, retriever, encoder };
  }

  /** The current version; when later weights wrote it, as in a run that was killed, the one the checkpoint names. */
  private async readableVersion(folder: string): Promise<Bank> {
    const { accepted: identity, bankVersion: version } = this;
    try {
      return await Bank.open(folder, { identity });
    } catch (error) {
      const isForeign = error instanceof UserError && error.code === 'artefact_mismatch';
      if (!isForeign || version === undefined) throw error;
      return await Bank.open(folder, { identity, version });
    }
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

async function newestCheckpoint(folder: RunFolder): Promise<string> {
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
