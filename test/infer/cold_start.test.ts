/** Answers from references that are written when they are first found. */

import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { dataPaths } from '../../src/data/paths.ts';
import * as tf from '../../src/engine/tf.ts';
import { KnowledgeBase } from '../../src/index.ts';
import { type Answer, generate } from '../../src/infer/generate.ts';
import { Session } from '../../src/infer/session.ts';
import { lockRunFolder } from '../../src/io/run_folder.ts';
import { Bank } from '../../src/memory/bank.ts';
import { Model } from '../../src/model/model.ts';
import { userErrorOf } from '../data/support.ts';
import { fact, type RandomRun, randomRun, writeBank } from './random_run.ts';

let run: RandomRun;
let session: Session;
let said: string[];
afterEach(() => session.close());

/** A run with `count` of its references in the bank. */
async function start(count = 0, changes: Record<string, object> = {}): Promise<void> {
  run = await randomRun({ continual: { steps: 1 }, ...changes });
  await writeBank(run, count);
  run.model.dispose();
  await open();
}

async function open(): Promise<void> {
  session = await Session.open(run.config, run.folder);
  said = [];
  await session.startCold({ say: (line) => said.push(line) });
}

async function reopen(): Promise<void> {
  await session.close();
  await open();
}

// Longer than a chunk, so that several chunks retrieve.
const PROMPT = `${fact(0).text} ${fact(7).text} ${fact(13).text.slice(0, 9)}`;

async function answer(prompt = PROMPT): Promise<Answer> {
  return await generate(session, prompt, { maxTokens: 12, temperature: 0, topP: 1, stop: [], seed: 1, memory: true });
}

const idsOf = ({ trace }: Answer): string[] => [
  ...new Set(trace.flatMap(({ memories }) => memories.map(({ id }) => id))),
];

