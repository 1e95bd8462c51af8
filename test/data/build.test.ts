import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type BuildProgress, buildData, type DataReport } from '../../src/data/build.ts';
import { inspectData, verifyData } from '../../src/data/inspect.ts';
import { dataPaths } from '../../src/data/paths.ts';
import { ReferenceDataset } from '../../src/data/references.ts';
import type { SourceReport } from '../../src/data/report.ts';
import { type Split, TokenDataset } from '../../src/data/token_dataset.ts';
import { Tokenizer } from '../../src/data/tokenizer.ts';
import { diskFullFrom } from '../io/faults.ts';
import {
  dataConfig,
  factTexts,
  flipBit,
  memoryConfig,
  smallTokenizer,
  source,
  temporaryFolder,
  userErrorOf,
} from './support.ts';

/** A corpus of 120 documents with two bad rows, and 30 references, beside a data folder that is not there yet. */
function project(fields: object = {}) {
  const folder = temporaryFolder();
  const corpus = join(folder, 'corpus.jsonl');
  const rows = factTexts(120).map((text, i) => JSON.stringify({ id: `d${i}`, text }));
  writeFileSync(corpus, [...rows, '{"text":', '{"id":"e","text":""}'].join('\n'));
  const facts = join(folder, 'facts.jsonl');
  const references = factTexts(30).map((text, i) => JSON.stringify({ id: `r${i}`, title: `Fact ${i}`, text }));
  writeFileSync(facts, references.join('\n'));
  const config = dataConfig({
    sources: [{ path: corpus }],
    references: [{ path: facts }],
    tokenizer: { vocabSize: 400 },
    sequenceLength: 64,
    validationShare: 0.1,
    ...fields,
  });
  return { folder, corpus, data: join(folder, 'data'), config };
}

/** Documents or tokens of all sources in a split. */
const total = (sources: readonly SourceReport[], split: Split, of: 'documents' | 'tokens') =>
  sources.reduce((sum, source) => sum + source[split][of], 0);

const memory = memoryConfig({ referenceTokens: 12 });

