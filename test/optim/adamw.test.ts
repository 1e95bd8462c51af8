import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { OptimizerConfig } from '../../src/config/schema.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { AdamW } from '../../src/optim/adamw.ts';
import { accumulateGradients, clipAndUpdate, disposeGradients, type Gradients } from '../../src/optim/update.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { ENGINES } from '../engines.ts';

const config: OptimizerConfig = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 1 };
const SHAPES = { weight: [3, 5], norm: [7] };

/** AdamW in float64, straight from the paper (Loshchilov & Hutter 2019, algorithm 2). */
class ReferenceAdamW {
  private readonly m = new Map<string, number[]>();
  private readonly v = new Map<string, number[]>();
  private t = 0;

  step(parameters: Map<string, number[]>, gradients: Map<string, number[]>, learningRate: number): void {
    this.t++;
    for (const [name, p] of parameters) {
      const m = this.m.get(name) ?? p.map(() => 0);
      const v = this.v.get(name) ?? p.map(() => 0);
      const decay = name === 'norm' ? 0 : config.weightDecay;
      for (const [i, g] of gradients.get(name)!.entries()) {
        m[i] = config.beta1 * m[i]! + (1 - config.beta1) * g;
        v[i] = config.beta2 * v[i]! + (1 - config.beta2) * g * g;
        const mHat = m[i]! / (1 - config.beta1 ** this.t);
        const vHat = v[i]! / (1 - config.beta2 ** this.t);
        p[i] = p[i]! - learningRate * (mHat / (Math.sqrt(vHat) + config.epsilon) + decay * p[i]!);
      }
      this.m.set(name, m);
      this.v.set(name, v);
    }
  }
}

const sizeOf = (shape: number[]) => shape.reduce((a, b) => a * b, 1);
const normals = (number: number, shape: number[]) => randomNormals(11, PURPOSE.test, number, sizeOf(shape));

function makeParameters(): Map<string, tf.Variable> {
  const entries = Object.entries(SHAPES).map(([name, shape], i) => {
    const initial = tf.tensor(normals(i, shape), shape);
    const variable = tf.variable(initial);
    initial.dispose();
    return [name, variable] as const;
  });
  return new Map(entries);
}

function makeGradients(step: number): Gradients {
  return new Map(
    Object.entries(SHAPES).map(([name, shape], i) => [name, tf.tensor(normals(10 * step + i, shape), shape)]),
  );
}

const read = (tensors: ReadonlyMap<string, tf.Tensor>) =>
  new Map([...tensors].map(([name, tensor]) => [name, [...tensor.dataSync<'float32'>()]]));

const norm = (gradients: Gradients) =>
  Math.sqrt([...read(gradients).values()].flat().reduce((sum, g) => sum + g * g, 0));

