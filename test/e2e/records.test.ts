/** What a run records beside its numbers: it changes no bit of the training, and a resumed run records the same. */

import { existsSync, readFileSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Image, MetricsRow, Retrievals } from '../../src/tracking/values.ts';
import { checkpoints, fingerprint, Playground, rows, type Stage, succeed } from './support.ts';

let playground: Playground;
beforeAll(() => {
  playground = new Playground();
});
afterAll(() => playground.remove());

const TRACKING = [
  ...['tracking.attentionEvery=2', 'tracking.retrievalsEvery=2', 'tracking.retrievedChunks=5'],
  ...['tracking.histogramsEvery=3', 'tracking.samples.every=2', 'tracking.samples.prompts=["bada has color","x"]'],
];
const NOTHING = ['tracking.attentionEvery=0', 'tracking.retrievalsEvery=0', 'tracking.hardwareEvery=0'];
const all = (name: string, stage: Stage): MetricsRow[] => rows(playground.path(name), stage);
/** Rows without what no two runs have alike. */
const steady = (name: string, stage: Stage): MetricsRow[] =>
  all(name, stage).map((row) =>
    Object.fromEntries(Object.entries(row).filter(([key]) => !/^time\/|_per_s$|cache_hit_rate$/.test(key))),
  );

for (const memories of ['bank', 'online']) {
  describe(`a run with continual.memories=${memories}`, () => {
    const name = `tracked-${memories}`;
    const changes = [`continual.memories=${memories}`, 'continual.refreshEvery=2', 'continual.refreshShare=0.5'];
    const args = () => playground.args(name, ...changes, ...TRACKING);
    beforeAll(() => succeed('run', ...args()));

    it('trains the same bits as one that records nothing', async () => {
      await succeed('run', ...playground.args(`plain-${memories}`, ...changes, ...NOTHING));
      expect(fingerprint(playground.path(name))).toEqual(fingerprint(playground.path(`plain-${memories}`)));
    });

    it('has pictures of attention, retrievals, distributions and samples where they are due', () => {
      const [warm, continual] = [all(name, 'warmup'), all(name, 'continual')];
      const stepsWith = (list: MetricsRow[], key: string) => list.filter((row) => key in row).map(({ step }) => step);
      expect(stepsWith(warm, 'memory/attention')).toEqual([]);
      expect(stepsWith(continual, 'memory/attention')).toEqual([2, 4, 6]);
      expect(stepsWith(continual, 'memory/retrievals')).toEqual([2, 4, 6]);
      for (const list of [warm, continual]) {
        expect(stepsWith(list, 'samples/1')).toEqual([2, 4, 6]);
        expect(stepsWith(list, 'samples/2')).toEqual([2, 4, 6]);
        expect(stepsWith(list, 'gradients/model.embed_tokens.weight')).toEqual([3, 6]);
        expect(stepsWith(list, 'parameters/model.embed_tokens.weight')).toEqual([3, 6]);
        expect(list[1]!['samples/1']).toEqual({ type: 'text', text: expect.stringMatching(/^bada has color./s) });
      }
      for (const row of continual) {
        expect(row['memory/retrieval_score']).toBeGreaterThan(0);
        expect(row['memory/retrieved']).toBeGreaterThan(0);
        expect(row['memory/excluded']).toBeGreaterThanOrEqual(0);
      }
    });

    it('has a picture whose mean is the share of attention', () => {
      for (const row of all(name, 'continual').filter(({ step }) => Number(step) % 2 === 0)) {
        const { width, height, values } = row['memory/attention'] as Image;
        expect([width, height, values.length]).toEqual([2, 2, 4]);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        expect(mean).toBeCloseTo(row['memory/attention_share'] as number, 5);
      }
    });

    it('names memories of the bank', async () => {
      const { stdout } = await succeed('bank', 'list', ...args(), '--limit', '1000');
      for (const row of all(name, 'continual').filter(({ step }) => Number(step) % 2 === 0)) {
        const { chunks } = row['memory/retrievals'] as Retrievals;
        expect(chunks).toHaveLength(5);
        const read = chunks.flatMap(({ memories: found }) => found);
        expect(read.length).toBeGreaterThan(0);
        for (const { id } of read) expect(stdout).toContain(id);
        expect(read.some(({ score }) => score !== undefined && score > 0)).toBe(true);
      }
    });

    it('tells how old the memories are', () => {
      // Before steps 3 and 5 half of the memories are written anew, and the bank grows.
      const ages = all(name, 'continual').map((row) => row['bank/age_steps'] as number);
      expect(ages.slice(0, 2)).toEqual([0, 1]);
      expect(ages[2]).toBeLessThan(2);
      expect(ages[3]).toBeCloseTo(ages[2]! + 1, 9);
      expect(ages[5]).toBeCloseTo(ages[4]! + 1, 9);
    });

    it('keeps the results as final values', () => {
      const summary = JSON.parse(readFileSync(playground.path(name, 'metrics', 'summary.json'), 'utf8')) as MetricsRow;
      const report = JSON.parse(readFileSync(playground.path(name, 'report.json'), 'utf8'));
      expect(summary).toMatchObject({
        'evaluation/right_memory_accuracy': report.heldOut.withMemory.accuracy,
        'evaluation/no_memory_loss': report.heldOut.withoutMemory.loss,
        'warmup/final_loss': all(name, 'warmup').at(-1)!['train/loss'],
        'continual/final_loss': all(name, 'continual').at(-1)!['train/loss'],
        'continual/final_validation_loss': all(name, 'continual').at(-1)!['validation/loss'],
        'continual/best_validation_loss': expect.any(Number),
      });
    });

    it('records the same again from an earlier checkpoint', async () => {
      const before = steady(name, 'continual');
      rmSync(checkpoints(playground.path(name), 'continual').at(-1)!, { recursive: true });
      await succeed('run', ...args());
      expect(steady(name, 'continual')).toEqual(before);
    });
  });
}

