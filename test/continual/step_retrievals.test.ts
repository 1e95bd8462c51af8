/** What is recorded of the memories that chunks read, against a slow search chunk by chunk. */

import { afterEach, describe, expect, it, vi } from 'vitest';
import { ContinualStage } from '../../src/continual/continual.ts';
import { TrainingBank } from '../../src/continual/training_bank.ts';
import { dataPaths } from '../../src/data/paths.ts';
import { decodeChunk } from '../../src/data/tokenizer.ts';
import { exceeds } from '../../src/memory/overlap.ts';
import type { Retrievals } from '../../src/tracking/values.ts';
import { TextBatches } from '../../src/train/text_batches.ts';
import { type RandomRun, randomRun, writeBank } from '../infer/random_run.ts';
import { RecordingTracker } from '../tracking/support.ts';

vi.setConfig({ testTimeout: 120_000 });

const CHUNK = 8;
const EVERY = 3;
const open: { close(): Promise<void> }[] = [];
let run: RandomRun;
afterEach(async () => {
  for (const opened of open.splice(0).reverse()) await opened.close();
  run.model.dispose();
});

async function openStage(continual: object, retrieval: object): Promise<{ stage: ContinualStage; bank: TrainingBank }> {
  run = await randomRun({
    continual: { steps: 6, batchSize: 2, accumulate: 2, growth: { every: 0 }, ...continual },
    // So low a threshold passes over many candidates.
    retrieval: { overlapThreshold: 0.6, ...retrieval },
    tracking: { retrievalsEvery: EVERY, retrievedChunks: 11 },
  });
  await writeBank(run);
  const { config, folder, model, references, tokenizer, train, validation, weights } = run;
  const text = { train, validation, weights };
  const decode = decodeChunk(tokenizer);
  const shared = { config, model, prefix: tokenizer.referencePrefix, decode };
  const bank = await TrainingBank.open({ ...shared, folder: folder.bank, references });
  open.push(bank);
  const stage = new ContinualStage({
    ...{ ...shared, text, plainText: text, bank, parent: 'p' },
    ...{ tokenizer: dataPaths(folder.data).tokenizer, checkpoints: folder.checkpoints('continual') },
  });
  open.push(stage);
  return { stage, bank };
}

/** What the chunks of a step read, searched for one after the other. */
async function slowly(bank: TrainingBank, step: number) {
  const { config, tokenizer } = run;
  const { candidates, query, overlapThreshold } = config.retrieval;
  const text = new TextBatches(config, config.continual, run);
  const retriever = await bank.retriever();
  const scores: number[] = [];
  const ids = new Set<string>();
  let excluded = 0;
  const chunks: Retrievals['chunks'] = [];
  for (let micro = 0; micro < 2; micro++) {
    const batch = await text.training(step, micro);
    for (let b = 0; b < 2; b++) {
      const sequence = batch.ids.slice(b * 32, (b + 1) * 32);
      const passedOver = new Set<string>();
      const own: ({ id: string; score: number } | undefined)[] = [];
      for (let c = 0; c < 32 / CHUNK; c++) {
        const from = query === 'previous' ? c - 1 : c;
        const [found = []] =
          from < 0 ? [] : await retriever.search([sequence.slice(from * CHUNK, (from + 1) * CHUNK)], candidates);
        let nearest: (typeof found)[number] | undefined;
        for (const candidate of found) {
          if (!exceeds(sequence, bank.bank.tokens(candidate.id), overlapThreshold)) {
            nearest = candidate;
            break;
          }
          passedOver.add(candidate.id);
        }
        own.push(nearest);
        if (nearest) scores.push(nearest.score);
        const before = c > 0 ? own[c - 1] : undefined;
        const memories = [
          ...(nearest ? [{ id: nearest.id, score: nearest.score }] : []),
          ...(before && before.id !== nearest?.id ? [{ id: before.id }] : []),
        ];
        for (const { id } of memories) ids.add(id);
        chunks.push({ text: await decodeChunk(tokenizer)(sequence.slice(c * CHUNK, (c + 1) * CHUNK)), memories });
      }
      excluded += passedOver.size;
    }
  }
  return { score: scores.reduce((sum, score) => sum + score, 0) / scores.length, ids, excluded, chunks };
}

describe('what a stage records of retrievals', () => {
  for (const [memories, prefetch, query] of [
    ['bank', 0, 'previous'],
    ['bank', 2, 'own'],
    ['online', 0, 'own'],
    ['online', 2, 'previous'],
  ] as const) {
    it(`is what a slow search finds (${memories}, ${prefetch} ahead, ${query})`, async () => {
      const { stage, bank } = await openStage({ memories, prefetch }, { query });
      let passedOver = 0;
      for (let step = 1; step <= 2 * EVERY; step++) {
        await stage.prepare(step);
        for (let micro = 0; micro < 2; micro++) (await stage.microBatch(step, micro)).dispose();
        // Validations belong to no step.
        if (step === 2) await stage.validate();
        const { values } = await measured(stage, step);
        const expected = await slowly(bank, step);
        expect(values['memory/retrieval_score']).toBeCloseTo(expected.score, 5);
        expect(values['memory/retrieved']).toBe(expected.ids.size);
        expect(values['memory/excluded']).toBe(expected.excluded);
        passedOver += expected.excluded;
        if (step % EVERY !== 0) expect(values['memory/retrievals']).toBeUndefined();
        else expectChunks(values['memory/retrievals'] as Retrievals, expected.chunks.slice(0, 11));
      }
      expect(passedOver).toBeGreaterThan(0);
    });
  }

  it('is nothing in a plain step', async () => {
    const { stage } = await openStage({ plainShare: 1, prefetch: 0 }, {});
    await stage.prepare(EVERY);
    (await stage.microBatch(EVERY, 0)).dispose();
    const { values } = await measured(stage, EVERY);
    expect(Object.keys(values).filter((name) => name.startsWith('memory/'))).toEqual([]);
  });
});

async function measured(stage: ContinualStage, step: number): Promise<RecordingTracker> {
  const tracker = new RecordingTracker();
  await stage.measure(tracker, step);
  return tracker;
}

function expectChunks({ chunks }: Retrievals, expected: Retrievals['chunks']): void {
  expect(chunks.map(({ text }) => text)).toEqual(expected.map(({ text }) => text));
  for (const [i, { memories }] of expected.entries()) {
    const recorded = chunks[i]!.memories;
    expect(recorded.map(({ id }) => id)).toEqual(memories.map(({ id }) => id));
    for (const [m, { score }] of memories.entries()) {
      if (score === undefined) expect(recorded[m]!.score).toBeUndefined();
      else expect(recorded[m]!.score).toBeCloseTo(score, 4);
    }
  }
}
