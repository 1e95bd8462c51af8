/** The whole pipeline and what it leaves, in its variants. */

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkpoints, fail, filesBelow, fingerprint, Playground, rows, sha256, steps, succeed } from './support.ts';

let playground: Playground;
beforeAll(() => {
  playground = new Playground();
});
afterAll(() => playground.remove());

describe('memory3 run', () => {
  let whole: string;
  let output: { stdout: string; stderr: string };
  beforeAll(async () => {
    output = await succeed('run', ...playground.args('whole'));
    whole = playground.path('whole');
  });

  it('leaves every artefact', () => {
    const wanted = [
      ...['config.yaml', 'data/tokenizer.json', 'data/build.json', 'data/tokens/manifest.json', 'report.json'],
      ...['data/references/references.arrow', 'bank/CURRENT', 'loss.svg', 'metrics/warmup.jsonl'],
      ...['metrics/continual.jsonl', 'metrics/events.jsonl', 'metrics/log.txt', 'metrics/status.json'],
    ];
    for (const path of wanted) expect(statSync(join(whole, path)).size, path).toBeGreaterThan(0);
    for (const stage of ['warmup', 'continual'] as const) {
      const last = checkpoints(whole, stage).at(-1) ?? '';
      expect(last).toMatch(/step-0*6$/);
      for (const file of ['model.safetensors', 'optimizer.safetensors', 'state.json'])
        expect(existsSync(join(last, file)), file).toBe(true);
    }
    expect(filesBelow(whole).filter((path) => /\.tmp$|\.old$/.test(path))).toEqual([]);
  });

  it('writes one row of metrics a step, with losses that fall', () => {
    for (const stage of ['warmup', 'continual'] as const) {
      const metrics = rows(whole, stage);
      expect(metrics.map(({ step }) => step)).toEqual(steps(6));
      for (const row of metrics)
        for (const [name, value] of Object.entries(row))
          if (typeof value !== 'object') expect(Number.isFinite(value), `${stage} ${name}`).toBe(true);
      expect(metrics.at(-1)!['train/tokens']).toBe(6 * 2 * 32);
      const validated = metrics.filter((row) => row['validation/loss'] !== undefined);
      expect(validated.map(({ step }) => step)).toEqual([3, 6]);
    }
    const loss = (row: Record<string, number> | undefined) => row?.['train/loss'] ?? Number.NaN;
    expect(loss(rows(whole, 'continual').at(-1))).toBeLessThan(loss(rows(whole, 'warmup')[0]));
    expect(rows(whole, 'continual').map((row) => row['bank/references'])).toEqual([60, 60, 90, 90, 120, 120]);
    expect(rows(whole, 'continual').every(({ 'memory/attention_share': share = 0 }) => share > 0 && share < 1)).toBe(
      true,
    );
  });

  it('writes a report of the promised shape and prints it', () => {
    const report = JSON.parse(readFileSync(join(whole, 'report.json'), 'utf8'));
    const score = { accuracy: expect.any(Number), loss: expect.any(Number) };
    expect(report).toMatchObject({
      heldOut: { questions: 4, withMemory: score, withoutMemory: score, rag: score, retrieved: score },
      retrieval: { first: expect.any(Number), read: expect.any(Number) },
      seconds: expect.any(Number),
      engine: expect.stringMatching(/^(cuda|native|tensorflow|wasm|cpu)$/),
    });
    expect(report.heldOut.byMemories.others).toEqual({ 1: score, 2: score });
    expect(report.heldOut.byMemories.nearest).toEqual({ 1: score, 2: score });
    expect(report.heldOut.byMemories.others[1]).toEqual(report.heldOut.withMemory);
    for (const change of [...report.edits, ...report.deletions]) {
      expect(change).toMatchObject({
        prompt: expect.any(String),
        before: expect.any(String),
        after: expect.any(String),
        followed: expect.any(Boolean),
      });
    }
    expect(output.stdout).toContain('with the right memory');
    expect(output.stdout).toContain(report.heldOut.withMemory.loss.toFixed(3));
    expect(output.stderr).toContain(`engine: ${report.engine}`);
  });

  it('does nothing when run again, and keeps everything, added knowledge too', async () => {
    const added = await succeed('bank', 'add', ...playground.args('whole'), '--text', 'zuzu has color kilo.');
    const kept = ['bank', 'warmup', 'continual', 'data', 'metrics']
      .flatMap((part) => filesBelow(join(whole, part)))
      // That a command was run is recorded.
      .filter((path) => !/(events\.jsonl|log\.txt|status\.json|hardware\.jsonl)$/.test(path));
    const hashes = kept.map((path) => [path, sha256(path)]);
    const { stderr } = await succeed('run', ...playground.args('whole'));
    expect(kept.map((path) => [path, sha256(path)])).toEqual(hashes);
    expect(stderr).toMatch(/data: kept/);
    expect(stderr).toMatch(/warmup: complete at step 6/);
    expect(stderr).toMatch(/continual: complete at step 6/);
    expect(stderr).toMatch(/compile: kept/);
    const list = await succeed('bank', 'list', ...playground.args('whole'), '--contains', 'zuzu');
    expect(list.stdout).toContain(added.stdout.trim());
  });

  it('gives the same bits under another name', async () => {
    await succeed('run', ...playground.args('twin'));
    const { bank, ...twin } = fingerprint(playground.path('twin'));
    const { bank: wholeBank, ...original } = fingerprint(whole);
    expect(twin).toEqual(original);
    // The bank of the first run was added to above.
    expect(wholeBank).toEqual(expect.arrayContaining(bank as string[]));
  });
});

