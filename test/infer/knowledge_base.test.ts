import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { faissAvailable } from '../../src/engine/native/faiss.ts';
import { KnowledgeBase, type SearchHit } from '../../src/index.ts';
import { lockRunFolder } from '../../src/io/run_folder.ts';
import { Bank } from '../../src/memory/bank.ts';
import { BankIndex } from '../../src/memory/bank_index.ts';
import { indexesOnDisk } from '../../src/memory/index_files.ts';
import { collect, userErrorOf } from '../data/support.ts';
import { filesOf } from '../memory/fixtures.ts';
import { randomRun, writeBank } from './random_run.ts';

let knowledge: KnowledgeBase;
beforeEach(async () => {
  const run = await randomRun({ continual: { steps: 1 } });
  await writeBank(run);
  run.model.dispose();
  knowledge = await KnowledgeBase.open(run.config);
});
afterEach(() => knowledge.close());

const texts = (hits: readonly SearchHit[]): string[] => hits.map(({ text }) => text);

describe('KnowledgeBase', () => {
  it('adds, finds, edits and deletes; each is seen at once', async () => {
    const { memories } = await knowledge.stats();
    const { ids } = await knowledge.add({ text: 'Quva has color rulo.', title: 'Quva', document: 'q' });
    expect(ids).toHaveLength(1);
    const [hit] = await knowledge.search('Quva has color');
    expect(hit).toMatchObject({ id: ids[0], document: 'q', title: 'Quva', text: 'Quva has color rulo.' });
    expect(hit?.score).toBeGreaterThan(0.5);
    const [edited = ''] = await knowledge.edit(ids[0]!, 'Quva has color nene.');
    expect(await knowledge.get(edited)).toMatchObject({ document: 'q', text: 'Quva has color nene.' });
    expect(texts(await knowledge.search('Quva has color'))).not.toContain('Quva has color rulo.');
    await knowledge.delete([edited]);
    expect(texts(await knowledge.search('Quva has color', { limit: 40 })).join()).not.toContain('Quva');
    expect((await userErrorOf(knowledge.get(edited))).code).toBe('memory_unknown');
    expect(await knowledge.stats()).toMatchObject({ memories, tombstones: 0, version: 4, versions: [0, 1, 2, 3, 4] });
  });

  it('searches without a model, in the order of similarity', async () => {
    const hits = await knowledge.search('bada has color', { limit: 4 });
    expect(hits).toHaveLength(4);
    expect(hits.map(({ score }) => score)).toEqual(hits.map(({ score }) => score).toSorted((a, b) => b - a));
    expect((await userErrorOf(knowledge.search(' '))).code).toBe('input_empty');
    expect((await userErrorOf(knowledge.search('x', { limit: 0 }))).code).toBe('usage_invalid');
  });

  it('lists what contains a text, and what belongs to a document', async () => {
    const [first] = await collect(knowledge.list());
    const ofDocument = await collect(knowledge.list({ document: first!.document }));
    expect(ofDocument).toEqual([first]);
    const containing = await collect(knowledge.list({ contains: first!.title.toUpperCase() }));
    expect(containing).toContainEqual(first);
    expect(await collect(knowledge.list({ contains: 'nowhere' }))).toEqual([]);
  });

  it('tells the size of a memory by the formula of the paper', async () => {
    const { memory, bytes, memories } = await knowledge.stats();
    const { memoryLayers, kvHeads, keptTokens, headDim } = memory;
    expect(memory.bytes).toBe(2 * memoryLayers * kvHeads * keptTokens * headDim * memory.bytesPerNumber);
    expect(bytes.rows).toBe(memories * memory.bytes);
    const files = await filesOf(knowledge.folder.bank);
    expect(bytes.folder).toBe([...files.values()].reduce((sum, hex) => sum + hex.length / 2, 0));
  });

  it('adds a file in one version, tells what it could not use, and reports progress', async () => {
    const path = join(knowledge.folder.root, 'more.jsonl');
    const lines = ['{"id": "n1", "text": "Nene has home Vovo."}', 'not JSON', '{"id": "n1", "text": "again"}'];
    writeFileSync(path, `${lines.join('\n')}\n{"id": "n2", "text": "Nini has home Vuvu."}\n`);
    const progress: number[] = [];
    const added = await knowledge.add({ path }, { onProgress: ({ memories }) => progress.push(memories) });
    expect(await Promise.all(added.ids.map(async (id) => (await knowledge.get(id)).document))).toEqual(['n1', 'n2']);
    expect(added.documents.skipped).toEqual({ 'invalid JSON': 1, 'duplicate id': 1 });
    expect(progress.at(-1)).toBe(2);
    expect((await knowledge.stats()).version).toBe(2);
  });

  it('refuses what it cannot do and leaves the bank as it was', async () => {
    const before = await filesOf(knowledge.folder.bank);
    const [first] = await collect(knowledge.list());
    const path = join(knowledge.folder.root, 'empty.jsonl');
    writeFileSync(path, '{"text": " "}\n');
    const refused: [string, Promise<unknown>][] = [
      ['input_empty', knowledge.add({ text: ' \n' })],
      ['input_empty', knowledge.edit(first!.id, '')],
      ['memory_unknown', knowledge.edit('', 'x')],
      ['memory_unknown', knowledge.delete([first!.id, '../x'])],
    ];
    for (const [code, action] of refused) expect((await userErrorOf(action)).code).toBe(code);
    expect((await userErrorOf(knowledge.add({ path }))).code).toBe('input_empty');
    expect((await userErrorOf(knowledge.add({ path: `${path}.not` }))).code).toBe('input_missing');
    expect(await filesOf(knowledge.folder.bank)).toEqual(before);
  });

  it('cuts a text that is too long for one memory', async () => {
    const text = Array.from({ length: 12 }, (_, i) => `Sentence ${i} has color blo.`).join(' ');
    const { ids } = await knowledge.add({ text });
    expect(ids.length).toBeGreaterThan(2);
    const memories = await Promise.all(ids.map((id) => knowledge.get(id)));
    expect(memories.map((memory) => memory.text).join(' ')).toBe(text);
    for (const { tokens } of memories) expect(tokens.length).toBeLessThanOrEqual(24);
  });

  it('builds on what another process changed meanwhile, and not while it does', async () => {
    const other = await KnowledgeBase.open(knowledge.config);
    const { ids } = await other.add({ text: 'Quva has color rulo.' });
    const lock = await lockRunFolder(knowledge.folder.root);
    expect((await userErrorOf(knowledge.add({ text: 'Riri has color sa.' }))).code).toBe('run_locked');
    lock.release();
    await knowledge.add({ text: 'Riri has color sa.' });
    expect((await knowledge.get(ids[0]!)).text).toBe('Quva has color rulo.');
    await other.close();
  });

  it('exports references as JSON lines', async () => {
    const path = join(knowledge.folder.root, 'out.jsonl');
    const all = await collect(knowledge.list());
    expect(await knowledge.export(path)).toBe(all.length);
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    expect(lines.map((text) => JSON.parse(text))).toEqual(all);
  });

  it('compacts so that deleted text is in no file of the bank', async () => {
    const [first, second] = await collect(knowledge.list());
    const hex = (text: string): string => Buffer.from(text).toString('hex');
    const isThere = async (text: string): Promise<boolean> =>
      [...(await filesOf(knowledge.folder.bank)).values()].some((bytes) => bytes.includes(hex(text)));
    await knowledge.delete([first!.id]);
    expect([await isThere(first!.text), await isThere(second!.text)]).toEqual([true, true]);
    const { before, after } = await knowledge.compact();
    expect(after).toBeLessThan(before);
    expect([await isThere(first!.text), await isThere(second!.text)]).toEqual([false, true]);
    expect(await knowledge.verify()).toEqual([]);
    expect(await knowledge.stats()).toMatchObject({ version: 3, memories: 29 });
    const { config } = knowledge;
    const unfinished = await KnowledgeBase.open({ ...config, continual: { ...config.continual, steps: 5 } });
    expect((await userErrorOf(unfinished.compact())).message).toContain('step 1 of 5');
    await unfinished.close();
  });

  it.runIf(faissAvailable().ok)('makes the index anew that compacting took away, as it was tuned', async () => {
    const folder = knowledge.folder.bank;
    const bank = await Bank.open(folder);
    const tuned = { factory: 'HNSW8', parameters: { efSearch: 33 }, reason: 'tuned' };
    const index = await BankIndex.build(bank, tuned);
    await index!.save();
    await index!.close();
    await bank.close();
    const [first] = await collect(knowledge.list());
    await knowledge.delete([first!.id]);
    const before = await indexesOnDisk(folder);
    await knowledge.compact();
    const after = await indexesOnDisk(folder);
    expect(after).toHaveLength(1);
    expect(after).not.toEqual(before);
    expect(await BankIndex.specIn(folder)).toEqual(tuned);
    expect(texts(await knowledge.search(first!.text, { limit: 30 }))).not.toContain(first!.text);
  });
});
