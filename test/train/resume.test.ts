import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { type CheckpointInput, loadCheckpoint, saveCheckpoint } from '../../src/checkpoint/checkpoint.ts';
import { modelSchema } from '../../src/config/schema.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import { findCheckpoint, requireFit, trainingState } from '../../src/train/resume.ts';
import { content } from '../checkpoint/content.ts';
import { temporaryFolder, userErrorOf } from '../data/support.ts';

const SHAPE = { ...modelSchema.parse({}), vocabSize: 300 };
const PROVENANCE = { tokenizerHash: 'tokenizer', datasetHash: 'dataset' };

let folder: RunFolder;
let said: string[];
const say = (message: string): void => {
  said.push(message);
};
beforeEach(() => {
  folder = new RunFolder(temporaryFolder());
  said = [];
});

async function save(step: number, state: Partial<CheckpointInput> = {}): Promise<string> {
  const made = content(step);
  const saved = await saveCheckpoint(folder.checkpoints('warmup'), step, {
    ...made,
    state: { ...made.state, ...state },
  });
  return saved.path;
}

const find = (resume: string) => findCheckpoint(folder, 'warmup', resume, say);

describe('findCheckpoint', () => {
  it('starts anew in an empty run', async () => {
    expect(await find('auto')).toBeUndefined();
    expect(await find('never')).toBeUndefined();
  });

  it('takes the newest with `auto`, any by its path, and none with `never`', async () => {
    const first = await save(9);
    await save(10);
    expect((await find('auto'))?.state.step).toBe(10);
    expect((await find(first))?.state.step).toBe(9);
    const error = await userErrorOf(find('never'));
    expect(error).toMatchObject({ code: 'input_invalid', message: expect.stringContaining('has begun already') });
  });

  it('passes over damaged ones and names them', async () => {
    await save(1);
    const damaged = await save(2);
    writeFileSync(join(damaged, 'model.safetensors'), 'x');
    expect((await find('auto'))?.state.step).toBe(1);
    expect(said.join('\n')).toContain(join(damaged, 'model.safetensors'));
    expect(['file_truncated', 'file_corrupt']).toContain((await userErrorOf(find(damaged))).code);
  });

  it('does not start anew when every checkpoint is damaged', async () => {
    for (const step of [1, 2]) writeFileSync(join(await save(step), 'state.json'), '{');
    const error = await userErrorOf(find('auto'));
    expect(error).toMatchObject({ code: 'file_corrupt', message: expect.stringContaining('every checkpoint') });
    expect(said).toHaveLength(2);
  });

  it('refuses a checkpoint of the other stage', async () => {
    const path = await save(1, { stage: 'continual' });
    expect(await userErrorOf(find(path))).toMatchObject({ code: 'artefact_mismatch' });
  });
});

describe('requireFit', () => {
  it('takes what was made with the same model, tokenizer and data', async () => {
    expect(requireFit(await loadCheckpoint(await save(1)), SHAPE, PROVENANCE)).toBeUndefined();
  });

  it.each([
    ['model.kvHeads 4', { modelConfig: SHAPE }, { ...SHAPE, kvHeads: 2 }],
    ['tokenizer other', { tokenizerHash: 'other' }, SHAPE],
    ['dataset other', { datasetHash: 'other' }, SHAPE],
  ])('names what differs: %s', async (difference, state, shape) => {
    const checkpoint = await loadCheckpoint(await save(1, state));
    expect(() => requireFit(checkpoint, shape, PROVENANCE)).toThrow(difference);
    expect(() => requireFit(checkpoint, shape, PROVENANCE)).toThrow(checkpoint.path);
  });

  it('names all differences at once', async () => {
    const checkpoint = await loadCheckpoint(await save(1, { tokenizerHash: 'a', datasetHash: 'b' }));
    expect(() => requireFit(checkpoint, { ...SHAPE, numLayers: 1 }, PROVENANCE)).toThrow(
      /tokenizer a.*; dataset b.*; model\.numLayers/,
    );
  });
});

it('trainingState takes up the counters', async () => {
  expect(trainingState(undefined)).toEqual({ step: 0, tokensSeen: 0, best: undefined });
  const checkpoint = await loadCheckpoint(await save(7));
  expect(trainingState(checkpoint)).toEqual({ step: 7, tokensSeen: 7, best: { step: 7, loss: 0.1 + 0.2 } });
});
