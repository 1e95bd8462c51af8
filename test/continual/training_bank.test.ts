import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { modelHash, TrainingBank } from '../../src/continual/training_bank.ts';
import { decodeChunk } from '../../src/data/tokenizer.ts';
import * as tf from '../../src/engine/tf.ts';
import { growthPlan } from '../../src/memory/growth.ts';
import { writeTexts } from '../../src/memory/write.ts';
import { userErrorOf } from '../data/support.ts';
import { type RandomRun, randomRun, writeBank } from '../infer/random_run.ts';

let run: RandomRun;
let bank: TrainingBank;
const open: TrainingBank[] = [];
beforeEach(() => setUp({}));
afterEach(tearDown);

/** @param changes laid over the configuration of the stage */
async function setUp(changes: object): Promise<void> {
  run = await randomRun({
    continual: { growth: { initialShare: 0.2, every: 3, share: 0.3 }, refreshEvery: 5, ...changes },
  });
}

async function tearDown(): Promise<void> {
  for (const bank of open.splice(0)) await bank.close();
  run.model.dispose();
}

async function openBank(version?: number, written?: Record<string, number>): Promise<TrainingBank> {
  const { config, folder, model, references, tokenizer } = run;
  const prefix = tokenizer.referencePrefix;
  bank = await TrainingBank.open({
    config,
    folder: folder.bank,
    model,
    references,
    prefix,
    decode: decodeChunk(tokenizer),
    version,
    written,
  });
  open.push(bank);
  return bank;
}

/** A bank of the first six references, as the growth plan begins with when its order is that of the file. */
async function begin(): Promise<void> {
  await writeBank(run, 0);
  await openBank();
}

/** One step of training, as far as the bank can tell. */
function moveWeights(): void {
  for (const variable of run.model.parameters.values()) tf.tidy(() => variable.assign(variable.mul(1.01)));
}

/** True when the bank holds what the current weights write. */
async function isFresh(id: string): Promise<boolean> {
  const options = { prefix: run.tokenizer.referencePrefix, memory: run.config.memory };
  const { rows } = await writeTexts(run.model, [bank.bank.tokens(id)], options);
  const stored = await bank.bank.readRows([id]);
  return rows.every((value, i) => Math.abs(value - stored[i]!) < 1e-5);
}

describe('prepare', () => {
  it('grows and refreshes the bank as the plan says', async () => {
    await begin();
    const plan = growthPlan(run.config.continual.growth, run.references.size, run.config.seed);
    const said: (string | undefined)[] = [];
    for (let step = 1; step <= 11; step++) {
      said.push((await bank.prepare(step))?.text);
      expect(bank.bank.size, `step ${step}`).toBe(plan.countAt(step - 1));
      expect((await bank.retriever()).size).toBe(bank.bank.size);
    }
    // It grows before steps 1, 4, 7, 10 and is refreshed before 6 and 11.
    expect(said.map((message) => message !== undefined)).toEqual(
      [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 1].map((number) => number === 1),
    );
    expect(said[3]).toContain('grew from 6 to 15 memories');
    expect(said[5]).toContain('all rewritten with the current weights');
    const first = await run.references.get(plan.referenceAt(0));
    expect(bank.bank.has(first.id)).toBe(true);
    expect(await bank.prepare(12)).toBeUndefined();
  });

  it('writes what it adds with the current weights; a refresh writes all anew', async () => {
    await begin();
    await bank.prepare(1);
    const old = bank.bank.ids();
    const oldHash = await modelHash(run.model);
    moveWeights();
    await bank.prepare(4);
    const added = bank.bank.ids().filter((id) => !old.includes(id));
    expect(added).toHaveLength(9);
    expect([await isFresh(old[0]!), await isFresh(added[0]!)]).toEqual([false, true]);
    expect(bank.bank.writer(old[0]!)).toBe(oldHash);
    expect(bank.bank.writer(added[0]!)).toBe(await modelHash(run.model));
    expect(bank.bank.writers).toHaveLength(2);
    moveWeights();
    await bank.prepare(6);
    expect(await Promise.all(bank.bank.ids().map(isFresh))).toEqual(Array.from({ length: 15 }, () => true));
    expect(bank.bank.writers).toEqual([await modelHash(run.model)]);
  });

  it('finds what it added', async () => {
    await begin();
    await bank.prepare(10);
    const [id = ''] = bank.bank.ids().slice(-1);
    const [found = []] = await (await bank.retriever()).search([bank.bank.tokens(id)], 1);
    expect(found[0]?.id).toBe(id);
  });
});

