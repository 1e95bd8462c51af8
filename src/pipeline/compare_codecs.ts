/** What codecs would cost a run: bytes, reconstruction error and validation loss with memories (paper §7.1). Writes nothing. */

import type { RunConfig } from '../config/schema.ts';
import type { Batch } from '../data/batches.ts';
import { dataPaths } from '../data/paths.ts';
import { continualSources } from '../data/source_groups.ts';
import { UserError } from '../errors.ts';
import type { Session } from '../infer/session.ts';
import type { Bank } from '../memory/bank.ts';
import {
  CodecSample,
  candidateCodecs,
  chooseCodec,
  codecError,
  sampledMemories,
  trainCodecs,
} from '../memory/codec.ts';
import { rowLength } from '../memory/layout.ts';
import { disposeMemories, memoryTensors, readingPositions, withPrefix, withPrefixIgnored } from '../memory/reading.ts';
import { chunkMemories, cutChunks } from '../memory/retrieve.ts';
import { type RowFormat, rowFormat } from '../memory/row_format.ts';
import { type StoredMemories, stepMemories } from '../memory/step_memories.ts';
import { PURPOSE, permute } from '../random.ts';
import type { MicroBatch } from '../train/stage.ts';
import { openText, TextBatches, timed } from '../train/text_batches.ts';
import { meanLoss } from '../train/validation.ts';
import { openSession } from './session.ts';

export interface CompareOptions {
  /** Faiss codec strings; by default some that suit the head dimension. */
  codecs?: readonly string[];
  say?: (message: string) => void;
}

/** One way of storing the memories of a bank, measured. */
export interface CodecTrial {
  /** A codec string, or the type of the numbers that the bank stores. */
  codec: string;
  /** Bytes of one memory. */
  bytes: number;
  /** |x − x̂|² / |x|² over keys, and values, of memories that the codec was not trained on; 0 without a codec. */
  keyError: number;
  valueError: number;
  /** Time that coding takes for a memory, among others. */
  encodeMilliseconds: number;
  decodeMilliseconds: number;
  /** Validation loss in nats a token with the memories as they come back; left out without validation text. */
  loss?: number;
  /** Why the codec could not be trained; nothing is measured then. */
  problem?: string;
}

export interface CodecComparison {
  /** Bytes of a memory as float32 numbers, and as bfloat16. */
  float32Bytes: number;
  bfloat16Bytes: number;
  /** As the bank stores them first. */
  trials: CodecTrial[];
  lossWithoutMemory?: number;
}

/** Memories whose coding is timed. */
const TIMED = 64;
const NO_TIME = { encodeMilliseconds: 0, decodeMilliseconds: 0 };
const READ_AT_ONCE = 64;

/**
 * Trains codecs on memories of the run's bank and measures what comes back, with the newest checkpoint.
 * @throws UserError artefact_missing without checkpoint or bank, input_empty for an empty bank, input_invalid for one that
 * is stored as codes, usage_invalid or config_invalid for codecs that cannot be used
 */
export async function compareCodecs(config: RunConfig, options: CompareOptions = {}): Promise<CodecComparison> {
  const { headDim } = config.model;
  const wanted = options.codecs ?? candidateCodecs(headDim);
  const codecs = wanted.map((codec) => chooseCodec(codec, headDim, '--codec') ?? codec);
  const session = await openSession(config);
  try {
    return await compare(session, codecs, options.say ?? (() => {}));
  } finally {
    await session.close();
  }
}

async function compare(
  session: Session,
  codecs: readonly string[],
  say: (message: string) => void,
): Promise<CodecComparison> {
  const { bank, config } = session;
  const { layout, storage } = bank.identity;
  if (bank.size === 0) throw new UserError('input_empty', { where: bank.folder, what: 'the bank holds no memory' });
  if (bank.identity.codecs !== undefined) {
    const action = 'compile a bank without memory.codec, in a run of another name, to compare codecs with it';
    throw new UserError('input_invalid', { where: bank.folder, what: 'its memories are codes already', action });
  }
  const validation = await Validation.open(session);
  const plain = { codec: storage, bytes: bank.format.rowBytes, keyError: 0, valueError: 0, ...NO_TIME };
  const trials: CodecTrial[] = [{ ...plain, loss: await validation?.loss(bank) }];
  const sample = await sampleOf(bank, config.seed);
  for (const codec of codecs) {
    say(`${codec}: training`);
    trials.push(await measure(codec, bank, sample, validation));
  }
  const float32Bytes = 4 * rowLength(layout);
  const lossWithoutMemory = await validation?.lossWithoutMemory();
  return { float32Bytes, bfloat16Bytes: float32Bytes / 2, trials, lossWithoutMemory };
}

/** Keys and values of random memories of a bank. */
async function sampleOf(bank: Bank, seed: number): Promise<CodecSample> {
  const { layout } = bank.identity;
  const ids = bank.ids();
  const sample = new CodecSample(layout, seed);
  const count = Math.min(ids.length, sampledMemories(layout));
  for (let from = 0; from < count; from += READ_AT_ONCE) {
    const numbers = Array.from({ length: Math.min(READ_AT_ONCE, count - from) }, (_, i) => from + i);
    const drawn = numbers.map((number) => ids[permute(seed, PURPOSE.codecSample, 1, number, ids.length)]!);
    const keptLengths = drawn.map((id) => bank.keptLength(id));
    sample.add(numbers, await bank.readRows(drawn), keptLengths);
  }
  return sample;
}

