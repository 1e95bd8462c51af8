/** In a thread of its own: computes something on an engine of its own and sends it, then keeps the engine busy until it is ended. */

import { parentPort, workerData } from 'node:worker_threads';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';

await openEngine('native', 2);
const seed = workerData as number;
const values = Float32Array.from({ length: 200 * 300 }, (_, i) => Math.sin(i * seed));
const x = tf.tensor2d(values, [200, 300]);
const product = tf.matMul(x, x, false, true);
parentPort!.postMessage(await product.data<'float32'>());
for (;;) {
  const results = Array.from({ length: 20 }, () => tf.matMul(x, x, false, true));
  await results.at(-1)!.data();
  tf.dispose(results);
}
