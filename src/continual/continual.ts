/**
 * Stage two: training goes on while each chunk of text reads the memories that it and the chunks before it retrieved
 * (paper §3.5, §6). The loss is on the text only.
 */

import { checkpointStates } from '../checkpoint/checkpoint.ts';
import type { EngineName, RunConfig } from '../config/schema.ts';
import * as tf from '../engine/tf.ts';
import type { DecodeChunk } from '../memory/encoders/encoder.ts';
import { searchesWithModel } from '../memory/encoders/registry.ts';
import {
  disposeMemories,
  memoryTensors,
  readingPositions,
  slotTensor,
  withPrefix,
  withPrefixIgnored,
} from '../memory/reading.ts';
import type { CacheStats } from '../memory/row_cache.ts';
import type { StepMemories } from '../memory/step_memories.ts';
import type { Model } from '../model/model.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import type { Tracker } from '../tracking/tracker.ts';
import { isEvery } from '../train/measures.ts';
import type { MicroBatch, Stage, StageEvent, StageState } from '../train/stage.ts';
import { TextBatches, type TrainingText, timed } from '../train/text_batches.ts';
import { meanLoss } from '../train/validation.ts';
import { BatchReader, type OnlineTexts, type Place, type Reading } from './batch_reader.ts';
import { Prefetcher } from './prefetch.ts';
import { RowsAhead } from './rows_ahead.ts';
import { StepRetrievals } from './step_retrievals.ts';
import type { TrainingBank } from './training_bank.ts';

export interface ContinualOptions {
  config: RunConfig;
  model: Model;
  /** Text of the steps with memories. */
  text: TrainingText;
  /** Text of the plain steps. */
  plainText: TrainingText;
  bank: TrainingBank;
  /** File of the tokenizer. */
  tokenizer: string;
  /** Text of token ids, for the record. */
  decode: DecodeChunk;
  /** Token ids of `<s>Reference:`. */
  prefix: Int32Array;
  /** Hash of the stage-one weights. */
  parent: string;
  /** Folder of the stage's checkpoints; the bank versions that they name are kept. */
  checkpoints: string;
}

export class ContinualStage implements Stage {
  readonly name = 'continual';
  readonly settings: RunConfig['continual'];
  private readonly options: ContinualOptions;
  private readonly text: TextBatches;
  private readonly plainText: TextBatches;
  private readonly positions: Int32Array;
  private readonly reader: BatchReader;
  /** Reads ahead; without it memories are read in the step. */
  private readonly prefetcher: Prefetcher | undefined;
  /** The memories of the next micro-batch go to the engine while this one computes. */
  private readonly rowsAhead = new RowsAhead();
  /** Milliseconds that the readings of the step took in the thread that reads ahead. */
  private prefetchMs = 0;
  /** What the micro-batches of the step have found so far. */
  private retrievals = new StepRetrievals();

  constructor(options: ContinualOptions) {
    const { config, prefix } = options;
    this.options = options;
    this.settings = config.continual;
    this.text = new TextBatches(config, config.continual, options.text);
    this.plainText = new TextBatches(config, config.continual, options.plainText);
    this.positions = readingPositions(prefix.length, config.data.sequenceLength, config.memory.referenceTokens);
    this.reader = new BatchReader(config, this.text, prefix);
    if (canPrefetch(options)) this.prefetcher = startPrefetcher(options);
  }

  async prepare(step: number): Promise<StageEvent | undefined> {
    const { bank } = this.options;
    const change = await bank.prepare(step);
    if (this.prefetcher === undefined) await bank.retriever();
    else await this.prefetcher.open(bank.bank.version);
    return change;
  }

  async microBatch(step: number, micro: number): Promise<MicroBatch> {
    if (!this.isPlain(step)) return await this.reading({ kind: 'training', step, micro });
    const { value: batch, ms } = await timed(() => this.plainText.training(step, micro));
    return this.plainText.plain(batch, ms);
  }

  async validate(): Promise<Record<string, number>> {
    const { model } = this.options;
    const count = this.text.validationCount;
    if (count === 0) return {};
    const reading = (batch: number): Promise<MicroBatch> => this.reading({ kind: 'validation', batch });
    const plain = async (i: number): Promise<MicroBatch> => this.text.plain(await this.text.validating(i), 0);
    return {
      'validation/loss': await meanLoss(model, count, reading),
      'validation/loss_without_memory': await meanLoss(model, count, plain),
      ...(await this.drift()),
    };
  }

  private async drift(): Promise<Record<string, number>> {
    const drift = await this.options.bank.drift();
    if (drift === undefined) return {};
    const { keyCosine, valueCosine, keptShare } = drift;
    return {
      'validation/bank_key_cosine': keyCosine,
      'validation/bank_value_cosine': valueCosine,
      'validation/bank_kept_share': keptShare,
    };
  }

  async measure(tracker: Tracker, step: number): Promise<void> {
    const { bank } = this.options.bank;
    const age = this.options.bank.age(step);
    const { prefetcher, prefetchMs } = this;
    const cache: CacheStats = prefetcher?.cache ?? bank.cacheStats;
    this.prefetchMs = 0;
    const values = {
      'bank/references': bank.size,
      'bank/version': bank.version,
      'bank/cache_hit_rate': cache.hitRate,
      ...(age !== undefined && { 'bank/age_steps': age }),
      ...(prefetcher && { 'time/prefetch_ms': prefetchMs }),
    };
    tracker.log(values, step);
    await this.recordRetrievals(tracker, step);
  }