describe('buildData', () => {
  it('makes tokenizer, tokens of both splits and references', async () => {
    const { data, config, folder, corpus } = project();
    const progress: BuildProgress[] = [];
    const report = await buildData(config, memory, data, 1, (p) => progress.push(p));
    expect(report).toMatchObject({ kept: false, reason: 'not built before', folder: data });
    expect(report.tokenizer).toMatchObject({ vocabSize: 400, trained: true });
    expect(report.warnings).toEqual([
      'not everything could be read: 1 × invalid JSON; `memory3 data report` says where',
    ]);
    const { sources } = report;
    expect(total(sources, 'train', 'documents') + total(sources, 'validation', 'documents')).toBe(120);
    expect(total(sources, 'validation', 'documents')).toBeGreaterThan(3);
    expect(sources[0]).toMatchObject({ name: corpus, files: 1, documents: 120, dropped: {} });
    expect(sources[0]?.skipped).toEqual({ 'invalid JSON': 1, 'empty text': 1 });
    expect(report.references.counters.documents).toBe(30);
    expect(report.references.references).toBeGreaterThan(30);
    expect([...new Set(progress.map(({ phase }) => phase))]).toEqual([
      'documents',
      'tokenizer',
      'merges',
      'tokens',
      'references',
    ]);
    for (const p of progress) expect(p.bytes).toBeLessThanOrEqual(p.totalBytes);

    const tokenizer = await Tokenizer.load(dataPaths(data).tokenizer);
    const options = { tokenizerHash: tokenizer.hash };
    const texts: string[] = [];
    for (const split of ['train', 'validation'] as const) {
      const tokens = await TokenDataset.open(dataPaths(data).tokens, split, options);
      const decoded = await tokenizer.decode(await tokens.window(0, tokens.numTokens));
      expect(decoded.startsWith('<s>')).toBe(true);
      texts.push(...decoded.split('<s>').slice(1));
    }
    expect(texts.sort()).toEqual(factTexts(120).sort());
    expect((await ReferenceDataset.open(dataPaths(data).references, options)).size).toBe(report.references.references);
    await verifyData(data);
    expect(readdirSync(folder).sort()).toEqual(['corpus.jsonl', 'data', 'facts.jsonl']);
  });

  it('is the same bytes for the same inputs', async () => {
    const { folder, config } = project();
    const [a, b] = [join(folder, 'a'), join(folder, 'b')];
    const hashes = [await buildData(config, memory, a, 1), await buildData(config, memory, b, 1)].map(
      (r) => r.contentHash,
    );
    expect(hashes[0]).toBe(hashes[1]);
    const files = (root: string) => {
      const names = readdirSync(root, { recursive: true, withFileTypes: true }).filter(
        (entry) => entry.isFile() && entry.name !== 'build.json',
      );
      return names.map(({ name, parentPath }) => [name, readFileSync(join(parentPath, name), 'utf8')]).sort();
    };
    expect(files(a)).toEqual(files(b));
    expect((await buildData(config, memory, join(folder, 'c'), 2)).contentHash).not.toBe(hashes[0]);
  });

  it('keeps what is complete, and says why it builds anew', async () => {
    const { data, config, corpus } = project();
    const first = await buildData(config, memory, data, 1);
    const again = () => buildData(config, memory, data, 1);
    expect(await again()).toMatchObject({ kept: true, contentHash: first.contentHash, sources: first.sources });
    utimesSync(corpus, new Date(0), new Date(0));
    expect(await again()).toMatchObject({ kept: true });

    const smaller = dataConfig({ ...config, tokenizer: { vocabSize: 300 } });
    const rebuilt = await buildData(smaller, memory, data, 1);
    expect(rebuilt).toMatchObject({ kept: false, reason: 'data.tokenizer.vocabSize changed from 400 to 300' });
    expect((await Tokenizer.load(dataPaths(data).tokenizer)).vocabSize).toBe(300);

    const longer = { ...config, sequenceLength: 32 };
    await again();
    expect(await userErrorOf(buildData({ ...config, strict: true }, memory, data, 1))).toMatchObject({
      code: 'input_invalid',
    });
    expect(await again()).toMatchObject({ kept: true });
    expect(await buildData(longer, memory, data, 1)).toMatchObject({ kept: true });
    writeFileSync(corpus, `${readFileSync(corpus, 'utf8')}\n{"text":"one more"}`);
    expect((await again()).reason).toBe(`${corpus} is another file than before`);
    truncateSync(join(dataPaths(data).references, 'references.arrow'), 500);
    const repaired = await again();
    expect(repaired.kept).toBe(false);
    expect(repaired.reason).toContain('references.arrow');
    expect(await again()).toMatchObject({ kept: true });
    rmSync(dataPaths(data).build);
    expect(await again()).toMatchObject({ kept: false, reason: 'not built before' });
  });

  it('takes a given tokenizer as it is', async () => {
    const folder = temporaryFolder();
    const given = await smallTokenizer(folder, 320);
    const { data, config } = project({ tokenizer: { path: join(folder, 'tokenizer-320.json') } });
    const report = await buildData(config, memory, data, 1);
    expect(report.tokenizer).toEqual({ hash: given.hash, vocabSize: 320, trained: false });
  });

  it('refuses a given tokenizer that is of no use before it reads text', async () => {
    const { data, config, folder } = project();
    await smallTokenizer(folder, 320);
    const path = join(folder, 'tokenizer-320.json');
    const noBegin = join(folder, 'no-begin.json');
    writeFileSync(noBegin, readFileSync(path, 'utf8').replaceAll('"<s>"', '"<x>"'));
    const progress: BuildProgress[] = [];
    const build = (tokenizer: object) =>
      userErrorOf(buildData(dataConfig({ ...config, tokenizer }), memory, data, 1, (now) => progress.push(now)));
    for (const given of [{ path: noBegin }, { extend: noBegin }]) {
      const error = await build(given);
      expect(error).toMatchObject({ code: 'input_invalid', message: expect.stringContaining(noBegin) });
    }
    expect(await build({ extend: path, vocabSize: 300 })).toMatchObject({ code: 'config_invalid' });
    expect(progress).toEqual([]);
  });

  it('refuses text of stage two or of the tokenizer without a document, and tells what of it was not read', async () => {
    const { data, config, folder, corpus } = project();
    const gone = source(join(folder, 'gone.txt'));
    for (const fields of [{ continual: { sources: [gone] } }, { tokenizer: { sources: [gone] } }]) {
      const error = await userErrorOf(buildData(dataConfig({ ...config, ...fields }), memory, data, 1));
      expect(error).toMatchObject({ code: 'input_missing', message: expect.stringContaining('gone.txt') });
    }
    const partly = dataConfig({ ...config, tokenizer: { vocabSize: 400, sources: [gone, source(corpus)] } });
    const { warnings, examples } = await buildData(partly, memory, data, 1);
    const unread = 'not everything of `data.tokenizer.sources` could be read: 1 × no such file, 1 × invalid JSON';
    expect(warnings).toContain(unread);
    expect(examples).toContainEqual(expect.objectContaining({ reason: 'no such file', path: gone.path }));
  });

  it('trains the tokenizer on a sample', async () => {
    const { data, config } = project({ tokenizer: { vocabSize: 8192, sampleBytes: 3000 } });
    const report = await buildData(config, memory, data, 1);
    const whole = await buildData(dataConfig({ ...config, tokenizer: { vocabSize: 8192 } }), memory, data, 1);
    expect(report.tokenizer.vocabSize).toBeGreaterThan(270);
    expect(report.tokenizer.vocabSize).toBeLessThan(whole.tokenizer.vocabSize);
    expect(whole.warnings[0]).toContain(`${whole.tokenizer.vocabSize} tokens, not 8192`);
  });

  it('refuses to build from nothing, and leaves nothing behind', async () => {
    const { folder, data, config, corpus } = project();
    const build = (fields: object) => userErrorOf(buildData({ ...config, ...fields }, memory, data, 1));
    expect(await build({ sources: [] })).toMatchObject({ code: 'config_invalid' });
    const wrongField = await build(dataConfig({ sources: [{ path: corpus, textField: 'body' }] }));
    expect(wrongField.code).toBe('input_empty');
    expect(wrongField.message).toMatch(/121 × no text field.*no string "body"; fields: id, text/s);
    const gone = await build(dataConfig({ sources: [{ path: join(folder, 'gone') }] }));
    expect(gone).toMatchObject({ code: 'input_missing', message: expect.stringContaining('1 × no such file') });
    const strict = dataConfig({ sources: [{ path: join(folder, 'gone') }, { path: corpus }], strict: true });
    expect(await build(strict)).toMatchObject({ code: 'input_missing' });
    expect(await build(dataConfig({ ...config, strict: true }))).toMatchObject({ code: 'input_invalid' });
    const noTokenizer = dataConfig({ ...config, tokenizer: { path: join(folder, 'gone.json') } });
    expect(await build(noTokenizer)).toMatchObject({ code: 'input_missing' });
    expect(readdirSync(folder).sort()).toEqual(['corpus.jsonl', 'facts.jsonl']);
  });

  it('tells a full disk at whatever write, and goes on when there is space', async () => {
    const { data, config } = project({ tokenizer: { vocabSize: 300 } });
    const { contentHash } = await buildData(config, memory, `${data}-whole`, 1);
    let last: DataReport | undefined;
    for (let at = 1; !last; at += 2) {
      const { full, error } = await diskFullFrom(at, async () => {
        last = await buildData(config, memory, data, 1);
      });
      if (full) expect(error).toMatchObject({ code: 'disk_full' });
      else if (error !== undefined) throw error;
    }
    expect(last.contentHash).toBe(contentHash);
  });

  it('counts a file that cannot be read', async () => {
    const { folder, data, config, corpus } = project();
    const unreadable = join(folder, 'memory.txt');
    symlinkSync('/proc/self/mem', unreadable);
    const report = await buildData({ ...config, sources: [source(corpus), source(unreadable)] }, memory, data, 1);
    expect(report.sources[1]).toMatchObject({ name: unreadable, skipped: { 'cannot be opened': 1 } });
    expect(
      await buildData({ ...config, sources: report.sources.map(({ name }) => source(name)) }, memory, data, 1),
    ).toMatchObject({ kept: true });
  });

  it('warns of splits that do not fill a sequence', async () => {
    const { data, config } = project({ sequenceLength: 100_000 });
    const { warnings } = await buildData(config, memory, data, 1);
    expect(warnings).toEqual([
      expect.stringContaining('training tokens'),
      expect.stringContaining('validation tokens'),
      expect.stringContaining('not everything could be read'),
    ]);
  });
});

