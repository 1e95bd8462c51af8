import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { BankAnswer, FoundMemory, MemoryDetail } from '../../src/dashboard/api.ts';
import { piecesOf } from '../../src/dashboard/pieces.ts';
import { Search } from '../../src/dashboard/word_search.ts';
import { Bank } from '../../src/memory/bank.ts';
import { factTexts, flipBit, smallTokenizer } from '../data/support.ts';
import { batch, IDENTITY, LAYOUT, memory, range } from '../memory/fixtures.ts';
import { makeRun, rowsOf, serve, temporaryFolder } from './support.ts';

async function servedBank() {
  const runs = temporaryFolder();
  const retrievals = {
    type: 'retrievals',
    chunks: [
      { text: 'one', memories: [{ id: 'm3', score: 0.5 }, { id: 'm4' }] },
      { text: 'two', memories: [{ id: 'm4' }] },
    ],
  };
  const continual = rowsOf(6).map((row) =>
    Number(row.step) % 3 === 0 ? { ...row, 'memory/retrievals': retrievals } : row,
  );
  const { root } = makeRun(runs, 'a', { warmup: rowsOf(10), continual });
  const bank = join(root, 'bank');
  const writer = await Bank.create(bank, IDENTITY, { segmentMemories: 8 });
  await writer.append([batch(range(0, 20))], 'w1');
  const dashboard = await serve(runs);
  return { runs, root, bank, writer, dashboard };
}

const tokenizerIn = async (root: string) => {
  const folder = temporaryFolder();
  const tokenizer = await smallTokenizer(folder);
  mkdirSync(join(root, 'data'));
  renameSync(join(folder, 'tokenizer-400.json'), join(root, 'data', 'tokenizer.json'));
  return tokenizer;
};

describe('the memories of a run', () => {
  it('are described, listed, found by words and shown with what they kept', async () => {
    const { dashboard, root } = await servedBank();
    await tokenizerIn(root);
    const bank = await dashboard.json<BankAnswer>('/api/runs/a/bank');
    expect(bank).toMatchObject({ memories: 20, layout: LAYOUT, encoder: { kind: 'test' } });
    expect(bank.segments.map(({ memories, writer }) => [memories, writer])).toEqual([
      [8, 'w1'],
      [8, 'w1'],
      [4, 'w1'],
    ]);
    const first = await dashboard.json<FoundMemory[]>('/api/runs/a/memories?limit=10');
    expect(first.map(({ id }) => id)).toEqual(range(0, 10).map((number) => `m${number}`));
    const found = await dashboard.json<FoundMemory[]>('/api/runs/a/memories?text=of%2014&limit=3');
    expect(found[0]).toMatchObject({ id: 'm14', text: memory(14).record.text, title: 'Título 14 記憶' });
    expect(found[0]!.score).toBeGreaterThan(found[1]!.score!);
    const detail = await dashboard.json<MemoryDetail>('/api/runs/a/memories/m4');
    expect(detail).toMatchObject({ id: 'm4', span: [4, 14], writer: 'w1' });
    expect(detail.pieces).toHaveLength(memory(4).record.tokens.length);
    expect(detail.kept).toEqual(Array(2).fill(Array(2).fill([0, 1, 2])));
    expect(detail.retrieved).toEqual({
      ...{ count: 4, recordedChunks: 4 },
      chunks: [13, 16].flatMap((step) => [
        { step, text: 'one' },
        { step, text: 'two' },
      ]),
    });
    expect((await dashboard.json<MemoryDetail>('/api/runs/a/memories/m3')).retrieved.chunks[0]).toEqual({
      step: 13,
      text: 'one',
      score: 0.5,
    });
    expect((await dashboard.get('/api/runs/a/memories/nothing')).status).toBe(404);
  });

  it('are found while others ask for what is not there; what is wrong with a run is no defect', async () => {
    const { dashboard } = await servedBank();
    const questions = ['memories/nothing', 'memories?text=text', 'memories/nothing', 'bank', 'memories?text=text'];
    const answers = await Promise.all(questions.map((question) => dashboard.get(`/api/runs/a/${question}`)));
    expect(answers.map(({ status }) => status)).toEqual([404, 200, 404, 200, 200]);
    const without = await dashboard.get('/api/runs/a/memories/m4');
    expect([without.status, await without.text()]).toEqual([409, expect.stringContaining('no tokenizer.json')]);
  });

  it('are those of the version that is current, without what was deleted', async () => {
    const { dashboard, writer } = await servedBank();
    const before = await dashboard.json<BankAnswer>('/api/runs/a/bank');
    await writer.append([batch([50])], 'w2');
    await writer.delete(['m0']);
    const after = await dashboard.json<BankAnswer>('/api/runs/a/bank');
    expect(after.memories).toBe(20);
    expect(after.version).toBeGreaterThan(before.version);
    const all = await dashboard.json<FoundMemory[]>('/api/runs/a/memories?limit=100');
    expect(all.map(({ id }) => id)).toEqual([...range(1, 20), 50].map((number) => `m${number}`));
    expect((await dashboard.get('/api/runs/a/memories/m0')).status).toBe(404);
  });

  it('of a damaged bank, or one that leads elsewhere, are refused for that run alone', async () => {
    const { dashboard, bank, root } = await servedBank();
    const { segments } = await dashboard.json<BankAnswer>('/api/runs/a/bank');
    flipBit(join(bank, `segment-${segments[0]!.name}`, 'memories.arrow'), 600);
    const response = await dashboard.get('/api/runs/a/memories?text=text');
    expect(response.status).toBe(409);
    expect(await response.text()).not.toContain(root);
    writeFileSync(join(bank, 'CURRENT'), 'x');
    expect((await dashboard.get('/api/runs/a/bank')).status).toBe(409);
    const elsewhere = temporaryFolder();
    renameSync(bank, join(elsewhere, 'bank'));
    symlinkSync(join(elsewhere, 'bank'), bank);
    const outside = await dashboard.get('/api/runs/a/bank');
    expect(outside.status).toBe(409);
    expect(await outside.text()).not.toContain(elsewhere);
    expect((await dashboard.get('/api/runs')).status).toBe(200);
  });
});