  private async recordRetrievals(tracker: Tracker, step: number): Promise<void> {
    const { retrievals } = this;
    this.retrievals = new StepRetrievals();
    if (retrievals.isEmpty) return;
    tracker.log(retrievals.numbers(), step);
    const { config, decode } = this.options;
    const { retrievalsEvery, retrievedChunks } = config.tracking;
    if (!isEvery(retrievalsEvery, step)) return;
    tracker.retrievals('memory/retrievals', await retrievals.chunks(retrievedChunks, config, decode), step);
  }

  state(): StageState {
    const { bank, written } = this.options.bank;
    return {
      parent: this.options.parent,
      bankVersion: bank.version,
      bankWriters: [...bank.writers],
      bankWritten: written,
    };
  }

  async saved(): Promise<void> {
    const states = await checkpointStates(this.options.checkpoints);
    await this.options.bank.prune(states.map(({ bankVersion }) => Number(bankVersion)));
  }

  /** Ends the thread that reads ahead, and frees what was sent ahead. */
  async close(): Promise<void> {
    this.rowsAhead.drop();
    await this.prefetcher?.close();
  }

  private isPlain(step: number): boolean {
    return randomUniform(this.options.config.seed, PURPOSE.plainSteps, step, 0) < this.settings.plainShare;
  }

  /** Micro-batches with memories after `place`, in order. */
  private *after(place: Place): Generator<Place> {
    if (place.kind === 'validation') {
      const { validationCount } = this.text;
      for (let batch = place.batch + 1; batch < validationCount; batch++) yield { kind: 'validation', batch };
      return;
    }
    const { steps, accumulate } = this.settings;
    let micro = place.micro + 1;
    for (let { step } = place; step <= steps; step++, micro = 0) {
      if (this.isPlain(step)) continue;
      for (; micro < accumulate; micro++) yield { kind: 'training', step, micro };
    }
  }

  /** The batch behind the prefix, with the memories that its chunks retrieve. */
  private async reading(place: Place): Promise<MicroBatch> {
    const { prefix } = this.options;
    const { sequenceLength } = this.text;
    const { value: reading, ms } = await timed(() => this.read(place));
    const { ids, targets, stored, online } = reading;
    if (place.kind === 'training') this.retrievals.add(reading);
    const prefixed = withPrefix(ids, prefix, sequenceLength);
    const input = {
      ids: prefixed,
      firstVisible: this.text.firstVisible(prefixed, prefix.length + sequenceLength),
      targets: withPrefixIgnored(targets, prefix.length, sequenceLength),
      positions: this.positions,
      recompute: this.settings.recompute,
    };
    // Tokens that were read ahead cost the step nothing.
    const dataMs = this.prefetcher ? 0 : reading.dataMs;
    const times = { dataMs, retrievalMs: ms - dataMs };
    const sequences = ids.length / sequenceLength;
    const { read, dispose } = stored ? this.precompiled(stored, sequences) : this.online(online!, sequences);
    this.sendNext(place);
    return { input: { ...input, ...read }, ...times, dispose };
  }

  private async read(place: Place): Promise<Reading> {
    const { bank } = this.options;
    if (this.prefetcher === undefined) {
      return await this.reader.read(place, { bank: bank.bank, retriever: await bank.retriever() });
    }
    const reading = await this.prefetcher.read(place, this.after(place));
    if (place.kind === 'training') this.prefetchMs += reading.dataMs + reading.retrievalMs;
    return reading;
  }

  private sendNext(place: Place): void {
    const [next] = this.after(place);
    this.rowsAhead.send(next && this.prefetcher?.coming(next));
  }

  /** Memories of the bank: no gradient goes into them. */
  private precompiled(stored: StepMemories, sequences: number): Read {
    const { config, prefix, bank } = this.options;
    const rows = this.rowsAhead.take(stored);
    const memories = memoryTensors(stored, bank.bank.identity, config.memory, sequences, prefix.length, rows);
    return { read: { memories }, dispose: () => disposeMemories(memories) };
  }

  /** References encoded in the step, so that gradients reach the weights that write them (the paper's way). */
  private online({ ids, lengths, index: slots }: OnlineTexts, sequences: number): Read {
    if (lengths.length === 0) return { read: {}, dispose: () => {} };
    const { config, prefix } = this.options;
    const { memoriesPerChunk, keptTokens, tokenScores, chunkLength } = config.memory;
    const index = slotTensor(slots, sequences, memoriesPerChunk);
    const onlineReferences = {
      ids,
      lengths,
      index,
      start: prefix.length,
      chunkLength,
      prefixLength: prefix.length,
      keptTokens,
      tokenScores,
    };
    return { read: { onlineReferences }, dispose: () => index.dispose() };
  }
}

interface Read {
  read: Pick<MicroBatch['input'], 'memories' | 'onlineReferences'>;
  dispose(): void;
}

/** Queries that need the model of the step cannot be made before it; libtensorflow is kept to one thread of JavaScript. */
function canPrefetch({ config, bank }: ContinualOptions): boolean {
  const { prefetch } = config.continual;
  return prefetch > 0 && !searchesWithModel(bank.bank.identity.encoder) && tf.getBackend() !== 'tensorflow';
}

function startPrefetcher({ config, text, bank, tokenizer, prefix }: ContinualOptions): Prefetcher {
  const engine = tf.getBackend() as EngineName;
  const folders = { bank: bank.bank.folder, tokens: text.train.folder, tokenizer };
  return new Prefetcher({ config, engine, ...folders, prefix }, config.continual.prefetch);
}