describe('variants', () => {
  const losses = (name: string) =>
    (['warmup', 'continual'] as const).flatMap((stage) =>
      rows(playground.path(name), stage).map((row) => row['train/loss']!),
    );

  it('searches memory keys with the chunk itself, accumulates and recomputes', async () => {
    const variant = ['retrieval.encoder=keys', 'retrieval.query=own', 'warmup.accumulate=2', 'continual.accumulate=2'];
    const kept = succeed('run', ...playground.args('kept', ...variant));
    const recompute = ['warmup.recompute=true', 'continual.recompute=true'];
    await Promise.all([kept, succeed('run', ...playground.args('recomputed', ...variant, ...recompute))]);
    const [a, b] = [losses('kept'), losses('recomputed')];
    expect(a).toHaveLength(12);
    for (const [i, loss] of a.entries()) expect(Math.abs(loss - b[i]!)).toBeLessThan(1e-5);
    expect(rows(playground.path('kept'), 'warmup').at(-1)!['train/tokens']).toBe(6 * 2 * 2 * 32);
    const shown = await succeed('ask', ...playground.args('kept', ...variant), 'bada has color', '--trace');
    expect(shown.stdout).toContain('similarity');
  });

  it('encodes references in the step, and recomputing them gives the same losses', async () => {
    const online = ['continual.memories=online', 'continual.refreshEvery=3'];
    await Promise.all([
      succeed('run', ...playground.args('online', ...online)),
      succeed('run', ...playground.args('online-recomputed', ...online, 'continual.recompute=true')),
    ]);
    const [a, b] = [losses('online'), losses('online-recomputed')];
    for (const [i, loss] of a.entries()) expect(Math.abs(loss - b[i]!)).toBeLessThan(1e-5);
    expect(
      rows(playground.path('online'), 'continual').every(({ 'memory/attention_share': share = 0 }) => share > 0),
    ).toBe(true);
  });

  it('leaves out a stage of no steps', async () => {
    await Promise.all([
      succeed('run', ...playground.args('warm', 'continual.steps=0')),
      succeed('run', ...playground.args('cold', 'warmup.steps=0')),
    ]);
    const [warm, passedOn] = [
      checkpoints(playground.path('warm'), 'warmup'),
      checkpoints(playground.path('warm'), 'continual'),
    ];
    expect(passedOn.map((path) => sha256(join(path, 'model.safetensors')))).toEqual([
      sha256(join(warm.at(-1)!, 'model.safetensors')),
    ]);
    expect(rows(playground.path('cold'), 'continual')).toHaveLength(6);
    const { heldOut } = JSON.parse(readFileSync(join(playground.path('warm'), 'report.json'), 'utf8'));
    expect(heldOut.questions).toBeGreaterThan(0);
    const listed = await succeed('bank', 'list', ...playground.args('warm', 'continual.steps=0'));
    // All references are written at the end, not only those that the growth plan begins with.
    const [, memories] = /of (\d+) memories/.exec(listed.stdout) ?? [];
    const inspected = await succeed('data', 'inspect', ...playground.args('warm', 'continual.steps=0'));
    expect(Number(memories)).toBe(Number(/references\s+(\d+)/.exec(inspected.stdout)?.[1]));
  });

  it('begins stage two with an empty bank when the plan says so', async () => {
    const empty = ['continual.growth.initialShare=0', 'continual.growth.share=0.5'];
    await succeed('run', ...playground.args('empty', ...empty));
    const sizes = rows(playground.path('empty'), 'continual').map((row) => row['bank/references']);
    expect(sizes.slice(0, 2)).toEqual([0, 0]);
    expect(sizes.at(-1)).toBeGreaterThan(0);
  });

  it('says before any work that a run needs references', async () => {
    const where = await fail('config_invalid', 2, 'run', ...playground.args('bare', 'data.references=[]'));
    expect(where).toContain('data.references');
  });
});