async function measure(
  codec: string,
  bank: Bank,
  sample: CodecSample,
  validation: Validation | undefined,
): Promise<CodecTrial> {
  const { layout } = bank.identity;
  const codecs = await trainCodecs(codec, layout.headDim, sample.train).catch((error: Error) => error.message.trim());
  if (typeof codecs === 'string') {
    return { codec, bytes: 0, keyError: 0, valueError: 0, ...NO_TIME, problem: codecs };
  }
  const format = rowFormat({ layout, storage: 'float32', codecs });
  const { keys, values } = await codecError(codecs, layout.headDim, sample.test);
  return {
    codec,
    bytes: format.rowBytes,
    keyError: keys,
    valueError: values,
    ...(await times(format, bank)),
    loss: await validation?.loss(throughFormat(bank, format)),
  };
}

async function times(
  format: RowFormat,
  bank: Bank,
): Promise<Pick<CodecTrial, 'encodeMilliseconds' | 'decodeMilliseconds'>> {
  const ids = bank.ids().slice(0, TIMED);
  const rows = await bank.readRows(ids);
  const encoding = await timed(() => format.encode(rows));
  const decoding = await timed(() => format.read(encoding.value));
  return { encodeMilliseconds: encoding.ms / ids.length, decodeMilliseconds: decoding.ms / ids.length };
}

/** The bank as if it stored its memories in another format. */
function throughFormat(bank: Bank, format: RowFormat): StoredMemories {
  return {
    format,
    keptLength: (id) => bank.keptLength(id),
    readStored: async (ids) => await format.encode(await bank.readRows(ids)),
  };
}

/** The validation text of the last stage, with the memories that its chunks retrieve. */
class Validation {
  readonly #session: Session;
  readonly #text: TextBatches;
  /** By batch: they do not depend on how memories are stored. */
  readonly #retrieved = new Map<number, string[][][]>();

  private constructor(session: Session, text: TextBatches) {
    this.#session = session;
    this.#text = text;
  }

  /** Undefined when the held-out text does not fill a batch. */
  static async open(session: Session): Promise<Validation | undefined> {
    const { config, folder, tokenizer } = session;
    const { tokens, continualTokens } = dataPaths(folder.data);
    const path = config.data.continual.sources.length > 0 ? continualTokens : tokens;
    const text = await openText(path, continualSources(config.data), { tokenizerHash: tokenizer.hash });
    const batches = new TextBatches(config, config.continual, text);
    return batches.validationCount === 0 ? undefined : new Validation(session, batches);
  }

  async loss(memories: StoredMemories): Promise<number> {
    const reading = async (i: number): Promise<MicroBatch> => {
      const batch = await this.#text.validating(i);
      return await this.#reading(batch, await this.#slots(i, batch), memories);
    };
    return await meanLoss(this.#session.model, this.#text.validationCount, reading);
  }

  async lossWithoutMemory(): Promise<number> {
    const plain = async (i: number): Promise<MicroBatch> => this.#text.plain(await this.#text.validating(i), 0);
    return await meanLoss(this.#session.model, this.#text.validationCount, plain);
  }

  async #slots(i: number, { ids }: Batch): Promise<string[][][]> {
    const { config, retriever } = this.#session;
    const overlapThreshold = config.retrieval.evaluationOverlapThreshold;
    const sequences = cutChunks(ids, this.#text.sequenceLength);
    const found =
      this.#retrieved.get(i) ??
      (await chunkMemories(sequences, { ...config.retrieval, ...config.memory, overlapThreshold }, retriever)).map(
        ({ chunks }) => chunks,
      );
    this.#retrieved.set(i, found);
    return found;
  }

  /** The batch behind the prefix, with its memories, as stage two reads them. */
  async #reading({ ids, targets }: Batch, slots: string[][][], stored: StoredMemories): Promise<MicroBatch> {
    const { config, tokenizer, bank } = this.#session;
    const { sequenceLength } = this.#text;
    const prefix = tokenizer.referencePrefix;
    const step = await stepMemories(stored, slots, { memoriesPerChunk: config.memory.memoriesPerChunk });
    const memories = memoryTensors(step, bank.identity, config.memory, slots.length, prefix.length);
    const prefixed = withPrefix(ids, prefix, sequenceLength);
    const input = {
      ids: prefixed,
      firstVisible: this.#text.firstVisible(prefixed, prefix.length + sequenceLength),
      targets: withPrefixIgnored(targets, prefix.length, sequenceLength),
      positions: readingPositions(prefix.length, sequenceLength, config.memory.referenceTokens),
      recompute: false,
      memories,
    };
    return { input, dataMs: 0, retrievalMs: 0, dispose: () => disposeMemories(memories) };
  }
}
