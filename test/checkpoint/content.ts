/** A small checkpoint, different for each `value`. */

import type { CheckpointInput } from '../../src/checkpoint/checkpoint.ts';
import type { NamedArray } from '../../src/checkpoint/safetensors.ts';
import { modelSchema } from '../../src/config/schema.ts';

export function content(
  value: number,
  size = 6,
): { parameters: Map<string, NamedArray>; optimizer: Map<string, NamedArray>; state: CheckpointInput } {
  const filled = (): NamedArray => ({ shape: [2, size / 2], data: new Float32Array(size).fill(value) });
  return {
    parameters: new Map([
      ['model.embed_tokens.weight', filled()],
      ['model.norm.weight', filled()],
    ]),
    optimizer: new Map([
      ['m.model.norm.weight', filled()],
      ['v.model.norm.weight', filled()],
    ]),
    state: {
      stage: 'warmup',
      tokensSeen: value,
      modelConfig: { ...modelSchema.parse({}), vocabSize: 300 },
      tokenizerHash: 'tokenizer',
      datasetHash: 'dataset',
      metricsRows: { warmup: value },
      bestValidation: { step: value, loss: 0.1 + 0.2 },
      config: { name: 'tiny', '10': [1, { deep: null }], '2': 1e-8 },
    },
  };
}