/** The same run with other settings of the stage. */
async function beginWith(changes: object): Promise<void> {
  await tearDown();
  await setUp(changes);
  await begin();
}

describe('a refresh of a share', () => {
  it('writes the memories anew that were written longest ago, each in its turn', async () => {
    await beginWith({ growth: { every: 0 }, refreshShare: 0.4 });
    await bank.prepare(1);
    const written = bank.bank.ids();
    const order = (...parts: [number, number][]) => parts.map(([from, until]) => written.slice(from, until).toSorted());
    const parts = (...ends: number[]) => {
      const ids = bank.bank.ids();
      return ends.map((end, i) => ids.slice(ends[i - 1] ?? 0, end).toSorted());
    };
    const hashes = [await modelHash(run.model)];
    const expected = [order([12, 30], [0, 12]), order([24, 30], [0, 12], [12, 24])];
    for (const [number, step] of [6, 11].entries()) {
      moveWeights();
      hashes.push(await modelHash(run.model));
      expect((await bank.prepare(step))?.text).toContain(
        'holds 30 memories, the oldest 12 rewritten with the current weights',
      );
      expect(number === 0 ? parts(18, 30) : parts(6, 18, 30)).toEqual(expected[number]);
      const fresh = await Promise.all(bank.bank.ids().map(isFresh));
      expect(fresh.map((value, place) => value === place >= 18)).not.toContain(false);
    }
    expect(bank.bank.writers).toEqual(hashes.toSorted());
    moveWeights();
    await bank.prepare(16);
    // The last of the first weights' memories are gone.
    expect(bank.bank.writers).toEqual([...hashes.slice(1), await modelHash(run.model)].toSorted());
    expect(bank.bank.ids().toSorted()).toEqual(written.toSorted());
  });

  it('leaves the records as they were, and grows in the same version', async () => {
    await beginWith({ growth: { initialShare: 0.2, every: 5, share: 0.3 }, refreshShare: 0.5 });
    await bank.prepare(1);
    const [first = ''] = bank.bank.ids();
    const { kept: _, ...before } = await bank.bank.get(first);
    const { version } = bank.bank;
    moveWeights();
    expect((await bank.prepare(6))?.text).toContain('grew from 6 to 15 memories, the oldest 3 rewritten');
    expect(bank.bank.version).toBe(version + 1);
    expect(await Promise.all(bank.bank.ids().map(isFresh))).toEqual(Array.from({ length: 15 }, (_, i) => i >= 3));
    const { kept: __, ...after } = await bank.bank.get(first);
    expect(after).toEqual(before);
  });

  it('gives the same bytes when a run goes back and does it again', async () => {
    await beginWith({ growth: { every: 0 }, refreshShare: 0.4 });
    await bank.prepare(1);
    await bank.prepare(6);
    const { version } = bank.bank;
    moveWeights();
    await bank.prepare(11);
    const { contentHash } = bank.bank;
    await openBank(version);
    await bank.prepare(11);
    expect(bank.bank.contentHash).toBe(contentHash);
  });
});

