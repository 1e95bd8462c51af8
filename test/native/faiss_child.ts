/** In a thread of its own: searches an index of its own once and sends the result, then keeps searching until it is ended. */

import { parentPort } from 'node:worker_threads';
import { FaissIndex } from '../../src/engine/native/faiss.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

const index = FaissIndex.create(32, 'HNSW16', { threads: 1 });
const data = Float32Array.from(randomNormals(1, PURPOSE.test, 0, 3000 * 32));
await index.add(
  data,
  BigInt64Array.from({ length: 3000 }, (_, i) => BigInt(i)),
);
parentPort!.postMessage((await index.search(data.subarray(0, 320), 3)).ids);
for (;;) await Promise.all(Array.from({ length: 8 }, () => index.search(data, 50)));