describe('a cold start', () => {
  it('writes the references that an answer finds, in one version and one segment, and finds them the next time', async () => {
    await start();
    const first = await answer();
    expect(first.trace.length).toBeGreaterThan(3);
    expect(idsOf(first).length).toBeGreaterThan(3);
    expect(first.stored.toSorted()).toEqual(idsOf(first).toSorted());
    expect(session.bank.ids().toSorted()).toEqual(idsOf(first).toSorted());
    expect([session.bank.version, session.bank.segments.length]).toEqual([1, 1]);
    expect(said).toEqual([`cold start: ${first.stored.length} references written, bank version 1`]);
    await session.bank.verify();

    await reopen();
    const second = await answer();
    expect(second).toEqual({ ...first, stored: [] });
    expect(session.bank.version).toBe(1);
    expect(said).toEqual([]);
  });

  it('answers as from a bank that holds everything', async () => {
    await start();
    const cold = [await answer(), await answer(fact(4).text), await answer(fact(19).text)];
    await session.close();
    await start(30);
    const warm = [await answer(), await answer(fact(4).text), await answer(fact(19).text)];
    expect(warm.map(idsOf)).toEqual(cold.map(idsOf));
    expect(warm.map(({ text }) => text)).toEqual(cold.map(({ text }) => text));
    expect(warm.every(({ stored }) => stored.length === 0)).toBe(true);
  });

  it('finds what was added to the bank beside the references', async () => {
    await start(3);
    const knowledge = await KnowledgeBase.open(run.config);
    // The words of one chunk of the question: no reference is more like it.
    const text = fact(0).text.split(' ').slice(0, 3).join(' ');
    const { ids } = await knowledge.add({ text, document: 'x' });
    await knowledge.close();
    await reopen();
    expect(idsOf(await answer())).toContain(ids[0]);
  });

  it('leaves no tensors behind and answers nothing', async () => {
    await start();
    await answer();
    const { numTensors } = tf.memory();
    await answer(fact(20).text);
    await answer('');
    expect(tf.memory().numTensors).toBe(numTensors);
  });

  it('does not bring back what was deleted or edited, until it is added again', async () => {
    await start();
    const first = await answer();
    const [gone = '', changed = ''] = first.stored;
    const knowledge = await KnowledgeBase.open(run.config);
    const { text: deletedText, document } = await knowledge.get(gone);
    await knowledge.delete([gone]);
    const [edited] = await knowledge.edit(changed, 'Something else entirely.');
    await knowledge.compact();
    await reopen();
    const second = await answer();
    expect(idsOf(second)).not.toContain(gone);
    expect(idsOf(second)).not.toContain(changed);
    expect(session.bank.has(edited!)).toBe(true);
    expect(session.bank.has(gone)).toBe(false);

    const { ids } = await knowledge.add({ text: deletedText, document });
    expect(ids).toEqual([gone]);
    await knowledge.close();
    await reopen();
    expect(idsOf(await answer())).toContain(gone);
    expect(readFileSync(join(run.folder.bank, 'withdrawn.json'), 'utf8')).not.toContain(gone);
  });

  it('sees a deletion that another process makes while the session is open', async () => {
    await start();
    const first = await answer();
    const knowledge = await KnowledgeBase.open(run.config);
    await knowledge.delete([first.stored[0]!]);
    await knowledge.close();
    const other = await answer(fact(25).text);
    expect(other.stored.length).toBeGreaterThan(0);
    expect(idsOf(await answer())).not.toContain(first.stored[0]);
  });

  it('goes on with a bank that another process made anew, with another encoder', async () => {
    await start();
    await answer();
    rmSync(run.folder.bank, { recursive: true });
    const config = { ...run.config, retrieval: { ...run.config.retrieval, dimensions: 64 } };
    const model = new Model(session.model.shape, new Map(await session.model.weights()));
    await writeBank({ ...run, config, model }, 2);
    model.dispose();
    await session.openBank();
    const { stored } = await answer();
    expect(stored.length).toBeGreaterThan(0);
    expect(session.bank.size).toBe(2 + stored.length);
    expect(session.bank.identity.encoder.dimensions).toBe(64);
  });

  it('uses what it cannot store, says so once, and stores it when it can', async () => {
    await start();
    const lock = await lockRunFolder(run.folder.root);
    const first = await answer();
    await answer(fact(20).text);
    expect(first.stored).toEqual([]);
    expect(idsOf(first).length).toBeGreaterThan(3);
    expect(said).toEqual([expect.stringMatching(/^what is written is used and not stored: .*in use by process/)]);
    expect(session.bank.size).toBe(0);
    lock.release();
    const again = await answer();
    expect({ ...again, stored: [] }).toEqual(first);
    expect(again.stored).toEqual(expect.arrayContaining(idsOf(first)));
  });

  it('keeps the vectors of the references beside them, and makes them anew when they are damaged', async () => {
    await start();
    const path = join(dataPaths(run.folder.data).references, 'vectors.bin');
    const found = idsOf(await answer());
    expect(readFileSync(path)).toHaveLength(30 * 128 * 4);
    const { mtimeMs } = statSync(path);
    await reopen();
    expect(statSync(path).mtimeMs).toBe(mtimeMs);
    const whole = readFileSync(path);
    for (const damaged of [whole.subarray(1), Buffer.concat([whole, whole]), Buffer.from(whole).fill(7, 0, 9)]) {
      writeFileSync(path, damaged);
      await reopen();
      expect(readFileSync(path).equals(whole)).toBe(true);
      expect(idsOf(await answer())).toEqual(found);
    }
    expect(readdirSync(dataPaths(run.folder.data).references).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('reads what stands in front of a reference in its document', async () => {
    await start(0, { memory: { contextTokens: 8 } });
    const { stored } = await answer();
    expect(stored.length).toBeGreaterThan(0);
  });

  it('refuses an encoder of memories', async () => {
    await start();
    const identity = session.bank.identity;
    await session.close();
    const folder = join(run.folder.root, 'keys');
    const { memoryLayers, kvHeads, headDim } = identity.layout;
    const dimensions = memoryLayers * kvHeads * headDim;
    const encoder = { dimensions, description: { kind: 'keys', dimensions }, state: new Uint8Array(0) };
    await Bank.create(folder, { ...identity, encoder });
    session = await Session.open(run.config, run.folder);
    await session.openBank(folder);
    const error = await userErrorOf(session.startCold());
    expect(error.code).toBe('config_invalid');
    expect(error.message).toMatch(/keys searches what is inside memories\n.*memory3 compile/);
  });
});

describe('KnowledgeBase', () => {
  it('finds references that the bank does not hold, and stores those that it gives', async () => {
    await start();
    const knowledge = await KnowledgeBase.open(run.config);
    const text = fact(11).text;
    expect(await knowledge.search(text)).toEqual([]);
    const hits = await knowledge.search(text, { limit: 2, cold: true });
    expect(hits.map((hit) => hit.text)).toContain(text);
    expect(await knowledge.search(text)).toEqual(hits.map((hit) => ({ ...hit, score: expect.closeTo(hit.score, 5) })));
    expect(await knowledge.stats()).toMatchObject({ memories: 2, version: 1 });
    await knowledge.delete([hits[0]!.id]);
    expect((await knowledge.search(text, { limit: 2, cold: true })).map(({ id }) => id)).not.toContain(hits[0]!.id);
    await knowledge.close();
  });
});
