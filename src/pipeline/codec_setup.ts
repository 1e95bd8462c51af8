/** The codecs of a new bank. */

import type { RunConfig } from '../config/schema.ts';
import type { ReferenceDataset } from '../data/references.ts';
import { UserError } from '../errors.ts';
import { type CodecError, type CodecSample, chooseCodec, codecError, trainCodecs } from '../memory/codec.ts';
import { type CodecSampleOptions, writeCodecSample } from '../memory/codec_training.ts';
import { memoryLayout, rowLength, type StoredCodecs } from '../memory/layout.ts';
import { rowFormat } from '../memory/row_format.ts';
import type { Model } from '../model/model.ts';
import { say } from './workspace.ts';

/**
 * Trains what `memory.codec` asks for. The same weights, references and seed give the same bytes, also when a call before
 * was killed.
 * @returns undefined when no codec is wanted, or when there are too few memories to train it, which is said
 * @throws UserError config_invalid when Faiss is not there or does not take the codec
 */
export async function makeCodecs(
  config: RunConfig,
  model: Model,
  references: ReferenceDataset,
  options: Pick<CodecSampleOptions, 'prefix' | 'plan' | 'beforeEach'>,
): Promise<StoredCodecs | undefined> {
  const factory = chooseCodec(config.memory.codec, config.model.headDim);
  if (factory === undefined) return undefined;
  say(`compile: training codec ${factory}`);
  const { memory, seed } = config;
  const layout = memoryLayout(config.model, memory);
  const sample = await writeCodecSample(model, references, { ...options, memory, layout, seed });
  const codecs = await trained(factory, config, sample);
  if (codecs === undefined) return undefined;
  const { rowBytes } = rowFormat({ layout, storage: 'float32', codecs });
  const lost = await codecError(codecs, layout.headDim, sample.test);
  say(`compile: codec ${factory}: ${rowBytes} bytes a memory (float32: ${4 * rowLength(layout)})${inWords(lost)}`);
  return codecs;
}

async function trained(factory: string, config: RunConfig, sample: CodecSample): Promise<StoredCodecs | undefined> {
  const { headDim } = config.model;
  const { train } = sample;
  try {
    return await trainCodecs(factory, headDim, train);
  } catch (cause) {
    const why = (cause as Error).message.trim();
    const what = `${factory} cannot be trained on ${train.keys.length / headDim} keys and as many values: ${why}`;
    if (sample.isFull) {
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
