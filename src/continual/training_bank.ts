/** The bank as the continual stage sees it: it grows, is rewritten with the current weights, and is searched. */

import { weightsHash } from '../checkpoint/safetensors.ts';
import type { RunConfig } from '../config/schema.ts';
import type { Reference, ReferenceDataset } from '../data/references.ts';
import { Bank } from '../memory/bank.ts';
import type { BankWriter } from '../memory/bank_writer.ts';
import { chunkQueries } from '../memory/chunk_queries.ts';
import type { DecodeChunk, RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { restoreEncoder } from '../memory/encoders/registry.ts';
import { type GrowthPlan, growthPlan } from '../memory/growth.ts';
import { Retriever } from '../memory/retrieve.ts';
import { RowCache } from '../memory/row_cache.ts';
import { compileReferences, type WriteOptions } from '../memory/write.ts';
import type { Model } from '../model/model.ts';
import { parameterShapes } from '../model/shape.ts';

/** Memories kept in RAM. */
const CACHE_BYTES = 256 * 2 ** 20;

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
}

export class TrainingBank {
  /** The version that is read now. */
  bank: Bank;
  retriever: Retriever;
  private readonly options: TrainingBankOptions;
  private readonly plan: GrowthPlan;
  private readonly writer: BankWriter;
  private readonly encoder: RetrievalEncoder;
  /** Shared by all versions: a memory that stays is read once. */
  private readonly cache: RowCache;

  private constructor(
    options: TrainingBankOptions,
    writer: BankWriter,
    encoder: RetrievalEncoder,
    cache: RowCache,
    opened: Opened,
  ) {
    const { config, references } = options;
    this.options = options;
    this.writer = writer;
    this.encoder = encoder;
    this.cache = cache;
    this.plan = growthPlan(config.continual.growth, references.size, config.seed);
    this.bank = opened.bank;
    this.retriever = opened.retriever;
  }

  /** @throws UserError artefact_missing when nothing was compiled, artefact_mismatch for a bank of another model */
  static async open(options: TrainingBankOptions): Promise<TrainingBank> {
    const writer = await Bank.openForWriting(options.folder, { version: options.version });
    const { encoder: stored, layout } = writer.identity;
    const encoder = restoreEncoder(stored, {
      layout,
      queries: chunkQueries(options.model, writeOptions(options)),
      decode: options.decode,
    });
    const cache = new RowCache(CACHE_BYTES);
    return new TrainingBank(options, writer, encoder, cache, await openVersion(options.folder, encoder, cache));
  }

  /**
   * Brings the bank to what step `step` (from 1) is to read: references that the plan adds, and every `refreshEvery`
   * steps all of them written anew, so that they stay readable by the changed model (paper, Remark 9).
   * @returns what was done, for the log; undefined when the bank stays as it is
   */
  async prepare(step: number): Promise<string | undefined> {
    const { refreshEvery } = this.options.config.continual;
    const wanted = this.plan.countAt(step - 1);
    const stale = refreshEvery > 0 && step > 1 && (step - 1) % refreshEvery === 0;
    if (!stale && wanted <= this.bank.size) return undefined;
    const hash = await modelHash(this.options.model);
    if (stale)
      await this.writer.replaceAll(
        this.compile(wanted, () => true),
        hash,
      );
    else
      await this.writer.append(
        this.compile(wanted, ({ id }) => !this.writer.has(id)),
        hash,
      );
    const before = this.bank.size;
    const opened = await openVersion(this.options.folder, this.encoder, this.cache);
    await this.bank.close();
    Object.assign(this, opened);
    const grown = wanted > before ? `grew from ${before} to ${wanted} memories` : `holds ${wanted} memories`;
    return `bank version ${this.bank.version}: ${grown}${stale ? ', all rewritten with the current weights' : ''}`;
  }

  /** Drops the versions that neither a checkpoint nor the next step needs. */
  async prune(keepVersions: readonly number[]): Promise<void> {
    await this.writer.prune(keepVersions);
  }

  async close(): Promise<void> {
    await this.bank.close();
  }

  /** Those of the first `count` references of the growth plan that are wanted, written with the current weights. */
  private compile(count: number, isWanted: (reference: Reference) => boolean): ReturnType<typeof compileReferences> {
    const { model, references, config } = this.options;
    const { plan, encoder } = this;
    async function* texts(): AsyncGenerator<Reference> {
      for (let place = 0; place < count; place++) {
        const reference = await references.getInContext(plan.referenceAt(place), config.memory.contextTokens);
        if (isWanted(reference)) yield reference;
      }
    }
    return compileReferences(model, texts(), { ...writeOptions(this.options), encoder });
  }
}

type Opened = Pick<TrainingBank, 'bank' | 'retriever'>;

async function openVersion(folder: string, encoder: RetrievalEncoder, cache: RowCache): Promise<Opened> {
  const bank = await Bank.open(folder, { cache });
  return { bank, retriever: await Retriever.fromBank(bank, encoder) };
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
