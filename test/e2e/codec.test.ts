/** Runs whose memories are stored as codes. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { faissAvailable } from '../../src/engine/native/faiss.ts';
import { fail, filesBelow, fingerprint, Playground, Running, sha256, succeed } from './support.ts';

const describeFaiss = faissAvailable().ok ? describe : describe.skip;

/** Two numbers in four bits: the smallest code of heads of eight. */
const CODEC = 'PQ4x4';
const CODE_BYTES = 2;

describeFaiss('a run with memory.codec', () => {
  let playground: Playground;
  let args: string[];
  beforeAll(async () => {
    playground = new Playground({ memory: { codec: CODEC }, continual: { refreshEvery: 3 } });
    args = playground.args('coded');
    const { stderr } = await succeed('run', ...args);
    expect(stderr).toMatch(/codec PQ4x4: 32 bytes a memory \(float32: 512\); squared error [\d.]+ % of keys/);
  });
  afterAll(() => playground.remove());

  const codecsOf = (name: string): string[][] =>
    filesBelow(playground.path(name, 'bank'))
      .filter((path) => /codec-\w+\.bin$/.test(path))
      .map((path) => [path.split('/').at(-1)!, sha256(path)]);

  it('ends with the same bits when it is killed while the codec is trained, and later', async () => {
    const again = playground.args('killed');
    for (const pattern of [/training codec PQ4x4/, /continual step 3: validation/]) {
      const process = new Running(['run', ...again]);
      await process.until(pattern);
      process.kill('SIGKILL');
      await process.outcome;
    }
    await succeed('run', ...again);
    expect(fingerprint(playground.path('killed'))).toEqual(fingerprint(playground.path('coded')));
    expect(codecsOf('killed')).toEqual(codecsOf('coded'));
    // Those of the first version were trained with the weights of stage one.
    expect(codecsOf('coded')).toHaveLength(4);
  });

  it('answers, learns, edits, compacts and verifies as any other', async () => {
    const stats = JSON.parse((await succeed('bank', 'stats', ...args, '--json')).stdout);
    // Two layers, keys and values, one head, four tokens.
    expect(stats.memory.bytes).toBe(2 * 2 * 4 * CODE_BYTES);
    expect((await succeed('ask', ...args, 'zuzu has color')).stdout).toContain('sources:');
    const id = (await succeed('bank', 'add', ...args, '--text', 'xyxo has color quva.')).stdout.trim();
    await succeed('bank', 'edit', ...args, id, '--text', 'xyxo has color nene.');
    await succeed('bank', 'compact', ...args);
    expect((await succeed('bank', 'verify', ...args)).stdout).toContain('121 memories, every checksum is right');
    expect(await fail('input_invalid', 3, 'bank', 'codecs', ...args)).toContain('codes already');
  });

  it('trains damaged codecs again when they are repaired', async () => {
    const before = codecsOf('coded');
    for (const [name] of before) rmSync(playground.path('coded', 'bank', name!));
    expect(await fail('artefact_missing', 5, 'bank', 'ls', ...args)).toContain('bank verify --repair');
    const { stdout } = await succeed('bank', 'verify', ...args, '--repair');
    expect(stdout).toMatch(/trained the codecs again\n.*every checksum is right/);
    expect(codecsOf('coded')).toEqual(before);
  });

  it('stores codes from a cold start too', async () => {
    const cold = playground.args('cold', 'continual.steps=0');
    await succeed('data', 'build', ...cold);
    await succeed('warmup', ...cold);
    expect((await succeed('compile', ...cold, '--cold')).stderr).toContain('training codec PQ4x4');
    await succeed('ask', ...cold, '--cold', 'zuzu has color');
    const { memories, memory } = JSON.parse((await succeed('bank', 'stats', ...cold, '--json')).stdout);
    expect(memories).toBeGreaterThan(0);
    expect(memory.bytes).toBe(2 * 2 * 4 * CODE_BYTES);
  });

  it('stores numbers when there are too few references for the codec, and says so; codecs are compared with those', async () => {
    const few = playground.args('few', 'memory.codec=PQ2x12');
    const { stderr } = await succeed('run', ...few);
    expect(stderr).toMatch(/PQ2x12 cannot be trained on \d+ keys and as many values: .*too few references.*bfloat16/s);
    const before = filesBelow(playground.path('few')).map((path) => [path, sha256(path)]);
    const compared = await succeed('bank', 'codecs', ...few, '--json', '--codec', 'SQ8', '--codec', 'PQ2x12');
    expect(filesBelow(playground.path('few')).map((path) => [path, sha256(path)])).toEqual(before);
    const { trials, float32Bytes, lossWithoutMemory } = JSON.parse(compared.stdout);
    expect(float32Bytes).toBe(512);
    expect(lossWithoutMemory).toBeGreaterThan(0);
    expect(trials).toMatchObject([
      { codec: 'bfloat16', bytes: 256, keyError: 0, valueError: 0 },
      { codec: 'SQ8', bytes: 128 },
      { codec: 'PQ2x12', problem: expect.stringContaining('4096') },
    ]);
    expect(trials[1].keyError).toBeGreaterThan(0);
    expect(trials[1].keyError).toBeLessThan(1e-3);
    expect(Math.abs(trials[1].loss - trials[0].loss)).toBeLessThan(0.01);
  });

  it('is refused with a codec that does not fit the heads, before anything is trained', async () => {
    const unfit = playground.args('unfit', 'memory.codec=PQ3');
    const message = await fail('config_invalid', 2, 'run', ...unfit);
    expect(message).toContain('memory.codec: Faiss cannot use PQ3 for heads of 8 dimensions');
    expect(filesBelow(playground.path('unfit')).filter((path) => path.includes(join('warmup', 'checkpoints')))).toEqual(
      [],
    );
  });
});
