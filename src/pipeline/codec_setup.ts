/** The codecs of a new bank, trained on memories that the model writes before there is a bank. */

import type { RunConfig } from '../config/schema.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import { UserError } from '../errors.ts';
import {
  type CodecError,
  CodecSample,
  chooseCodec,
  codecError,
  sampledMemories,
  trainCodecs,
} from '../memory/codec.ts';
import { memoryLayout, rowLength, type StoredCodecs } from '../memory/layout.ts';
import { rowFormat } from '../memory/row_format.ts';
import { type ReferenceText, writeMemories } from '../memory/write.ts';
import type { Model } from '../model/model.ts';
import { say } from './workspace.ts';

/**
 * Trains what `memory.codec` asks for. The same weights, references and seed give the same bytes, also when a call before
 * was killed.
 * @param sample the first so many references of a random order, or all when there are fewer
 * @returns undefined when no codec is wanted, or when there are too few memories to train it, which is said
 * @throws UserError config_invalid when Faiss is not there or does not take the codec
 */
export async function makeCodecs(
  config: RunConfig,
  model: Model,
  tokenizer: Tokenizer,
  sample: (many: number) => AsyncIterable<ReferenceText>,
): Promise<StoredCodecs | undefined> {
  const factory = chooseCodec(config.memory.codec, config.model.headDim);
  if (factory === undefined) return undefined;
  const layout = memoryLayout(config.model, config.memory);
  const vectors = new CodecSample(layout, config.seed);
  const numbers = new Map<string, number>();
  const references = numbered(sample(sampledMemories(layout)), numbers);
  const options = { prefix: tokenizer.referencePrefix, memory: config.memory };
  for await (const { records, rows } of writeMemories(model, references, options)) {
    const places = records.map(({ id }) => numbers.get(id) ?? 0);
    const keptLengths = records.map(({ keptLength }) => keptLength);
    vectors.add(places, rows, keptLengths);
  }
  say(`compile: training codec ${factory}`);
  const codecs = await trained(factory, config, vectors);
  if (codecs === undefined) return undefined;
  const { rowBytes } = rowFormat({ layout, storage: 'float32', codecs });
  const lost = await codecError(codecs, layout.headDim, vectors.test);
  say(`compile: codec ${factory}: ${rowBytes} bytes a memory (float32: ${4 * rowLength(layout)})${inWords(lost)}`);
  return codecs;
}

async function trained(factory: string, config: RunConfig, vectors: CodecSample): Promise<StoredCodecs | undefined> {
  const { headDim } = config.model;
  const { train } = vectors;
  try {
    return await trainCodecs(factory, headDim, train);
  } catch (cause) {
    const why = (cause as Error).message.trim();
    const what = `${factory} cannot be trained on ${train.keys.length / headDim} keys and as many values: ${why}`;
    if (vectors.isFull) {
      const action = 'choose a codec with fewer centroids, or auto';
      throw new UserError('config_invalid', { where: 'memory.codec', what, action, cause });
    }
    say(`compile: ${what}. There are too few references; memories are stored as ${config.memory.storage}`);
    return undefined;
  }
}

function inWords({ keys, values }: CodecError): string {
  if (Number.isNaN(keys + values)) return '';
  const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;
  return `; squared error ${percent(keys)} of keys, ${percent(values)} of values, on memories it was not trained on`;
}

/** The references, whose places are noted: they are written in another order. */
async function* numbered(
  references: AsyncIterable<ReferenceText>,
  numbers: Map<string, number>,
): AsyncGenerator<ReferenceText> {
  for await (const reference of references) {
    numbers.set(reference.id, numbers.size);
    yield reference;
  }
}
