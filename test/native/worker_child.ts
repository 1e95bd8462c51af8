/** In a thread of its own: computes something on an engine of its own and sends it, then keeps the engine busy until it is ended. */

import { parentPort, workerData } from 'node:worker_threads';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { matrixOf, productOf, selfProduct } from './worker_product.ts';

await openEngine('native', 2);
const seed = workerData as number;
parentPort!.postMessage(await productOf(seed));
const x = matrixOf(seed);
for (;;) {
  const results = Array.from({ length: 20 }, () => selfProduct(x));
  await results.at(-1)!.data();
  tf.dispose(results);
}
