import { expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { UserError } from '../../src/errors.ts';

it.each(['cpu', 'wasm'] as const)('opens %s', async (name) => {
  const info = await openEngine(name, 0);
  expect(info.name).toBe(name);
  expect(tf.getBackend()).toBe(name);
  expect(info.available.map((engine) => engine.name)).toEqual(['cuda', 'native', 'tensorflow', 'wasm', 'cpu']);
});

it('takes the first that is there, and says why', async () => {
  const info = await openEngine('auto', 0);
  expect(info.name).toBe(info.available.find(({ ok }) => ok)?.name);
  expect(info.reason).toContain('first available');
});

it('fails loudly when the chosen one is not there', async () => {
  const { available } = await openEngine('auto', 0);
  for (const { name } of available.filter(({ ok }) => !ok)) {
    const error = await openEngine(name, 0).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UserError);
    expect(error).toMatchObject({ code: 'engine_unavailable', message: expect.stringContaining('Available here: ') });
  }
});
