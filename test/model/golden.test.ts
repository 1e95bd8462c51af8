/** The model against PyTorch in float64, on each portable backend. */

import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { type EncodedReferences, encodeReferences, keptPlaces } from '../../src/model/encode.ts';
import { forward, type LayerMemories, logits, loss } from '../../src/model/forward.ts';
import type { Model } from '../../src/model/model.ts';
import { type LossAndGradients, lossAndGradients } from '../../src/model/training.ts';
import { AdamW, type StateArray } from '../../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../../src/optim/update.ts';
import { ENGINES } from '../engines.ts';
import {
  type GoldenArray,
  type GoldenCase,
  type GoldenParameter,
  goldenMemories,
  goldenModel,
  goldenReading,
  goldenReferences,
  goldenText,
  readGolden,
  relativeError,
} from './golden.ts';

const VALUE_TOLERANCE = 1e-5;
const GRADIENT_TOLERANCE = 1e-4;

function expectValues(actual: tf.Tensor, expected: GoldenArray): void {
  expect(actual.size).toBe(expected.data.length);
  expect(relativeError(actual.dataSync(), expected.data)).toBeLessThan(VALUE_TOLERANCE);
}

function expectGradients({ gradients }: LossAndGradients, { expected }: GoldenCase): void {
  expect([...gradients.keys()].sort()).toEqual(Object.keys(expected.gradients).sort());
  for (const [name, gradient] of gradients) {
    const golden = expected.gradients[name]!;
    expect(gradient.shape, name).toEqual(golden.shape);
    // The oracle's loss is a mean, ours a sum.
    const error = relativeError(gradient.dataSync(), golden.data, expected.validTargets);
    expect(error, name).toBeLessThan(GRADIENT_TOLERANCE);
  }
}

function expectLoss({ lossSum, count }: LossAndGradients, { expected }: GoldenCase): void {
  expect(count).toBe(expected.validTargets);
  expect(relativeError([lossSum], [expected.lossSum])).toBeLessThan(VALUE_TOLERANCE);
}

/** Shares averaged over memory layers, heads and the tokens that can read something. */
function expectedMemoryShare({ expected }: GoldenCase): number {
  let sum = 0;
  let readers = 0;
  for (const { data, shape } of expected.shares) {
    const slots = shape[3]!;
    for (let row = 0; row < data.length; row += slots) {
      const mass = data.slice(row, row + slots).reduce((a, b) => a + b, 0);
      sum += mass;
      if (mass > 0) readers++;
    }
  }
  return sum / readers;
}

function expectForward(model: Model, golden: GoldenCase, memories?: LayerMemories): void {
  tf.tidy(() => {
    const text = goldenText(golden);
    const { hidden, shares } = forward(model, { ...text, memories });
    expectValues(hidden, golden.expected.hidden);
    expectValues(logits(model, hidden), golden.expected.logits);
    expectValues(loss(model, hidden, text.targets).tokenLosses, golden.expected.tokenLosses);
    expect(shares?.length).toBe(memories && model.shape.memoryLayers);
    for (const [layer, share] of (shares ?? []).entries()) expectValues(share, golden.expected.shares[layer]!);
  });
}

function summarise(values: Float32Array): GoldenParameter {
  const sum = values.reduce((total, value) => total + value, 0);
  const sumOfSquares = values.reduce((total, value) => total + value * value, 0);
  return { sum, sumOfSquares, first: [...values.subarray(0, 8)] };
}

function expectSummaries(
  actual: ReadonlyMap<string, Float32Array>,
  expected: Record<string, GoldenParameter>,
  tolerance: number,
): void {
  for (const [name, golden] of Object.entries(expected)) {
    const { sum, sumOfSquares, first } = summarise(actual.get(name)!);
    const scale = Math.sqrt(golden.sumOfSquares * actual.get(name)!.length);
    expect(Math.abs(sum - golden.sum) / scale, `sum of ${name}`).toBeLessThan(tolerance);
    expect(relativeError([sumOfSquares], [golden.sumOfSquares]), `squares of ${name}`).toBeLessThan(tolerance);
    expect(relativeError(first, golden.first), `values of ${name}`).toBeLessThan(tolerance);
  }
}

