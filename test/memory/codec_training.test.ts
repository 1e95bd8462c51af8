import { afterEach, beforeEach, expect, it } from 'vitest';
import { writeCodecSample } from '../../src/memory/codec_training.ts';
import { growthPlan } from '../../src/memory/growth.ts';
import { memoryLayout, rowLength } from '../../src/memory/layout.ts';
import { writeTexts } from '../../src/memory/write.ts';
import { type RandomRun, randomRun } from '../infer/random_run.ts';

let run: RandomRun;
beforeEach(async () => {
  run = await randomRun();
});
afterEach(() => run.model.dispose());

const plan = () => growthPlan(run.config.continual.growth, run.references.size, run.config.seed);

const options = () => {
  const { memory, model, seed } = run.config;
  const layout = memoryLayout(model, memory);
  return { prefix: run.tokenizer.referencePrefix, memory, layout, plan: plan(), seed };
};

const vectorsOf = (numbers: Float32Array, headDim: number): string[] =>
  Array.from({ length: numbers.length / headDim }, (_, i) => String(numbers.subarray(i * headDim, (i + 1) * headDim)));

it('holds exactly the keys and values that were written of real tokens, one reference of sixteen apart', async () => {
  const { layout, prefix, memory } = options();
  const { memoryLayers, kvHeads, keptTokens, headDim } = layout;
  const expected = { train: [] as string[], test: [] as string[] };
  for (let place = 0; place < run.references.size; place++) {
    const { tokens } = await run.references.getInContext(plan().referenceAt(place), 0);
    const { rows, keptLengths } = await writeTexts(run.model, [tokens], { prefix, memory });
    expect(rows.length).toBe(rowLength(layout));
    const vectors = vectorsOf(rows, headDim);
    for (let layer = 0; layer < memoryLayers; layer++) {
      for (let head = 0; head < kvHeads; head++) {
        const first = (2 * layer * kvHeads + head) * keptTokens;
        expected[place % 16 === 15 ? 'test' : 'train'].push(...vectors.slice(first, first + keptLengths[0]!));
      }
    }
  }
  const sample = await writeCodecSample(run.model, run.references, options());
  const close = (found: string[], wanted: string[]): void => {
    const rounded = (all: string[]) =>
      all
        .map((text) => text.split(',').map((x) => Math.round(Number(x) * 1e3) / 1e3 + 0))
        .map(String)
        .sort();
    expect(rounded(found)).toEqual(rounded(wanted));
  };
  close(vectorsOf(sample.train.keys, headDim), expected.train);
  close(vectorsOf(sample.test.keys, headDim), expected.test);
  expect(sample.train.values.length).toBe(sample.train.keys.length);
  const again = await writeCodecSample(run.model, run.references, options());
  expect(again.train).toEqual(sample.train);
});

it('stops when it is asked to', async () => {
  const beforeEach = (): void => {
    throw new Error('stopped');
  };
  await expect(writeCodecSample(run.model, run.references, { ...options(), beforeEach })).rejects.toThrow('stopped');
});