describe.each(ENGINES)('AdamW on %s', (engine) => {
  let parameters: Map<string, tf.Variable>;
  let optimizer: AdamW;
  let tensorsBefore = 0;
  beforeAll(async () => {
    await openEngine(engine, 0, 'float32');
  });
  beforeEach(() => {
    tensorsBefore = tf.memory().numTensors;
    parameters = makeParameters();
    optimizer = new AdamW(parameters, config);
  });
  afterEach(() => {
    optimizer.dispose();
    tf.dispose([...parameters.values()]);
    expect(tf.memory().numTensors).toBe(tensorsBefore);
  });

  function step(number: number, learningRate = 0.01): void {
    const gradients = makeGradients(number);
    optimizer.step(gradients, learningRate);
    disposeGradients(gradients);
  }

  function expectClose(actual: Map<string, number[]>, expected: Map<string, number[]>): void {
    for (const [name, values] of expected) {
      for (const [i, value] of values.entries()) expect(actual.get(name)![i]).toBeCloseTo(value, 5);
    }
  }

  it('follows the definition; norms do not decay', () => {
    const expected = read(parameters);
    const reference = new ReferenceAdamW();
    for (let number = 1; number <= 5; number++) {
      const gradients = makeGradients(number);
      reference.step(expected, read(gradients), 0.01 * number);
      optimizer.step(gradients, 0.01 * number);
      disposeGradients(gradients);
    }
    expect(optimizer.stepCount).toBe(5);
    expectClose(read(parameters), expected);
  });

  it('continues from a saved state with the same bits', async () => {
    for (const number of [1, 2]) step(number);
    const state = await optimizer.state();
    const kept = [...parameters].map(([name, variable]) => [name, variable.clone()] as const);
    step(3);
    const expected = read(parameters);

    const resumed = new AdamW(parameters, config);
    for (const [name, values] of kept) parameters.get(name)!.assign(values as tf.Tensor);
    tf.dispose(kept.map(([, values]) => values));
    resumed.load(state);
    optimizer.dispose();
    optimizer = resumed;
    expect(optimizer.stepCount).toBe(2);
    step(3);
    expect(read(parameters)).toEqual(expected);
  });

  it('refuses a state of other parameters and stays as it was', async () => {
    step(1);
    const before = await optimizer.state();
    const bad = new Map(before);
    bad.delete('m.norm');
    bad.set('v.weight', { shape: [2, 2], data: new Float32Array(4) });
    bad.set('m.stranger', { shape: [1], data: new Float32Array(1) });
    expect(() => optimizer.load(bad)).toThrow(
      /m\.norm is missing; v\.weight has shape \[2, 2\], expected \[3, 5\]; m\.stranger/,
    );
    expect(await optimizer.state()).toEqual(before);
  });

  describe('clipAndUpdate', () => {
    it('averages over the tokens and reports the norm before clipping', async () => {
      const gradients = makeGradients(1);
      const expected = read(parameters);
      const averaged = new Map([...read(gradients)].map(([name, values]) => [name, values.map((g) => g / 40)]));
      new ReferenceAdamW().step(expected, averaged, 0.01);
      const result = await clipAndUpdate(optimizer, gradients, { learningRate: 0.01, clipNorm: 1, tokens: 40 });
      expect(result.updated).toBe(true);
      expect(result.gradientNorm).toBeCloseTo(norm(gradients) / 40, 6);
      expectClose(read(parameters), expected);
      // The first update hardly depends on the length of the gradient; the moment does.
      const moments = [...averaged].map(([name, values]) => [name, values.map((g) => (1 - config.beta1) * g)] as const);
      expectClose(read(optimizer.m), new Map(moments));
      disposeGradients(gradients);
    });

    it('scales a gradient above the limit down to it', async () => {
      const gradients = makeGradients(1);
      const length = norm(gradients);
      await clipAndUpdate(optimizer, gradients, { learningRate: 0.01, clipNorm: 0.5, tokens: 1 });
      // After one step m is (1 − beta1) times the gradient that was applied.
      const applied =
        Math.sqrt([...read(optimizer.m).values()].flat().reduce((sum, m) => sum + m * m, 0)) / (1 - config.beta1);
      expect(length).toBeGreaterThan(0.5);
      expect(applied).toBeCloseTo(0.5, 5);
      disposeGradients(gradients);
    });

    it.each([Number.NaN, Number.POSITIVE_INFINITY])('changes nothing when a gradient holds %d', async (poison) => {
      const gradients = makeGradients(1);
      gradients.get('norm')!.dispose();
      gradients.set('norm', tf.tensor1d([0, 0, poison, 0, 0, 0, 0]));
      const before = [read(parameters), await optimizer.state()];
      const result = await clipAndUpdate(optimizer, gradients, { learningRate: 0.01, clipNorm: 1, tokens: 4 });
      expect(result.updated).toBe(false);
      expect(Number.isFinite(result.gradientNorm)).toBe(false);
      expect([read(parameters), await optimizer.state()]).toEqual(before);
      disposeGradients(gradients);
    });
  });

  it('accumulates gradients over micro-batches and frees the parts', () => {
    const before = tf.memory().numTensors;
    let total: Gradients | undefined;
    for (const number of [1, 2, 3]) total = accumulateGradients(total, makeGradients(number));
    expect(tf.memory().numTensors).toBe(before + 2);
    const parts = [1, 2, 3].map((number) => normals(10 * number, SHAPES.weight));
    for (const [i, value] of read(total!).get('weight')!.entries()) {
      expect(value).toBeCloseTo(
        parts.reduce((sum, part) => sum + part[i]!, 0),
        5,
      );
    }
    disposeGradients(total);
  });
});