describe('refreshBelow', () => {
  it('leaves a refresh out while the memories are what the weights write', async () => {
    await beginWith({ refreshBelow: 0.999 });
    await bank.prepare(1);
    await bank.prepare(4);
    expect((await bank.drift())?.valueCosine).toBeGreaterThan(0.999);
    expect(await bank.prepare(6)).toBeUndefined();
    await bank.prepare(7);
    for (const variable of run.model.parameters.values()) tf.tidy(() => variable.assign(variable.square()));
    const drift = await bank.drift();
    expect(Math.min(drift!.keyCosine, drift!.valueCosine)).toBeLessThan(0.999);
    await bank.prepare(10);
    expect((await bank.prepare(11))?.text).toContain('all rewritten');
    expect((await bank.drift())?.keyCosine).toBeCloseTo(1, 5);
  });
});

describe('drift', () => {
  it('is not measured without a sample or a bank', async () => {
    await beginWith({ driftSample: 0 });
    await bank.prepare(1);
    expect(await bank.drift()).toBeUndefined();
    await beginWith({ driftSample: 3 });
    expect(await bank.drift()).toBeUndefined();
    await bank.prepare(1);
    expect(await bank.drift()).toMatchObject({ keptShare: 1 });
  });
});

describe('open', () => {
  it('goes back to the version of a checkpoint; what follows is written again, the same', async () => {
    await begin();
    await bank.prepare(1);
    const { version } = bank.bank;
    await bank.prepare(4);
    const { contentHash, size } = bank.bank;
    await bank.prepare(7);
    await openBank(version);
    expect([bank.bank.version, bank.bank.size]).toEqual([version, 6]);
    await bank.prepare(4);
    expect([bank.bank.contentHash, bank.bank.size]).toEqual([contentHash, size]);
  });

  it('keeps the versions that checkpoints name, and drops others', async () => {
    await begin();
    await bank.prepare(1);
    const kept = bank.bank.version;
    await bank.prepare(4);
    const dropped = bank.bank.version;
    await bank.prepare(7);
    await bank.prune([kept]);
    expect((await userErrorOf(openBank(dropped))).code).toBe('artefact_missing');
    expect((await openBank(kept)).bank.size).toBe(6);
  });

  it('says that nothing was compiled', async () => {
    const error = await userErrorOf(openBank());
    expect(error.code).toBe('artefact_missing');
    expect(error.message).toContain('memory3 compile');
  });
});

describe('age', () => {
  it('is the mean number of steps since each memory was written, also after a resume', async () => {
    await tearDown();
    await setUp({ refreshShare: 0.4 });
    await begin();
    /** The weights that wrote each memory, and the steps that they had made. */
    const written = new Map<string, { writer: string; step: number }>();
    const ages: number[] = [];
    for (let step = 1; step <= 17; step++) {
      // As from a checkpoint: versions that were read and what is stored with them.
      if (step === 9) await openBank(bank.bank.version, bank.written);
      await bank.prepare(step);
      for (const id of bank.bank.ids()) {
        const writer = bank.bank.writer(id);
        if (written.get(id)?.writer !== writer) written.set(id, { writer, step: step - 1 });
      }
      const sum = bank.bank.ids().reduce((total, id) => total + step - 1 - written.get(id)!.step, 0);
      expect(bank.age(step), `step ${step}`).toBeCloseTo(sum / bank.bank.size, 9);
      ages.push(bank.age(step)!);
      moveWeights();
    }
    expect(ages[0]).toBe(0);
    expect(Object.keys(bank.written).sort()).toEqual([...bank.bank.writers]);
    // It rises in between and falls with a refresh.
    expect(ages[4]).toBeGreaterThan(ages[3]!);
    expect(ages[5]).toBeLessThan(ages[4]!);
  });

  it('is not told of an empty bank, nor where it is not known who wrote it', async () => {
    await begin();
    expect(bank.age(1)).toBeUndefined();
    await bank.prepare(1);
    expect(bank.age(3)).toBe(2);
    await openBank(bank.bank.version);
    expect(bank.age(3)).toBeUndefined();
    expect(bank.written).toEqual({});
  });
});
