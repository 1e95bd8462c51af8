/** How a training step shares the event loop. That its gradients are right, the golden files and training tests say. */

import { setImmediate } from 'node:timers';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { valueAndGradients } from '../../src/model/tape.ts';

describe('valueAndGradients', () => {
  beforeAll(async () => {
    await openEngine('cpu', 0);
  });

  it('gives others a turn before the forward pass and after a long one', async () => {
    const events: string[] = [];
    const othersWait = () => setImmediate(() => events.push('others'));
    const square = tf.customGrad((x) => ({
      value: tf.square(x as tf.Tensor),
      gradFunc: (dy: tf.Tensor) => {
        events.push('backward');
        return dy.mul(x as tf.Tensor).mul(2);
      },
    }));
    const x = tf.variable(tf.scalar(3));
    othersWait();
    const { value, gradients } = await valueAndGradients(() => {
      events.push('forward');
      othersWait();
      const end = performance.now() + 15;
      while (performance.now() < end);
      return square(x).mul(5).asScalar();
    }, [x]);
    expect(events).toEqual(['others', 'forward', 'others', 'backward']);
    expect(gradients[0]!.dataSync()).toEqual(Float32Array.of(30));
    tf.dispose([x, value, ...gradients]);
  });
});
