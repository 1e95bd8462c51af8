import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { attendComposed, attendGradComposed } from '../../src/ops/attention_composed.ts';
import { expectClose } from './support.ts';

beforeAll(async () => {
  await openEngine('wasm', 0);
});

it('gives the same gradients from kept and from recomputed probabilities', () => {
  const attributes = { start: 0, chunkLength: 5, memoryGradient: false, keyTokens: 5 };
  tf.tidy(() => {
    const inputs = {
      q: tf.randomNormal([2, 5, 4, 6]),
      k: tf.randomNormal([2, 5, 2, 6]),
      v: tf.randomNormal([2, 5, 2, 6]),
    };
    const [out, , state] = attendComposed(inputs, attributes);
    const dy = tf.randomNormal([2, 5, 4, 6]);
    expect(state!.size).toBeGreaterThan(0);
    const kept = attendGradComposed({ ...inputs, dy, out: out!, state: state! }, attributes);
    const again = attendGradComposed({ ...inputs, dy, out: out!, state: tf.zeros([0]) }, attributes);
    for (const [i, gradient] of kept.entries()) expectClose(again[i]!, gradient.dataSync(), 1e-6);
  });
});
