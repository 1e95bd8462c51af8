/** What test/cuda/engine.test.ts does in processes of their own; the result is printed as JSON. */

import type { EngineName, Precision } from '../../src/config/schema.ts';
import { describeGpus } from '../../src/engine/cuda/find.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { UserError } from '../../src/errors.ts';
import { crossEntropy, linear } from '../../src/ops/index.ts';

const describeError = (error: unknown): object =>
  error instanceof UserError
    ? { code: error.code, message: error.message, exitCode: error.exitCode }
    : { message: String(error) };

/** What the GPU holds. */
const used = (): number => (tf.memory() as tf.MemoryInfo & { usedBufferBytes: number }).usedBufferBytes;

/** Fills the memory of the GPU by linear maps, then asks for a loss, whose logits do not fit, and does something small. */
async function fill(): Promise<object> {
  await openEngine('cuda', 0, 'bfloat16');
  const [x, weight] = [tf.fill([4096, 8], 1) as tf.Tensor2D, tf.fill([2048, 8], 1) as tf.Tensor2D];
  const targets = tf.fill([4096], 0, 'int32') as tf.Tensor1D;
  const made: tf.Tensor[] = [];
  let [before, full]: [number, object] = [0, {}];
  for (let i = 0; i < 8; i++) {
    before = used();
    try {
      made.push(linear(x, weight));
    } catch (error) {
      full = describeError(error);
      break;
    }
  }
  const after = used();
  let scratch = {};
  try {
    crossEntropy(x, weight, targets);
  } catch (error) {
    scratch = describeError(error);
  }
  const afterScratch = used();
  tf.dispose(made.pop()!);
  const [value] = await tf.tidy(() => linear(x, weight)).data();
  return { full, scratch, made: made.length, before, after, afterScratch, value };
}

async function work(name: string): Promise<object> {
  if (name === 'full') return await fill();
  if (name === 'gpus') return describeGpus();
  const [, choice, precision = 'auto'] = name.split(' ') as ['open', EngineName, Precision?];
  const { name: opened, reason } = await openEngine(choice, 0, precision);
  return { name: opened, reason };
}

process.stdout.write(JSON.stringify(await work(process.argv[2] ?? '').catch(describeError)));