describe('the pieces of a text', () => {
  it('are its tokens; characters of several tokens come whole', async () => {
    const root = temporaryFolder();
    const tokenizer = await tokenizerIn(root);
    for (const text of [factTexts(3)[2]!, 'naïve 記憶 🧠 — “hé”', ' a  b\n']) {
      const tokens = [...(await tokenizer.encode(text))];
      const pieces = await piecesOf(join(root, 'data', 'tokenizer.json'), root, tokens);
      expect(pieces).toHaveLength(tokens.length);
      expect(pieces.join('')).toBe(text);
      expect(pieces.join('')).not.toContain('\uFFFD');
    }
  });
});

describe('the search by words', () => {
  const ranked = (question: string, texts: [title: string, text: string][], limit = 10) => {
    const search = new Search(question, limit);
    for (const [title, text] of texts) search.offer(title, text, () => ({ id: text, document: '', title, text }));
    return search.found().map(({ text }) => text);
  };

  it('ranks by words found, then the phrase, the title and how often', () => {
    const texts: [string, string][] = [
      ['', 'a cat'],
      ['', 'the dog and the cat'],
      ['', 'the cat dog'],
      ['cat dog', 'about'],
      ['', 'nothing'],
    ];
    const order = ranked('Cat dog', texts);
    expect(order).toEqual(['about', 'the cat dog', 'the dog and the cat', 'a cat']);
    expect(
      ranked('cat', [
        ['', 'concatenate'],
        ['', 'my cat'],
        ['', 'cat, cat'],
      ]),
    ).toEqual(['cat, cat', 'my cat', 'concatenate']);
    expect(
      ranked('記憶', [
        ['', 'x'],
        ['', '長期記憶'],
      ]),
    ).toEqual(['長期記憶']);
    expect(
      ranked(
        '!?',
        [
          ['', 'x'],
          ['', 'y'],
        ],
        1,
      ),
    ).toEqual(['x']);
  });

  it('keeps only as many as are asked for, the first of equals', () => {
    const texts = range(0, 1000).map((i) => ['', `word ${i}`] as [string, string]);
    expect(ranked('word', texts, 3)).toEqual(['word 0', 'word 1', 'word 2']);
  });
});
