import { rm } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { faissAvailable } from '../../src/engine/native/faiss.ts';
import * as tf from '../../src/engine/tf.ts';
import { Bank } from '../../src/memory/bank.ts';
import { trainCodecs } from '../../src/memory/codec.ts';
import { type Drift, driftSample, measureDrift } from '../../src/memory/drift.ts';
import { writeTexts } from '../../src/memory/write.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { type RandomRun, randomRun, writeBank } from '../infer/random_run.ts';

let run: RandomRun;
let bank: Bank;
beforeEach(async () => {
  run = await randomRun();
  await writeBank(run);
  bank = await Bank.open(run.folder.bank);
});
afterEach(async () => {
  await bank.close();
  run.model.dispose();
});

const options = () => ({ prefix: run.tokenizer.referencePrefix, memory: run.config.memory });

/** Adds noise to all weights. */
function moveWeights(size: number): void {
  let number = 0;
  for (const variable of run.model.parameters.values()) {
    const noise = randomNormals(1, PURPOSE.test, number++, variable.size).map((value) => size * value);
    tf.tidy(() => variable.assign(variable.add(tf.tensor(noise, variable.shape))));
  }
}

/** The numbers of a memory by kept position: `get(layer, keyOrValue, head)` maps a position to its vector. */
function byPosition(row: Float32Array, kept: Int32Array, keptLength: number) {
  const { kvHeads, keptTokens, headDim } = bank.identity.layout;
  return (layer: number, keyOrValue: number, head: number): Map<number, number[]> =>
    new Map(
      Array.from({ length: keptLength }, (_, slot) => {
        const vector = (((layer * 2 + keyOrValue) * kvHeads + head) * keptTokens + slot) * headDim;
        return [kept[(layer * kvHeads + head) * keptTokens + slot]!, [...row.subarray(vector, vector + headDim)]];
      }),
    );
}

const dot = (a: number[], b: number[]): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const cosine = (a: number[], b: number[]): number => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The same measure, one memory, layer and head at a time. */
async function expectedDrift(ids: readonly string[]): Promise<Drift> {
  const cosines: [number[], number[]] = [[], []];
  let kept = 0;
  for (const id of ids) {
    const stored = await bank.get(id);
    const now = await writeTexts(run.model, [stored.tokens], options());
    const before = byPosition(await bank.readRows([id]), stored.kept, stored.keptLength);
    const after = byPosition(now.rows, now.kept, now.keptLengths[0]!);
    for (let layer = 0; layer < bank.identity.layout.memoryLayers; layer++) {
      for (let head = 0; head < bank.identity.layout.kvHeads; head++) {
        kept += stored.keptLength;
        for (const keyOrValue of [0, 1] as const) {
          const others = after(layer, keyOrValue, head);
          for (const [position, vector] of before(layer, keyOrValue, head)) {
            const other = others.get(position);
            if (other) cosines[keyOrValue].push(cosine(vector, other));
          }
        }
      }
    }
  }
  return { keyCosine: mean(cosines[0]), valueCosine: mean(cosines[1]), keptShare: cosines[0].length / kept };
}

describe('measureDrift', () => {
  it('finds nothing in memories that the weights have just written', async () => {
    const { keyCosine, valueCosine, keptShare } = await measureDrift(run.model, bank, bank.ids(), options());
    expect(keyCosine).toBeCloseTo(1, 5);
    expect(valueCosine).toBeCloseTo(1, 5);
    expect(keptShare).toBe(1);
  });

  it.runIf(faissAvailable().ok)('finds nothing either when the bank stores codes, which lose something', async () => {
    const { headDim } = bank.identity.layout;
    const vectors = await bank.readRows(bank.ids());
    const codecs = await trainCodecs('PQ2x4', headDim, { keys: vectors, values: vectors });
    await bank.close();
    await rm(run.folder.bank, { recursive: true });
    await writeBank(run, run.references.size, codecs);
    bank = await Bank.open(run.folder.bank);
    expect(await bank.readRows(bank.ids())).not.toEqual(vectors);
    const fresh = await measureDrift(run.model, bank, bank.ids(), options());
    expect(fresh.keyCosine).toBeCloseTo(1, 5);
    expect(fresh.valueCosine).toBeCloseTo(1, 5);
    moveWeights(0.2);
    expect((await measureDrift(run.model, bank, bank.ids(), options())).valueCosine).toBeLessThan(0.99);
  });

  it('compares keys and values of the tokens that are kept again, and counts these', async () => {
    moveWeights(0.1);
    const ids = driftSample(bank, 7, 12);
    const drift = await measureDrift(run.model, bank, ids, options());
    const expected = await expectedDrift(ids);
    expect(drift.keyCosine).toBeCloseTo(expected.keyCosine, 5);
    expect(drift.valueCosine).toBeCloseTo(expected.valueCosine, 5);
    expect(drift.keptShare).toBe(expected.keptShare);
    for (const value of Object.values(drift)) expect(value).toBeLessThan(0.999);
    expect(drift.keptShare).toBeGreaterThan(0.3);
    moveWeights(1);
    const far = await measureDrift(run.model, bank, ids, options());
    expect(far.keyCosine).toBeLessThan(drift.keyCosine);
    expect(far.valueCosine).toBeLessThan(drift.valueCosine);
  });

  it('gives the same bits each time and leaves no tensors', async () => {
    moveWeights(0.1);
    const first = await measureDrift(run.model, bank, bank.ids(), options());
    const { numTensors } = tf.memory();
    expect(await measureDrift(run.model, bank, bank.ids(), options())).toEqual(first);
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});

describe('driftSample', () => {
  it('draws different memories in the order of the bank, the same ones for the same version', async () => {
    const ids = bank.ids();
    const sample = driftSample(bank, 7, 10);
    expect(new Set(sample).size).toBe(10);
    expect(sample).toEqual(ids.filter((id) => sample.includes(id)));
    expect(driftSample(bank, 7, 10)).toEqual(sample);
    expect(driftSample(bank, 8, 10)).not.toEqual(sample);
    expect(driftSample(bank, 7, 1000)).toEqual(ids);
    expect(driftSample(bank, 7, 0)).toEqual([]);
    const writer = await Bank.openForWriting(run.folder.bank);
    await writer.delete(ids.filter((id) => !sample.includes(id)).slice(0, 1));
    const next = await Bank.open(run.folder.bank);
    expect(driftSample(next, 7, 10)).not.toEqual(sample);
    await next.close();
  });
});
