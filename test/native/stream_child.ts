/** Asks for a value and ends: `await` keeps the process alive until it is there. Prints what it got. */

import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';

await openEngine('native', 2);
const x = tf.ones([512, 512]) as tf.Tensor2D;
const [first] = await tf.matMul(x, x).data();
console.log(first);
// Work that nobody waits for must not keep the process, nor crash it.
for (let i = 0; i < 50; i++) tf.matMul(x, x);