describe('a build in many shards', () => {
  /** Three sources with repeated, nearly repeated and bad texts, in shards of a few documents. */
  function manyShards(fields: object = {}) {
    const made = project();
    const long = (i: number) =>
      factTexts(400)
        .slice(8 * i, 8 * i + 8)
        .join(' ');
    const rows = Array.from({ length: 40 }, (_, i) => ({ id: `l${i}`, url: `https://x.org/${i}`, text: long(i) }));
    const copies = [3, 9, 30].map((i) => ({ text: `${long(i)} ` }));
    const near = [5, 12].map((i) => ({ text: long(i).replace('people say', 'many people say') }));
    const lines = (all: object[]) => all.map((row) => JSON.stringify(row)).join('\n');
    writeFileSync(
      join(made.folder, 'b.jsonl'),
      lines([...rows, ...copies, { text: '1 2 3 4 5 6 7 8 9 + - *' }, ...near]),
    );
    writeFileSync(join(made.folder, 'c.txt'), long(41));
    const config = dataConfig({
      ...made.config,
      sources: [
        { path: made.corpus, name: 'facts', weight: 1 },
        { path: join(made.folder, 'b.jsonl'), name: 'long', weight: 3 },
        { path: join(made.folder, 'c.txt'), name: 'long', weight: 3 },
      ],
      cleaning: { maxNonAlphabetic: 0.5 },
      deduplication: { exact: true, near: true },
      shardBytes: 2048,
      ...fields,
    });
    return { ...made, config };
  }

  it('drops what the rules and earlier documents say, and tells it', async () => {
    const { data, config, folder } = manyShards();
    const report = await buildData(config, memory, data, 1);
    const [facts, long] = report.sources;
    expect(report.sources).toHaveLength(2);
    expect(facts?.dropped).toEqual({});
    const bytes = expect.any(Number);
    expect(long).toMatchObject({ name: 'long', files: 2, documents: 47 });
    expect(long?.dropped).toEqual({
      duplicate: { documents: 3, bytes },
      'near duplicate': { documents: 2, bytes },
      'too few letters': { documents: 1, bytes },
    });
    const details = report.examples.map(({ reason, detail }) => [reason, detail]);
    expect(details).toContainEqual(['duplicate', 'the same as l3']);
    expect(details).toContainEqual(['near duplicate', expect.stringMatching(/^0\.\d\d the same as l12$/)]);
    const tokenizer = await Tokenizer.load(dataPaths(data).tokenizer);
    const tokens = await TokenDataset.open(dataPaths(data).tokens, 'train');
    expect(tokens.shards.length).toBeGreaterThan(8);
    expect(tokens.segments.map(({ name }) => name)).toEqual(['facts', 'long']);
    const decoded = await tokenizer.decode(await tokens.window(0, tokens.numTokens));
    expect(decoded.split('<s>')).toHaveLength(1 + total(report.sources, 'train', 'documents'));
    expect((await verifyData(data)).files).toBeGreaterThan(8);
    expect(readdirSync(folder).sort()).toEqual(['b.jsonl', 'c.txt', 'corpus.jsonl', 'data', 'facts.jsonl']);
    expect(report.stages.map(({ stage }) => stage)).toEqual(['documents', 'tokenizer', 'tokens', 'references']);
  });

  it('is the same with any number of workers, and goes on where it was stopped', async () => {
    const { data, config, folder } = manyShards({ workers: 1 });
    const whole = await buildData(config, memory, data, 1);
    expect((await buildData({ ...config, workers: 2 }, memory, join(folder, 'two'), 1)).contentHash).toBe(
      whole.contentHash,
    );
    const places = [
      { phase: 'documents', done: 150 },
      { phase: 'tokenizer', done: 3 },
      { phase: 'tokens', done: 7 },
      { phase: 'references', done: 0 },
    ];
    const stopped = join(folder, 'stopped');
    for (const place of places) {
      const stop = (now: BuildProgress) => {
        if (now.phase === place.phase && now.done >= place.done) throw new Error('stopped');
      };
      await expect(buildData(config, memory, stopped, 1, stop)).rejects.toThrow('stopped');
    }
    const resumed = await buildData({ ...config, workers: 2 }, memory, stopped, 1);
    expect(resumed.reason).toBe('not built before; went on with what an earlier build had done');
    expect(resumed.contentHash).toBe(whole.contentHash);
    const { stages: _, ...rest } = resumed;
    const { stages: __, ...expected } = whole;
    expect(rest).toEqual({ ...expected, folder: stopped, reason: resumed.reason });
  });

  it('remembers the documents of whole shards when it was killed between two of them', async () => {
    const { data, config, folder } = manyShards();
    const whole = await buildData(config, memory, data, 1);
    const killed = join(folder, 'killed');
    const stop = (now: BuildProgress) => {
      if (now.phase === 'tokenizer') throw new Error('stopped');
    };
    await expect(buildData(config, memory, killed, 1, stop)).rejects.toThrow('stopped');
    const cleaned = join(folder, '.killed.building', 'under-way', 'documents');
    const states = readdirSync(cleaned).filter((name) => /^documents-.*json$/.test(name));
    expect(states.length).toBeGreaterThan(12);
    // As after a kill: the last shards and the end of the pass were not there yet.
    for (const name of ['clean.json', ...states.sort().slice(-2)]) rmSync(join(cleaned, name));
    const resumed = await buildData(config, memory, killed, 1);
    expect(resumed.contentHash).toBe(whole.contentHash);
    expect(resumed.sources).toEqual(whole.sources);
  });

  it('gives the same tokens however the records are split into files', async () => {
    const rows = factTexts(150).map((text) => JSON.stringify({ text }));
    const cuts = fc.array(fc.record({ at: fc.nat(rows.length), zipped: fc.boolean() }), { maxLength: 6 });
    const tokensOf = async (folder: string) => {
      const config = { sources: [{ path: join(folder, 'text') }], tokenizer: { vocabSize: 320 }, validationShare: 0.2 };
      await buildData(dataConfig(config), memory, join(folder, 'data'), 1);
      const streams = (['train', 'validation'] as const).map(async (split) => {
        const tokens = await TokenDataset.open(dataPaths(join(folder, 'data')).tokens, split);
        return [...(await tokens.window(0, tokens.numTokens))];
      });
      return await Promise.all(streams);
    };
    const write = (parts: { at: number; zipped: boolean }[]) => {
      const folder = temporaryFolder();
      mkdirSync(join(folder, 'text'));
      const sorted = [...parts].sort((a, b) => a.at - b.at);
      for (const [i, { zipped }] of [...sorted, { zipped: false }].entries()) {
        const lines = rows.slice(sorted[i - 1]?.at ?? 0, sorted[i]?.at ?? rows.length).join('\n');
        if (lines === '') continue;
        const path = join(folder, 'text', `${i}.jsonl${zipped ? '.gz' : ''}`);
        writeFileSync(path, zipped ? gzipSync(lines) : lines);
      }
      return folder;
    };
    const whole = await tokensOf(write([]));
    await fc.assert(
      fc.asyncProperty(cuts, async (parts) => {
        expect(await tokensOf(write(parts))).toEqual(whole);
      }),
      { numRuns: 6 },
    );
  });

  it('begins anew when the settings changed after it was stopped', async () => {
    const { data, config } = manyShards();
    const stop = (now: BuildProgress) => {
      if (now.phase === 'tokens') throw new Error('stopped');
    };
    await expect(buildData(config, memory, data, 1, stop)).rejects.toThrow('stopped');
    const changed = dataConfig({ ...config, cleaning: {} });
    const report = await buildData(changed, memory, data, 1);
    expect(report.reason).toBe('not built before');
    expect(report.sources[1]?.dropped).not.toHaveProperty('too few letters');
  });

  it('goes on with nothing of a work folder whose removal was cut off', async () => {
    const { data, config, folder } = manyShards();
    const { contentHash } = await buildData(config, memory, join(folder, 'whole'), 1);
    const stop = (now: BuildProgress) => {
      if (now.phase === 'tokens') throw new Error('stopped');
    };
    await expect(buildData(config, memory, data, 1, stop)).rejects.toThrow('stopped');
    const work = join(folder, '.data.building');
    const documents = join(work, 'under-way', 'documents');
    const rm = vi.spyOn(fs, 'rm').mockImplementation(async (path) => {
      if (path !== work) return rmSync(path, { recursive: true, force: true });
      for (const name of readdirSync(documents)) if (!name.startsWith('documents')) rmSync(join(documents, name));
      throw new Error('killed');
    });
    syncBuiltinESMExports();
    await expect(buildData({ ...config, cleaning: dataConfig({}).cleaning }, memory, data, 1)).rejects.toThrow(
      'killed',
    );
    rm.mockRestore();
    syncBuiltinESMExports();
    expect(readdirSync(documents)).toContain('documents-00000.json');
    expect((await buildData(config, memory, data, 1)).contentHash).toBe(contentHash);
  });

  it('makes documents anew that are lost', async () => {
    const { data, config, folder } = manyShards();
    const { contentHash } = await buildData(config, memory, join(folder, 'whole'), 1);
    const stop = (now: BuildProgress) => {
      if (now.phase === 'tokens') throw new Error('stopped');
    };
    await expect(buildData(config, memory, data, 1, stop)).rejects.toThrow('stopped');
    rmSync(join(folder, '.data.building', 'under-way', 'documents', 'documents-00003.arrow'));
    expect((await buildData(config, memory, data, 1)).contentHash).toBe(contentHash);
  });

  it('finds bad input in what an earlier build had read when it goes on strictly', async () => {
    const { data, config, folder } = manyShards();
    const stop = (now: BuildProgress) => {
      if (now.phase === 'tokens') throw new Error('stopped');
    };
    await expect(buildData(config, memory, data, 1, stop)).rejects.toThrow('stopped');
    const strict = () => userErrorOf(buildData({ ...config, strict: true }, memory, data, 1));
    expect(await strict()).toMatchObject({ code: 'input_invalid' });
    await buildData(config, memory, data, 1);
    renameSync(data, join(folder, '.data.building'));
    expect(await strict()).toMatchObject({ code: 'input_invalid' });
    expect(readdirSync(folder)).not.toContain('data');
  });

  it('leaves no thread behind when there is no memory for the search for duplicates', async () => {
    const { data, config } = manyShards({ deduplication: { exact: true, window: 1e12 } });
    const threads: Worker[] = [];
    const note = (thread: Worker) => threads.push(thread);
    process.on('worker', note);
    onTestFinished(() => void process.off('worker', note));
    expect(await userErrorOf(buildData(config, memory, data, 1))).toMatchObject({ code: 'config_invalid' });
    await new Promise(setImmediate);
    expect(threads.every(({ threadId }) => threadId < 0)).toBe(true);
  });

  it('lets documents begin at multiples of the alignment, and padding be no target', async () => {
    const { data, config, corpus } = project();
    const aligned = dataConfig({ ...config, continual: { sources: [{ path: corpus }], alignDocuments: 8 } });
    const progress: BuildProgress[] = [];
    const { stages } = await buildData(aligned, memory, data, 1, (now) => progress.push(now));
    expect(stages.map(({ stage }) => stage)).toContain('continual tokens');
    const totals = new Set(progress.map(({ phase, totalBytes }) => `${phase} ${totalBytes}`));
    expect(totals.size).toBe(new Set(progress.map(({ phase }) => phase)).size);
    const tokens = await TokenDataset.open(dataPaths(data).continualTokens, 'train');
    const tokenizer = await Tokenizer.load(dataPaths(data).tokenizer);
    const ids = await tokens.window(0, tokens.numTokens);
    const begins = [...ids.keys()].filter((i) => ids[i] === tokenizer.bos);
    expect(begins).toHaveLength(tokens.numDocuments);
    expect(begins.every((begin) => begin % 8 === 0)).toBe(true);
    expect(tokens.manifest.pad).toBe(tokenizer.pad);
    expect(ids.includes(tokenizer.pad)).toBe(true);
    const plain = await TokenDataset.open(dataPaths(data).tokens, 'train');
    expect((await plain.window(0, plain.numTokens)).includes(tokenizer.pad)).toBe(false);
  });
});