describe('answers', () => {
  const name = 'tracked-bank';
  const changes = ['continual.memories=bank', 'continual.refreshEvery=2', 'continual.refreshShare=0.5'];
  const args = () => playground.args(name, ...changes, ...TRACKING);
  const answers = () => playground.path(name, 'metrics', 'answers.jsonl');

  it('are kept with their traces, but for those of evaluations and where it is not wanted', async () => {
    expect(existsSync(answers())).toBe(false);
    await succeed('ask', ...args(), 'bada has color', '--no-record');
    expect(existsSync(answers())).toBe(false);
    const asked = await succeed('ask', ...args(), 'bada has color');
    const generated = await succeed('generate', ...args(), 'dobo has home', '--no-memory');
    const lines = readFileSync(answers(), 'utf8').trimEnd().split('\n');
    const [first, second] = lines.map((line) => JSON.parse(line));
    expect(lines).toHaveLength(2);
    expect(Object.keys(first)).toEqual(['time', 'prompt', 'text', 'trace']);
    expect(first.prompt).toBe('bada has color');
    expect(asked.stdout.startsWith(`${first.text.trim()}\n`)).toBe(true);
    const { memories } = first.trace[0];
    expect(memories.length).toBeGreaterThan(0);
    for (const { id } of memories) expect(asked.stdout).toContain(id);
    expect(generated.stdout).toBe(`dobo has home${second.text}\n`);
    expect(second.trace.every((chunk: { memories: unknown[] }) => chunk.memories.length === 0)).toBe(true);
  });
});

it('a damaged checkpoint that is passed over stands among the events', async () => {
  const [older, newest] = checkpoints(playground.path('tracked-online'), 'continual').slice(-2);
  expect(older).toBeDefined();
  rmSync(`${newest!}/state.json`);
  const changes = ['continual.memories=online', 'continual.refreshEvery=2', 'continual.refreshShare=0.5'];
  const { stderr } = await succeed('continual', ...playground.args('tracked-online', ...changes, ...TRACKING));
  const said = /passed over a damaged checkpoint: .*/.exec(stderr)?.[0];
  expect(said).toBeDefined();
  const events = readFileSync(playground.path('tracked-online', 'metrics', 'events.jsonl'), 'utf8')
    .trimEnd()
    .split('\n');
  const warnings = events.map((line) => JSON.parse(line)).filter(({ kind }) => kind === 'warning');
  expect(warnings.map(({ text }) => text).join('\n')).toContain(said);
});
