/** Several threads of JavaScript, each with an engine of its own in the same process. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { describeNative } from './support.ts';
import { productOf } from './worker_product.ts';

/** A thread starts as plain JavaScript, which then learns to load TypeScript. */
const CHILD = `import('tsx/esm/api').then(({ register }) => {
  register();
  return import(${JSON.stringify(new URL('./worker_child.ts', import.meta.url).href)});
});`;

async function start(seed: number): Promise<{ worker: Worker; result: Float32Array }> {
  const worker = new Worker(CHILD, { eval: true, workerData: seed, execArgv: [] });
  const [result] = (await once(worker, 'message')) as [Float32Array];
  return { worker, result };
}

describeNative('the native engine in several threads', () => {
  beforeAll(async () => {
    await openEngine('native', 2);
  });

  it('computes the same bits beside each other, and ends while others go on', async () => {
    const [first, second] = await Promise.all([start(1), start(2)]);
    expect(first.result).toEqual(await productOf(1));
    expect(second.result).toEqual(await productOf(2));
    // Ended while kernels wait in its stream and run on its threads.
    await first.worker.terminate();
    const third = await start(3);
    expect(third.result).toEqual(await productOf(3));
    await Promise.all([second.worker.terminate(), third.worker.terminate()]);
    expect(await productOf(1)).toEqual(first.result);
  });
});
