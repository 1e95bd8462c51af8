import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { type RunConfig, runSchema } from '../../src/config/schema.ts';
import { modelShape, withWorkspace } from '../../src/pipeline/workspace.ts';
import { smallTokenizer, temporaryFolder, userErrorOf } from '../data/support.ts';

let runsFolder: string;
beforeEach(() => {
  runsFolder = temporaryFolder();
  vi.spyOn(process.stderr, 'write').mockReturnValue(true);
});

const configure = (changes: object = {}): RunConfig =>
  runSchema.parse({ name: 'run', runsFolder, engine: 'cpu', ...changes });
const nothing = async (): Promise<void> => {};
const savedConfig = (): string => join(runsFolder, 'run/config.yaml');
/** What a run leaves that has built its data. */
const buildsData = async (): Promise<void> => {
  mkdirSync(join(runsFolder, 'run/data'));
  writeFileSync(join(runsFolder, 'run/data/build.json'), '{}');
};

describe('withWorkspace', () => {
  it('saves the resolved configuration and gives the run free again, also after an error', async () => {
    expect(await withWorkspace(configure(), { command: 'warmup' }, nothing)).toBe(0);
    expect(readFileSync(savedConfig(), 'utf8')).toContain('numLayers: 6');
    const failing = withWorkspace(configure(), { command: 'warmup' }, () => Promise.reject(new Error('failed')));
    await expect(failing).rejects.toThrow('failed');
    expect(await withWorkspace(configure(), { command: 'warmup' }, nothing)).toBe(0);
  });

  it('is for one process', async () => {
    let inner: { code: string } | undefined;
    await withWorkspace(configure(), { command: 'warmup' }, async () => {
      inner = await userErrorOf(withWorkspace(configure(), { command: 'warmup' }, nothing));
    });
    expect(inner?.code).toBe('run_locked');
  });

  it('takes other values as long as no data depends on them', async () => {
    await withWorkspace(configure(), { command: 'warmup' }, nothing);
    expect(await withWorkspace(configure({ seed: 2 }), { command: 'warmup' }, buildsData)).toBe(0);
    expect((await userErrorOf(withWorkspace(configure(), { command: 'warmup' }, nothing))).message).toContain('seed');
  });

  it('refuses changed values, but those that decide nothing', async () => {
    await withWorkspace(configure(), { command: 'warmup' }, buildsData);
    const free = { threads: 2, generate: { maxTokens: 3 }, evaluation: { maxQuestions: 9 } };
    const stage = { keepCheckpoints: 5, checkpointEvery: 7 };
    expect(
      await withWorkspace(
        configure({ ...free, warmup: stage, continual: { prefetch: 0 } }),
        { command: 'warmup' },
        nothing,
      ),
    ).toBe(0);
    const changed = configure({ seed: 2, continual: { steps: 5 } });
    const error = await userErrorOf(withWorkspace(changed, { command: 'warmup' }, nothing));
    expect(error.code).toBe('config_invalid');
    expect(error.message).toMatch(/seed, continual\.steps|continual\.steps, seed/);
    expect(await withWorkspace(changed, { command: 'warmup', acceptChanges: true }, nothing)).toBe(0);
    expect(await withWorkspace(changed, { command: 'warmup' }, nothing)).toBe(0);
  });

  it('gives a run that is older than a key its default', async () => {
    await withWorkspace(configure(), { command: 'warmup' }, buildsData);
    const old = readFileSync(savedConfig(), 'utf8').replace(/^ {2}search: .*\n/m, '');
    expect(old).not.toContain('search:');
    writeFileSync(savedConfig(), old);
    expect(await withWorkspace(configure(), { command: 'warmup' }, nothing)).toBe(0);
    writeFileSync(savedConfig(), old);
    const changed = configure({ retrieval: { search: { nprobe: 3 } } });
    expect((await userErrorOf(withWorkspace(changed, { command: 'warmup' }, nothing))).message).toContain(
      'retrieval.search',
    );
  });

  it('names a saved configuration that cannot be read', async () => {
    await withWorkspace(configure(), { command: 'warmup' }, buildsData);
    writeFileSync(savedConfig(), 'a: [');
    const error = await userErrorOf(withWorkspace(configure(), { command: 'warmup' }, nothing));
    expect(error).toMatchObject({ code: 'file_corrupt', message: expect.stringContaining(savedConfig()) });
  });

  it('returns the status of the signal that came meanwhile', async () => {
    const code = await withWorkspace(configure(), { command: 'warmup' }, async ({ stop }) => {
      process.emit('SIGTERM', 'SIGTERM');
      expect(stop.requested).toBe(true);
    });
    expect(code).toBe(143);
  });
});

it('modelShape takes the vocabulary of the tokenizer, or a larger one', async () => {
  const tokenizer = await smallTokenizer(temporaryFolder(), 300);
  expect(modelShape(configure(), tokenizer).vocabSize).toBe(300);
  expect(modelShape(configure({ model: { vocabSize: 512 } }), tokenizer).vocabSize).toBe(512);
  expect(() => modelShape(configure({ model: { vocabSize: 299 } }), tokenizer)).toThrow('model.vocabSize: 299 is less');
});
