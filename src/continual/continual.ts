/**
 * Stage two: training goes on while each chunk of text reads the memories that it and the chunks before it retrieved
 * (paper §3.5, §6). The loss is on the text only.
 */

import { checkpointStates } from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import type { Batch } from '../data/batches.ts';
import {
  disposeMemories,
  memoryTensors,
  readingPositions,
  slotTensor,
  withPrefix,
  withPrefixIgnored,
} from '../memory/reading.ts';
import { chunkMemories, cutChunks } from '../memory/retrieve.ts';
import { slotIndex, stepMemories } from '../memory/step_memories.ts';
import { padded } from '../memory/write.ts';
import type { Model } from '../model/model.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import type { MicroBatch, Stage, StageState } from '../train/stage.ts';
import { TextBatches, type TrainingText, timed } from '../train/text_batches.ts';
import { meanLoss } from '../train/validation.ts';
import type { TrainingBank } from './training_bank.ts';

export interface ContinualOptions {
  config: RunConfig;
  model: Model;
  /** Text of the steps with memories. */
  text: TrainingText;
  /** Text of the plain steps. */
  plainText: TrainingText;
  bank: TrainingBank;
  /** Token ids of `<s>Reference:`. */
  prefix: Int32Array;
  /** Hash of the stage-one weights. */
  parent: string;
  /** Folder of the stage's checkpoints; the bank versions that they name are kept. */
  checkpoints: string;
  say(message: string): void;
}

export class ContinualStage implements Stage {
  readonly name = 'continual';
  readonly settings: RunConfig['continual'];
  private readonly options: ContinualOptions;
  private readonly text: TextBatches;
  private readonly plainText: TextBatches;
  private readonly positions: Int32Array;

  constructor(options: ContinualOptions) {
    const { config, prefix } = options;
    this.options = options;
    this.settings = config.continual;
    this.text = new TextBatches(config, config.continual, options.text);
    this.plainText = new TextBatches(config, config.continual, options.plainText);
    this.positions = readingPositions(prefix.length, config.data.sequenceLength, config.memory.referenceTokens);
  }

  async prepare(step: number): Promise<void> {
    const change = await this.options.bank.prepare(step);
    if (change !== undefined) this.options.say(`continual step ${step}: ${change}`);
  }

  async microBatch(step: number, micro: number): Promise<MicroBatch> {
    const isPlain = this.isPlain(step);
    const text = isPlain ? this.plainText : this.text;
    const { value: batch, ms } = await timed(() => text.training(step, micro));
    if (isPlain) return text.plain(batch, ms);
    return await this.reading(batch, ms, this.options.config.retrieval.overlapThreshold);
  }

  async validate(): Promise<Record<string, number>> {
    const { model, config } = this.options;
    const count = this.text.validationCount;
    if (count === 0) return {};
    const threshold = config.retrieval.evaluationOverlapThreshold;
    const reading = async (i: number): Promise<MicroBatch> =>
      await this.reading(await this.text.validating(i), 0, threshold);
    const plain = async (i: number): Promise<MicroBatch> => this.text.plain(await this.text.validating(i), 0);
    return {
      loss: await meanLoss(model, count, reading),
      lossWithoutMemory: await meanLoss(model, count, plain),
      ...(await this.drift()),
    };
  }

  private async drift(): Promise<Record<string, number>> {
    const drift = await this.options.bank.drift();
    if (drift === undefined) return {};
    const { keyCosine, valueCosine, keptShare } = drift;
    return { bankDriftKeyCosine: keyCosine, bankDriftValueCosine: valueCosine, bankDriftKeptShare: keptShare };
  }

  measure(): Record<string, number> {
    const { bank } = this.options.bank;
    return { bankMemories: bank.size, bankVersion: bank.version, cacheHitRate: bank.cacheStats.hitRate };
  }

  state(): StageState {
    const { bank } = this.options.bank;
    return { parent: this.options.parent, bankVersion: bank.version, bankWriters: [...bank.writers] };
  }

  async saved(): Promise<void> {
    const states = await checkpointStates(this.options.checkpoints);
    await this.options.bank.prune(states.map(({ bankVersion }) => Number(bankVersion)));
  }

  private isPlain(step: number): boolean {
    return randomUniform(this.options.config.seed, PURPOSE.plainSteps, step, 0) < this.settings.plainShare;
  }

  /** The batch behind the prefix, with the memories that its chunks retrieve. */
  private async reading({ ids, targets }: Batch, dataMs: number, overlapThreshold: number): Promise<MicroBatch> {
    const { config, prefix, bank } = this.options;
    const { sequenceLength } = this.text;
    const found = await timed(async () => {
      const sequences = cutChunks(ids, sequenceLength);
      const chunks = await chunkMemories(
        sequences,
        { ...config.retrieval, ...config.memory, overlapThreshold },
        bank.retriever,
      );
      const slots = chunks.map((sequence) => sequence.chunks);
      return this.settings.memories === 'online' ? this.online(slots) : await this.precompiled(slots);
    });
    const input = {
      ids: withPrefix(ids, prefix, sequenceLength),
      targets: withPrefixIgnored(targets, prefix.length, sequenceLength),
      positions: this.positions,
      recompute: this.settings.recompute,
      ...found.value.read,
    };
    return { input, dataMs, retrievalMs: found.ms, dispose: found.value.dispose };
  }

  /** Memories of the bank: no gradient goes into them. */
  private async precompiled(slots: string[][][]): Promise<Read> {
    const { config, prefix } = this.options;
    const { bank } = this.options.bank;
    const step = await stepMemories(bank, slots, { memoriesPerChunk: config.memory.memoriesPerChunk });
    const memories = memoryTensors(step, bank.identity, config.memory, slots.length, prefix.length);
    return { read: { memories }, dispose: () => disposeMemories(memories) };
  }

  /** References encoded in the step, so that gradients reach the weights that write them (the paper's way). */
  private online(slots: string[][][]): Read {
    const { config, prefix, bank } = this.options;
    const { memoriesPerChunk, keptTokens, tokenScores, chunkLength } = config.memory;
    const { ids, index: flat } = slotIndex(slots, memoriesPerChunk);
    if (ids.length === 0) return { read: {}, dispose: () => {} };
    const { ids: tokens, lengths } = padded(
      ids.map((id) => bank.bank.tokens(id)),
      prefix,
    );
    const index = slotTensor(flat, slots.length, memoriesPerChunk);
    const onlineReferences = {
      ids: tokens,
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
