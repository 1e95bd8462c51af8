/** The bank as the continual stage sees it: it grows, is rewritten with the current weights, and is searched. */

import { weightsHash } from '../checkpoint/safetensors.ts';
import type { RunConfig } from '../config/schema.ts';
import type { ReferenceDataset } from '../data/references.ts';
import { Bank } from '../memory/bank.ts';
import type { BankWriter } from '../memory/bank_writer.ts';
import { chunkQueries } from '../memory/chunk_queries.ts';
import { type Drift, driftSample, measureDrift } from '../memory/drift.ts';
import type { DecodeChunk, RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { restoreEncoder } from '../memory/encoders/registry.ts';
import { type GrowthPlan, growthPlan } from '../memory/growth.ts';
import { Retriever } from '../memory/retrieve.ts';
import { RowCache } from '../memory/row_cache.ts';
import { compileReferences, type ReferenceText, type WriteOptions } from '../memory/write.ts';
import type { Model } from '../model/model.ts';
import { parameterShapes } from '../model/shape.ts';
import type { StageEvent } from '../train/stage.ts';
import { CACHE_BYTES } from './batch_reader.ts';

export interface TrainingBankOptions {
  config: RunConfig;
  folder: string;
  model: Model;
  references: ReferenceDataset;
  /** Token ids of `<s>Reference:`. */
  prefix: Int32Array;
  /** For retrieval encoders that take text. */
  decode: DecodeChunk;
  /** Version to go back to first, when a run resumes. */
  version?: number;
  /** Steps of the stage that the weights had made which wrote memories of the bank, by their hash, where it is known. */
  written?: Readonly<Record<string, number>>;
}

export class TrainingBank {
  /** The version that is read now. */
  bank: Bank;
  private readonly options: TrainingBankOptions;
  private readonly plan: GrowthPlan;
  private readonly writer: BankWriter;
  private readonly encoder: RetrievalEncoder;
  /** Shared by all versions: a memory that stays is read once. */
  private readonly cache: RowCache;
  private readonly writtenAt: Map<string, number>;
  private retrieving: Promise<Retriever> | undefined;

  private constructor(
    options: TrainingBankOptions,
    writer: BankWriter,
    encoder: RetrievalEncoder,
    cache: RowCache,
    bank: Bank,
  ) {
    const { config, references } = options;
    this.options = options;
    this.writer = writer;
    this.encoder = encoder;
    this.cache = cache;
    this.writtenAt = new Map(Object.entries(options.written ?? {}));
    this.plan = growthPlan(config.continual.growth, references.size, config.seed);
    this.bank = bank;
  }

  /** @throws UserError artefact_missing when nothing was compiled, artefact_mismatch for a bank of another model */
  static async open(options: TrainingBankOptions): Promise<TrainingBank> {
    const writer = await Bank.openForWriting(options.folder, { version: options.version });
    const { encoder: stored, layout } = writer.identity;
    const encoder = restoreEncoder(stored, {
      layout,
      queries: chunkQueries(options.model, writeOptions(options)),
      decode: options.decode,
      config: options.config,
    });
    const cache = new RowCache(CACHE_BYTES);
    return new TrainingBank(options, writer, encoder, cache, await Bank.open(options.folder, { cache }));
  }

  /** Searches the version that is read now; its vectors are loaded when it is first asked for. */
  retriever(): Promise<Retriever> {
    this.retrieving ??= Retriever.fromBank(this.bank, this.encoder);
    return this.retrieving;
  }

  /**
   * Brings the bank to what step `step` (from 1) is to read: references that the plan adds, and every `refreshEvery`
   * steps the oldest memories written anew, so that they stay readable by the changed model (paper, Remark 9). What is
   * written goes to the end of the bank, so its order is that of age. A function of weights, bank and step alone: a run
   * that resumes decides as before.
   * @returns what was done, for the record; undefined when the bank stays as it is
   */
  async prepare(step: number): Promise<StageEvent | undefined> {
    const before = this.bank.size;
    const wanted = Math.max(before, this.plan.countAt(step - 1));
    const refreshed = (await this.isRefreshed(step)) ? this.refreshCount() : 0;
    if (refreshed === 0 && wanted === before) return undefined;
    const old = this.bank.ids().slice(0, refreshed);
    const memories = compileReferences(this.options.model, this.references(refreshed, wanted), {
      ...writeOptions(this.options),
      encoder: this.encoder,
    });
    const hash = await modelHash(this.options.model);
    await this.writer.edit(old, memories, hash);
    this.writtenAt.set(hash, step - 1);
    const opened = await Bank.open(this.options.folder, { cache: this.cache });
    await this.close();
    this.bank = opened;
    const grown = wanted > before ? `grew from ${before} to ${wanted} memories` : `holds ${wanted} memories`;
    const share = refreshed === before ? 'all' : `the oldest ${refreshed}`;
    const rewritten = refreshed > 0 ? `, ${share} rewritten with the current weights` : '';
    const kind = wanted > before ? 'growth' : 'refresh';
    return { kind, text: `bank version ${this.bank.version}: ${grown}${rewritten}` };
  }

  /**
   * How far the memories are from what the current weights write, in a sample that stays the same as long as the bank
   * does; undefined when there is none.
   */
  async drift(): Promise<Drift | undefined> {
    const { config, model } = this.options;
    const ids = driftSample(this.bank, config.seed, config.continual.driftSample);
    return ids.length === 0 ? undefined : await measureDrift(model, this.bank, ids, writeOptions(this.options));
  }

  /** Steps made when each of the weights wrote that the bank is of, by their hash; those that are known. */
  get written(): Record<string, number> {
    const known = this.bank.writers.map((hash) => [hash, this.writtenAt.get(hash)] as const);
    return Object.fromEntries(known.filter((entry): entry is [string, number] => entry[1] !== undefined));
  }

  /**
   * Optimiser steps between the weights that wrote the memories and those that read them in step `step`, a mean over the
   * memories; undefined for an empty bank, and where it is not known who wrote one.
   */
  age(step: number): number | undefined {
    let sum = 0;
    for (const { writer, memories, deleted } of this.bank.segments) {
      const written = this.writtenAt.get(writer);
      if (written === undefined) return undefined;
      sum += (memories - deleted.length) * (step - 1 - written);
    }
    return this.bank.size === 0 ? undefined : sum / this.bank.size;
  }

  /** Drops the versions that neither a checkpoint nor the next step needs. */
  async prune(keepVersions: readonly number[]): Promise<void> {
    await this.writer.prune(keepVersions);
  }

  async close(): Promise<void> {
    const retrieving = this.retrieving?.catch(() => undefined);
    this.retrieving = undefined;
    await (await retrieving)?.close();
    await this.bank.close();
  }

  /** True when a refresh is due before `step` and the memories have changed enough for it. */
  private async isRefreshed(step: number): Promise<boolean> {
    const { refreshEvery, refreshBelow } = this.options.config.continual;
    if (refreshEvery === 0 || step === 1 || (step - 1) % refreshEvery !== 0) return false;
    const drift = refreshBelow < 1 ? await this.drift() : undefined;
    return drift === undefined || Math.min(drift.keyCosine, drift.valueCosine) < refreshBelow;
  }

  private refreshCount(): number {
    // The subtraction keeps products such as 0.1 · 30 from being rounded up past the share that is meant.
    return Math.ceil(this.options.config.continual.refreshShare * this.bank.size - 1e-6);
  }

  /** References of the `oldest` first memories, then those of the first `wanted` of the growth plan that are missing. */
  private async *references(oldest: number, wanted: number): AsyncGenerator<ReferenceText> {
    const { bank, plan } = this;
    const { references, config } = this.options;
    if (oldest > 0) {
      let left = oldest;
      for await (const record of bank.list()) {
        yield record;
        if (--left === 0) break;
      }
    }
    if (wanted <= bank.size) return;
    for await (const reference of references.inOrder(plan.referencesAt(0, wanted), config.memory.contextTokens)) {
      if (!bank.has(reference.id)) yield reference;
    }
  }
}

function writeOptions({ config, prefix }: TrainingBankOptions): WriteOptions {
  return { prefix, memory: config.memory };
}

/** The hash under which a checkpoint of these weights is known. */
export async function modelHash(model: Model): Promise<string> {
  const shapes = parameterShapes(model.shape);
  const weights = await model.weights();
  return weightsHash(new Map([...weights].map(([name, data]) => [name, { shape: shapes.get(name) ?? [], data }])));
}
