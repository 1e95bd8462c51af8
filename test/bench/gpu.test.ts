/** The programs that check and measure a GPU, where there is none: on an emulated device, and the peer on the CPU. */

import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { caseOf, type Kind, Steps } from '../../bench/gpu/cases.ts';
import { type Figure, type Finding, linesOf } from '../../bench/gpu/compare.ts';
import { openEngine } from '../../src/engine/engine.ts';
import { initParameters } from '../../src/model/shape.ts';
import { EMULATED_PATH, FAKE_LIBRARIES } from '../cuda/support.ts';
import { describeNative } from '../native/support.ts';

const run = promisify(execFile);
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-gpu-'));
});
afterAll(() => rm(folder, { recursive: true }));

const emulated = { MEMORY3_CUDA_ADDON: EMULATED_PATH, MEMORY3_CUDA_LIBS: FAKE_LIBRARIES };

describe.skipIf(!existsSync(EMULATED_PATH))('the check of a GPU on an emulated device', () => {
  const check = (args: string[], environment: Record<string, string> = emulated) =>
    spawnSync('bash', ['scripts/gpu/check.sh', '--out', folder, '--size', 'small', '--shape', 'tiny', ...args], {
      env: { ...process.env, ...environment },
      encoding: 'utf8',
    });

  it('passes with errors and a checkpoint', async () => {
    const { status, stdout } = check(['--parts', 'errors,resume']);
    expect(stdout).toContain('6 passed, 0 failed');
    expect(status).toBe(0);
    expect(linesOf<Finding>(join(folder, 'all.jsonl'))).toHaveLength(6);
    expect(await readFile(join(folder, 'table.txt'), 'utf8')).toContain('the same bits');
  }, 120_000);

  it('ends with 1 when a part fails, and says what was found', () => {
    const { status, stdout } = check(['--parts', 'errors'], { ...emulated, MEMORY3_CUDA_ADDON: '/nowhere.node' });
    expect(stdout).toContain('/nowhere.node');
    expect(stdout).toContain('0 passed, 1 failed');
    expect(status).toBe(1);
  }, 120_000);

  it('ends with 1 when a part is cut off', () => {
    const { status, stdout } = check(['--parts', 'errors', '--seconds', '1']);
    expect(stdout).toContain('no time was left of 1 s');
    expect(status).toBe(1);
  }, 120_000);

  const operations = (only: string, environment: Record<string, string>): Finding[] => {
    const program = ['--import', 'tsx', 'bench/gpu/check.ts', 'operations', '--size', 'small', '--only', only];
    const { stdout } = spawnSync(process.execPath, program, {
      env: { ...process.env, ...environment },
      encoding: 'utf8',
    });
    return stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Finding);
  };

  it('compares an operation with the native engine', () => {
    expect(operations('swiglu', emulated).map(({ part, ok }) => [part, ok])).toEqual([
      ['operations, float32', true],
      ['operations, bfloat16', true],
    ]);
  }, 120_000);

  it('goes on in another process when an operation loses the device', async () => {
    const path = join(folder, 'lost.cjs');
    await writeFile(path, LOST_AT_ROPE);
    const found = operations('rop', { ...emulated, MEMORY3_CUDA_ADDON: path });
    expect(found.map(({ part, name, ok }) => [part, name, ok])).toEqual([
      ['operations, float32', 'rope', false],
      ['operations, float32', 'crossEntropy', true],
      ['operations, bfloat16', 'crossEntropy', true],
    ]);
    expect(found[0]!.note).toContain('illegal');
  }, 120_000);
});

/** An addon whose device every call finds lost after the kernel `rope`. */
const LOST_AT_ROPE = `
  const addon = require(${JSON.stringify(EMULATED_PATH)});
  let lost = false;
  module.exports = new Proxy(addon, {
    get: (_, name) => typeof addon[name] !== 'function' || name === 'close' ? addon[name] : (...values) => {
      lost ||= name === 'rope';
      if (lost) throw new Error('an illegal memory access was encountered');
      return addon[name](...values);
    },
  });
`;

const python = '/usr/bin/python3';
const hasTorch = existsSync(python) && spawnSync(python, ['-c', 'import torch']).status === 0;

describeNative('the peer in PyTorch', () => {
  it.skipIf(!hasTorch).each(['warmup', 'bank', 'online'] as const)(
    'computes what memory3 does: %s',
    async (kind) => {
      const given = caseOf('tiny');
      const weights = initParameters(given.shape, 3);
      const file = join(folder, 'weights');
      await writeFile(file, Buffer.concat([...weights.values()].map((values) => Buffer.from(values.buffer.slice(0)))));
      await openEngine('native', 2);
      const steps = new Steps(given, weights);
      const expected = await steps.step(kind);
      steps.dispose();
      for (const figure of await peer(kind, file)) {
        expect(figure.error).toBeUndefined();
        expect(figure.loss as number).toBeCloseTo(expected.loss, 4);
        expect(figure.gradientNorm as number).toBeCloseTo(expected.gradientNorm, 4);
      }
    },
    120_000,
  );
});

/** Each way of the peer. */
async function peer(kind: Kind, weights: string): Promise<Figure[]> {
  const variants = kind === 'warmup' ? 'eager' : 'mask,loop';
  const tiny = ['--shape', 'tiny', '--device', 'cpu', '--dtype', 'float32', '--runs', '1', '--warmups', '0'];
  const args = ['bench/peers/gpu/measure.py', kind, '--variant', variants, '--weights', weights, ...tiny];
  const { stdout } = await run(python, args);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Figure);
}