describe('inspectData', () => {
  it('shows counts, shards, samples and what was skipped', async () => {
    const { data, config, corpus } = project();
    const report = await buildData(config, memory, data, 1);
    const text = await inspectData(data);
    const { documents, tokens } = report.sources[0]!.train;
    expect(text).toContain(`${documents} documents, ${tokens} tokens`);
    expect(text).toMatch(/[2-9]\.\d\d bytes a token/);
    expect(text).toMatch(/tokens-00000\.arrow {2}\d+ tokens, \d+ bytes/);
    expect(text).toContain('at token 0: <s>');
    expect(text).toContain('[Fact 0]');
    expect(text).toMatch(/1 × invalid JSON\n +.*corpus\.jsonl at byte \d+: /);
    expect(text).toContain(corpus);
    expect(text).toMatch(/1 × empty text\n +.*corpus\.jsonl at byte \d+: /);
  });

  it('points to `data build` when nothing is built, and verify finds damage', async () => {
    const { data, config } = project({ continual: { sources: [source(import.meta.filename, { format: 'text' })] } });
    const error = await userErrorOf(inspectData(data));
    expect(error.code).toBe('artefact_missing');
    expect(error.message).toContain('memory3 data build');
    await buildData(config, memory, data, 1);
    rmSync(dataPaths(data).continualTokens, { recursive: true });
    expect(await userErrorOf(verifyData(data))).toMatchObject({ code: 'artefact_missing' });
    flipBit(join(dataPaths(data).tokens, 'validation', 'tokens-00000.arrow'), 700);
    expect(await userErrorOf(verifyData(data))).toMatchObject({ code: 'file_corrupt' });
  });
});
