import { describe, expect, it } from 'vitest';
import { crossFieldProblems } from '../../src/config/check.ts';
import { runSchema } from '../../src/config/schema.ts';

function blamed(overrides: object): string[] {
  return crossFieldProblems(runSchema.parse({ name: 'a', ...overrides })).map(({ paths }) => paths[0] ?? '');
}

describe('cross-field checks', () => {
  it('accept the defaults', () => expect(blamed({})).toEqual([]));

  it.each([
    ['precision', { precision: 'bfloat16', engine: 'native' }],
    ['model.kvHeads', { model: { numHeads: 8, kvHeads: 3 } }],
    ['model.memoryLayers', { model: { numLayers: 2, memoryLayers: 3 } }],
    ['model.memoryLayers', { model: { memoryLayers: 0 } }],
    ['model.vocabSize', { model: { vocabSize: 8191 } }],
    ['memory.keptTokens', { memory: { keptTokens: 129 } }],
    ['memory.chunkLength', { memory: { chunkLength: 65 }, data: { sequenceLength: 64 } }],
    ['retrieval.query', { memory: { chunkLength: 64 }, data: { sequenceLength: 64 } }],
    [
      'retrieval.encoder',
      { retrieval: { encoder: 'keys-multi' }, model: { memoryLayers: 0 }, continual: { steps: 0 } },
    ],
    ['memory.contextTokens', { memory: { contextTokens: 64 }, continual: { memories: 'online' } }],
    ['retrieval.encoder', { retrieval: { encoder: 'keys' }, model: { memoryLayers: 0 }, continual: { steps: 0 } }],
    ['retrieval.encoder', { retrieval: { encoder: 'onnx' } }],
    ['retrieval.onnx', { retrieval: { onnx: { model: 'm.onnx', tokenizer: 't.json' } } }],
    ['optimizer.beta1', { optimizer: { beta1: 1 } }],
    ['optimizer.beta2', { optimizer: { beta2: 1 } }],
    ['data.validationShare', { data: { validationShare: 1 } }],
    [
      'data.sources.1.weight',
      {
        data: {
          sources: [
            { path: 'a', weight: 1 },
            { path: 'a', weight: 2 },
          ],
        },
      },
    ],
    ['warmup.learningRate.final', { warmup: { learningRate: { final: 1.5 } } }],
    ['warmup.learningRate.warmupSteps', { warmup: { steps: 99 } }],
    ['continual.learningRate.warmupSteps', { continual: { steps: 99 } }],
    ['continual.learningRate.decayShare', { continual: { learningRate: { decayShare: 0.95 } } }],
    ['continual.growth.share', { continual: { growth: { share: 0 } } }],
    ['continual.driftSample', { continual: { refreshBelow: 0.9, driftSample: 0 } }],
  ])('refuse %s', (path, overrides) => expect(blamed(overrides)).toEqual([path]));

  it('refuse validation without documents for it, in both stages', () => {
    const none = { data: { validationShare: 0 } };
    expect(blamed(none)).toEqual(['warmup.validateEvery', 'continual.validateEvery']);
    expect(blamed({ ...none, warmup: { validateEvery: 0 }, continual: { steps: 0 } })).toEqual([]);
  });

  it.each([
    ['bfloat16 where cuda may be chosen', { precision: 'bfloat16' }],
    ['as many memory layers as layers', { model: { numLayers: 2, memoryLayers: 2 } }],
    ['as many kept tokens as a reference has', { memory: { keptTokens: 128 } }],
    ['an encoder with its files', { retrieval: { encoder: 'onnx', onnx: { model: 'm.onnx', tokenizer: 't.json' } } }],
    ['one chunk a sequence that is its own query', { retrieval: { query: 'own' }, data: { sequenceLength: 64 } }],
    ['a stage that is left out', { warmup: { steps: 0 } }],
    ['no memory layers for plain training', { model: { memoryLayers: 0 }, continual: { plainShare: 1 } }],
    ['any vocabulary with a ready tokenizer', { model: { vocabSize: 500 }, data: { tokenizer: { path: 't.json' } } }],
    ['a whole bank that does not grow', { continual: { growth: { initialShare: 1, share: 0 } } }],
    ['a decay that begins where the rise ends', { warmup: { steps: 200, learningRate: { decayShare: 0.5 } } }],
  ])('accept %s', (_, overrides) => expect(blamed(overrides)).toEqual([]));

  it('report all broken rules together', () => {
    const problems = blamed({ model: { kvHeads: 3, memoryLayers: 9 }, memory: { keptTokens: 200 } });
    expect(problems).toEqual(['model.kvHeads', 'model.memoryLayers', 'memory.keptTokens']);
  });
});
