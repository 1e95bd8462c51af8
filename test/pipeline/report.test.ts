import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { EvaluationReport } from '../../src/eval/evaluate.ts';
import { RunFolder, type StageName } from '../../src/io/run_folder.ts';
import { drawLosses, evaluationSummary, stageSummary } from '../../src/pipeline/report.ts';
import type { Workspace } from '../../src/pipeline/workspace.ts';
import { temporaryFolder } from '../data/support.ts';

it('evaluationSummary names every result once', () => {
  const score = (accuracy: number) => ({ accuracy, loss: 1 - accuracy });
  const change = (followed: boolean) => ({ prompt: 'p', memoryBefore: 'm', before: 'b', after: 'a', followed });
  const report: EvaluationReport = {
    heldOut: {
      ...{ questions: 9, withMemory: score(0.9), withoutMemory: score(0.1), rag: score(0.8), retrieved: score(0.7) },
      byMemories: { others: {}, nearest: {} },
    },
    retrieval: { first: 0.5, read: 0.6 },
    edits: [change(true), change(false)],
    deletions: [change(true)],
  };
  expect(evaluationSummary(report)).toEqual({
    'evaluation/questions': 9,
    'evaluation/right_memory_accuracy': 0.9,
    'evaluation/right_memory_loss': expect.closeTo(0.1),
    'evaluation/no_memory_accuracy': 0.1,
    'evaluation/no_memory_loss': 0.9,
    'evaluation/text_in_context_accuracy': 0.8,
    'evaluation/text_in_context_loss': expect.closeTo(0.2),
    'evaluation/retrieved_memories_accuracy': 0.7,
    'evaluation/retrieved_memories_loss': expect.closeTo(0.3),
    'evaluation/found_first_share': 0.5,
    'evaluation/found_share': 0.6,
    'evaluation/edits': 2,
    'evaluation/edits_followed': 1,
    'evaluation/deletions': 1,
    'evaluation/deletions_followed': 1,
  });
});

describe('stageSummary', () => {
  const folderWith = (rows: object[]): RunFolder => {
    const folder = new RunFolder(temporaryFolder());
    mkdirSync(folder.metrics, { recursive: true });
    writeFileSync(folder.metricsFile('warmup'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    return folder;
  };

  it('has the last losses and the best validation', async () => {
    const folder = folderWith([
      { step: 1, 'train/loss': 3, 'validation/loss': 2.5 },
      { step: 2, 'train/loss': 2 },
      { step: 3, 'train/loss': 2.25, 'validation/loss': 2.75 },
    ]);
    const state = { step: 3, tokensSeen: 30, best: { step: 1, loss: 2.5 } };
    expect(await stageSummary(folder, 'warmup', state)).toEqual({
      'warmup/final_tokens': 30,
      'warmup/final_loss': 2.25,
      'warmup/final_validation_loss': 2.75,
      'warmup/best_validation_loss': 2.5,
      'warmup/best_validation_step': 1,
    });
  });

  it('has what there is of a stage without steps', async () => {
    const state = { step: 0, tokensSeen: 0, best: undefined };
    expect(await stageSummary(folderWith([]), 'warmup', state)).toEqual({ 'warmup/final_tokens': 0 });
  });
});

describe('drawLosses', () => {
  let folder: RunFolder;
  beforeEach(() => {
    folder = new RunFolder(temporaryFolder());
  });
  const draw = async (): Promise<string> => {
    vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    await drawLosses({ config: { name: 'drawn' }, folder } as Workspace);
    return readFileSync(`${folder.root}/loss.svg`, 'utf8');
  };
  const write = (stage: StageName, rows: object[]): void => {
    mkdirSync(folder.metrics, { recursive: true });
    writeFileSync(folder.metricsFile(stage), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  };
  const row = (step: number, more: object = {}) => ({ step, 'train/tokens': step * 1000, 'train/loss': 3, ...more });

  it('has a curve of what each stage has measured, of at most 200 points, and the switch', async () => {
    write(
      'warmup',
      Array.from({ length: 5000 }, (_, i) => row(i + 1, i % 1000 === 999 ? { 'validation/loss': 2 } : {})),
    );
    expect(await draw()).not.toContain('continual');
    const validated = { 'validation/loss': 2, 'validation/loss_without_memory': 2.5 };
    write(
      'continual',
      Array.from({ length: 30 }, (_, i) =>
        row(i + 1, i % 3 > 0 ? { 'memory/attention_share': 0.5, ...validated } : {}),
      ),
    );
    const svg = await draw();
    for (const name of ['>warmup<', 'continual, with memories', 'validation, without', 'memories from here on']) {
      expect(svg).toContain(name);
    }
    const longest = Math.max(
      ...[...svg.matchAll(/ (?:d|points)="([^"]*)"/g)].map(([, path]) => path!.split(/[ ML]+/).length),
    );
    expect(longest).toBeGreaterThan(150);
    expect(longest).toBeLessThan(450);
  });
});
