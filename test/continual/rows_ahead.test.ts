/** Rows of a micro-batch to come: one set on its way, taken by its own micro-batch, gone when nobody takes it. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Reading } from '../../src/continual/batch_reader.ts';
import { RowsAhead } from '../../src/continual/rows_ahead.ts';
import type { CudaBackend } from '../../src/engine/cuda/backend.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import type { StepMemories } from '../../src/memory/step_memories.ts';
import { CUDA_PATH, describeCuda } from '../cuda/support.ts';

function step(...words: number[]): StepMemories {
  const rows = Int32Array.from(words);
  return { ids: [], count: 2, rows, type: 'float32', lengths: new Int32Array(2), index: new Int32Array(0) };
}

const reading = (stored?: StepMemories): Reading => ({
  ...{ ids: new Int32Array(0), targets: new Int32Array(0), dataMs: 0, retrievalMs: 0 },
  found: { ids: [], scores: new Float32Array(0), excluded: 0 },
  ...(stored && { stored }),
});

/** Lets what waits for a promise run. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function values(rows: tf.Tensor2D): Promise<number[]> {
  expect(rows.shape).toEqual([2, 2]);
  const found = await rows.data();
  rows.dispose();
  return [...found];
}

const [FIRST, SECOND] = [step(1, 2, 3, 4), step(5, 6, 7, 8)];

describeCuda('RowsAhead on an engine with a way of its own', () => {
  const backend = (): CudaBackend => tf.backend() as CudaBackend;
  const used = (): number => backend().kernels.usedBytes();
  let before = 0;
  beforeEach(async () => {
    process.env.MEMORY3_CUDA_ADDON ??= CUDA_PATH;
    await openEngine('cuda', 0);
    before = used();
  });
  afterEach(() => {
    expect(used()).toBe(before);
    expect(tf.memory().numTensors).toBe(0);
    vi.restoreAllMocks();
  });

  it('sends a reading when it is there, and gives it to its own step', async () => {
    const upload = vi.spyOn(backend(), 'writeAhead');
    const ahead = new RowsAhead();
    let there = (_: Reading): void => {};
    ahead.send(
      new Promise((resolve) => {
        there = resolve;
      }),
    );
    await settled();
    expect(used()).toBe(before);
    there(reading(FIRST));
    await settled();
    expect(used()).toBe(before + 16);
    expect(upload).toHaveBeenCalledTimes(1);
    expect(await values(tf.tidy(() => ahead.take(FIRST)))).toEqual([1, 2, 3, 4]);
    expect(await values(ahead.take(FIRST))).toEqual([1, 2, 3, 4]);
    expect(upload).toHaveBeenCalledTimes(1);
  });

  it('holds one set at most, and gives no other step what was sent', async () => {
    const ahead = new RowsAhead();
    ahead.send(Promise.resolve(reading(FIRST)));
    await settled();
    ahead.send(Promise.resolve(reading(SECOND)));
    await settled();
    expect(used()).toBe(before + 16);
    const other = ahead.take(FIRST);
    expect(used()).toBe(before + 16);
    expect(await values(other)).toEqual([1, 2, 3, 4]);
  });

  it('sends nothing any more that was given up', async () => {
    const ahead = new RowsAhead();
    ahead.send(Promise.resolve(reading(FIRST)));
    ahead.drop();
    await settled();
    expect(used()).toBe(before);
    ahead.send(Promise.resolve(reading(FIRST)));
    await settled();
    ahead.drop();
    expect(used()).toBe(before);
    ahead.send(Promise.resolve(reading(FIRST)));
    ahead.send(undefined);
    await settled();
    expect(used()).toBe(before);
  });

  it('leaves what fails to the step', async () => {
    const ahead = new RowsAhead();
    ahead.send(Promise.reject(new Error('damaged')));
    ahead.send(Promise.resolve(reading()));
    await settled();
    vi.spyOn(backend().kernels, 'upload').mockReturnValue(null);
    ahead.send(Promise.resolve(reading(FIRST)));
    await settled();
    expect(used()).toBe(before);
    expect(await values(ahead.take(FIRST))).toEqual([1, 2, 3, 4]);
  });
});

describe('RowsAhead on other engines', () => {
  it('makes rows in their step', async () => {
    await openEngine('cpu', 0);
    const { numTensors } = tf.memory();
    const ahead = new RowsAhead();
    ahead.send(Promise.resolve(reading(FIRST)));
    await settled();
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(await values(ahead.take(FIRST))).toEqual([1, 2, 3, 4]);
    expect(tf.memory().numTensors).toBe(numTensors);
  });
});