function moments(state: ReadonlyMap<string, StateArray>, prefix: string): Map<string, Float32Array> {
  const own = [...state].filter(([name]) => name.startsWith(prefix));
  return new Map(own.map(([name, { data }]) => [name.slice(prefix.length), data]));
}

describe.each(ENGINES)('golden files on %s', (engine) => {
  let model: Model;

  beforeAll(async () => {
    await openEngine(engine, 0, 'float32');
  });

  /** Runs a case, by default twice: the second time no cache is left to fill, so no tensor may stay behind. */
  async function withCase(name: string, run: (golden: GoldenCase) => Promise<void>, times = 2): Promise<void> {
    const golden = readGolden(name);
    for (let time = 1; time <= times; time++) {
      const before = tf.memory().numTensors;
      model = goldenModel(golden);
      await run(golden);
      model.dispose();
      if (time > 1) expect(tf.memory().numTensors, 'tensors').toBe(before);
    }
  }

  describe.each([
    'forward_untied_h4k2',
    'forward_untied_h3k1',
    'forward_tied_h4k2',
    'forward_tied_h3k1',
    'forward_documents_h3k1',
  ])('%s', (name) => {
    it('hidden states, logits and losses', () => withCase(name, async (golden) => expectForward(model, golden)));

    it.each([false, true])('gradients, recompute %s', (recompute) =>
      withCase(name, async (golden) => {
        const result = await lossAndGradients(model, { ...goldenText(golden), recompute });
        expectLoss(result, golden);
        expectGradients(result, golden);
        expect(result.memoryShare).toBeUndefined();
        disposeGradients(result.gradients);
      }),
    );
  });

  describe.each(['bank_h4k2', 'bank_h3k1', 'bank_documents_h4k2'])('%s', (name) => {
    it('hidden states, logits, losses and shares', () =>
      withCase(name, async (golden) => {
        const memories = goldenMemories(golden, false);
        expectForward(model, golden, memories);
        tf.dispose(memories as never);
      }));

    it.each([
      { gradient: false, recompute: false },
      { gradient: false, recompute: true },
      { gradient: true, recompute: true },
    ])('gradients of the parameters, %o', ({ gradient, recompute }) =>
      withCase(name, async (golden) => {
        const memories = goldenMemories(golden, gradient);
        const result = await lossAndGradients(model, { ...goldenText(golden), memories, recompute });
        expectLoss(result, golden);
        expectGradients(result, golden);
        expect(relativeError([result.memoryShare!], [expectedMemoryShare(golden)])).toBeLessThan(VALUE_TOLERANCE);
        disposeGradients(result.gradients);
        tf.dispose(memories as never);
      }),
    );

    it.each([false, true])('gradients of the memories, recompute %s', (recompute) =>
      withCase(name, async (golden) => {
        const memories = goldenMemories(golden, true);
        const text = goldenText(golden);
        const gradients = tf.grads(() => {
          const { hidden } = forward(model, { ...text, memories, recompute });
          return loss(model, hidden, text.targets).lossSum;
        })([...memories.keys, ...memories.values]);
        const { memoryKeyGradients, memoryValueGradients, validTargets } = golden.expected;
        for (const [i, expected] of [...memoryKeyGradients, ...memoryValueGradients].entries()) {
          const error = relativeError(gradients[i]!.dataSync(), expected.data, validTargets);
          expect(error, `gradient ${i}`).toBeLessThan(GRADIENT_TOLERANCE);
        }
        tf.dispose([gradients, memories] as never);
      }),
    );
  });

  describe.each(['online_h4k2_softmax', 'online_h3k1_exp'])('%s', (name) => {
    it.each([false, true])('loss and gradients through text and references, recompute %s', (recompute) =>
      withCase(name, async (golden) => {
        const onlineReferences = { ...goldenReferences(golden), ...goldenReading(golden) };
        const result = await lossAndGradients(model, { ...goldenText(golden), onlineReferences, recompute });
        expectLoss(result, golden);
        expectGradients(result, golden);
        expect(relativeError([result.memoryShare!], [expectedMemoryShare(golden)])).toBeLessThan(VALUE_TOLERANCE);
        disposeGradients(result.gradients);
        onlineReferences.index.dispose();
      }),
    );
  });

  describe.each(['selection_h4k2', 'selection_h3k1'])('%s', (name) => {
    it.each(['softmax', 'exp'] as const)('kept tokens, keys and values by %s', (tokenScores) =>
      withCase(name, async (golden) => {
        const { ids, lengths, ...options } = goldenReferences(golden);
        const encoded = encodeReferences(model, ids, lengths, { ...options, tokenScores });
        const kept = await keptPlaces(encoded, options.prefixLength);
        expectSelection({ ...encoded, kept }, golden, golden.expected[tokenScores]);
        tf.dispose([encoded.keys, encoded.values, encoded.indices] as never);
      }),
    );
  });

  describe.each(['training_untied', 'training_tied'])('%s', (name) => {
    it('ten clipped AdamW steps', () => withCase(name, trainTenSteps, 1));
  });

  async function trainTenSteps(golden: GoldenCase): Promise<void> {
    const { inputs, expected } = golden;
    const { clipNorm } = inputs.optimizer;
    const optimizer = new AdamW(model.parameters, inputs.optimizer);
    const text = goldenText(golden);
    for (const [i, learningRate] of inputs.learningRates.entries()) {
      const { lossSum, count, gradients } = await lossAndGradients(model, text);
      expect(relativeError([lossSum / count], [expected.losses[i]!])).toBeLessThan(VALUE_TOLERANCE);
      const update = await clipAndUpdate(optimizer, gradients, { learningRate, clipNorm, tokens: count });
      expect(update.updated).toBe(true);
      expect(relativeError([update.gradientNorm], [expected.gradientNorms[i]!])).toBeLessThan(GRADIENT_TOLERANCE);
      disposeGradients(gradients);
      if (i === 0) expectSummaries(await model.weights(), expected.parametersAfter1, GRADIENT_TOLERANCE);
    }
    expectSummaries(await model.weights(), expected.parametersAfter10, GRADIENT_TOLERANCE);
    const state = await optimizer.state();
    expectSummaries(moments(state, 'm.'), expected.firstMomentsAfter10, GRADIENT_TOLERANCE);
    expectSummaries(moments(state, 'v.'), expected.secondMomentsAfter10, GRADIENT_TOLERANCE);
    optimizer.dispose();
    const final = await lossAndGradients(model, text);
    expect(relativeError([final.lossSum / final.count], [expected.finalLoss])).toBeLessThan(VALUE_TOLERANCE);
    disposeGradients(final.gradients);
  }
});

function expectSelection(
  { kept, keptLengths, keys, values }: EncodedReferences & { kept: Int32Array },
  { model, expected }: GoldenCase,
  golden: GoldenCase['expected']['softmax'],
): void {
  expect([...keptLengths]).toEqual(expected.keptLengths.data);
  const [references, layers, heads, keptTokens] = golden.kept.shape as [number, number, number, number];
  for (let n = 0; n < references; n++) {
    const length = keptLengths[n]!;
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const row = ((n * layers + layer) * heads + head) * keptTokens;
        expect([...kept.subarray(row, row + length)]).toEqual(golden.kept.data.slice(row, row + length));
        // Only kept tokens are part of the result.
        const from = (n * heads + head) * keptTokens * model.headDim;
        const to = from + length * model.headDim;
        const part = (array: ArrayLike<number>) => Array.prototype.slice.call(array, from, to) as number[];
        expect(relativeError(part(keys[layer]!.dataSync()), part(golden.keys[layer]!.data))).toBeLessThan(
          VALUE_TOLERANCE,
        );
        expect(relativeError(part(values[layer]!.dataSync()), part(golden.values[layer]!.data))).toBeLessThan(
          VALUE_TOLERANCE,
        );
      }
    }
  }
}
