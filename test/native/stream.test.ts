/** Kernels run behind JavaScript: what that must not change. */

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { embedding } from '../../src/ops/index.ts';
import { describeNative, int32 } from './support.ts';

describeNative('the stream of kernels', () => {
  beforeAll(async () => {
    await openEngine('native', 2);
  });

  /** Work for some tens of milliseconds. */
  const busy = (): tf.Tensor => tf.tidy(() => tf.matMul(tf.ones([2048, 1024]), tf.ones([1024, 2048])));

  it('gives the values of the moment of the call, also of a tensor that is gone and whose buffer was used again', async () => {
    const blocker = busy();
    const x = tf.tensor1d(Float32Array.from({ length: 1000 }, (_, i) => i));
    const values = x.data();
    x.dispose();
    const next = tf.fill([1000], -1);
    expect([...(await values)]).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect((await next.data()).every((value) => value === -1)).toBe(true);
    tf.dispose([blocker, next]);
  });

  it('takes the values of the moment of the call, also when the caller changes them at once', async () => {
    const blocker = busy();
    const given = Float32Array.of(1, 2, 3);
    const x = tf.tensor1d(given);
    given.fill(0);
    expect([...(await x.data())]).toEqual([1, 2, 3]);
    tf.dispose([blocker, x]);
  });

  it('leaves JavaScript free while kernels run', async () => {
    await tf.ready();
    const [a, b] = [tf.ones([2048, 1024]), tf.ones([1024, 2048])] as [tf.Tensor2D, tf.Tensor2D];
    const start = performance.now();
    const results = Array.from({ length: 8 }, () => tf.matMul(a, b));
    const dispatched = performance.now() - start;
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await results.at(-1)!.data();
    const whole = performance.now() - start;
    clearInterval(timer);
    tf.dispose([a, b, ...results]);
    expect(dispatched).toBeLessThan(whole / 2);
    expect(turns).toBeGreaterThan(5);
  });

  it('tells a fault at the next read, once, and goes on', async () => {
    const weight = tf.ones([4, 2]);
    const faulty = embedding(int32([9], [1]), weight);
    await expect(faulty.data()).rejects.toThrow('id 9 is not in [0, 4)');
    expect([...(await weight.data())]).toEqual(new Array(8).fill(1));
    tf.dispose([embedding(int32([-7], [1]), weight), faulty]);
    expect(() => weight.dataSync()).toThrow('id -7 is not in [0, 4)');
    expect(weight.dataSync()).toHaveLength(8);
    weight.dispose();
  });

  it('keeps the process while a value is awaited, and lets it end while kernels wait', () => {
    const child = fileURLToPath(new URL('./stream_child.ts', import.meta.url));
    const output = execFileSync(process.execPath, ['--import', 'tsx', child], { encoding: 'utf8', timeout: 25_000 });
    expect(output.trim()).toBe('512');
  });
});
