import { readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type BuildProgress, buildData, dataPaths } from '../../src/data/build.ts';
import { inspectData, verifyData } from '../../src/data/inspect.ts';
import { ReferenceDataset } from '../../src/data/references.ts';
import { TokenDataset } from '../../src/data/token_dataset.ts';
import { Tokenizer } from '../../src/data/tokenizer.ts';
import {
  dataConfig,
  factTexts,
  flipBit,
  memoryConfig,
  smallTokenizer,
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
    shardBytes: 1024,
    validationShare: 0.1,
    ...fields,
  });
  return { folder, corpus, data: join(folder, 'data'), config };
}

const memory = memoryConfig({ referenceTokens: 12 });

describe('buildData', () => {
  it('makes tokenizer, tokens of both splits and references', async () => {
    const { data, config, folder } = project();
    const progress: BuildProgress[] = [];
    const report = await buildData(config, memory, data, 1, (p) => progress.push(p));
    expect(report).toMatchObject({ kept: false, reason: 'not built before', warnings: [], folder: data });
    expect(report.tokenizer).toMatchObject({ vocabSize: 400, trained: true });
    expect(report.train.documents + report.validation.documents).toBe(120);
    expect(report.validation.documents).toBeGreaterThan(3);
    expect(report.counters.sources.skipped).toEqual({ 'invalid JSON': 1, 'empty text': 1 });
    expect(report.references.documents).toBe(30);
    expect(report.references.references).toBeGreaterThan(30);
    expect([...new Set(progress.map(({ phase }) => phase))]).toEqual(['tokenizer', 'tokens', 'references']);
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
      const names = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      return names.map(({ name, parentPath }) => [name, readFileSync(join(parentPath, name), 'utf8')]).sort();
    };
    expect(files(a)).toEqual(files(b));
    expect((await buildData(config, memory, join(folder, 'c'), 2)).contentHash).not.toBe(hashes[0]);
  });

  it('keeps what is complete, and says why it builds anew', async () => {
    const { data, config, corpus } = project();
    const first = await buildData(config, memory, data, 1);
    const again = () => buildData(config, memory, data, 1);
    expect(await again()).toMatchObject({ kept: true, contentHash: first.contentHash, train: first.train });
    utimesSync(corpus, new Date(0), new Date(0));
    expect(await again()).toMatchObject({ kept: true });

    const smaller = dataConfig({ ...config, tokenizer: { vocabSize: 300 } });
    const rebuilt = await buildData(smaller, memory, data, 1);
    expect(rebuilt).toMatchObject({ kept: false, reason: 'data.tokenizer.vocabSize changed from 400 to 300' });
    expect((await Tokenizer.load(dataPaths(data).tokenizer)).vocabSize).toBe(300);

    const longer = { ...config, sequenceLength: 32 };
    await again();
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

  it('trains the tokenizer on a sample', async () => {
    const { data, config } = project({ tokenizer: { vocabSize: 8192, sampleBytes: 3000 } });
    const report = await buildData(config, memory, data, 1);
    const whole = await buildData(dataConfig({ ...config, tokenizer: { vocabSize: 8192 } }), memory, data, 1);
    expect(report.tokenizer.vocabSize).toBeGreaterThan(270);
    expect(report.tokenizer.vocabSize).toBeLessThan(whole.tokenizer.vocabSize);
    expect(whole.warnings).toEqual([expect.stringContaining(`${whole.tokenizer.vocabSize} tokens, not 8192`)]);
  });

  it('refuses to build from nothing, and leaves nothing behind', async () => {
    const { folder, data, config, corpus } = project();
    const build = (fields: object) => userErrorOf(buildData({ ...config, ...fields }, memory, data, 1));
    expect(await build({ sources: [] })).toMatchObject({ code: 'config_invalid' });
    const wrongField = await build(dataConfig({ sources: [{ path: corpus, textField: 'body' }] }));
    expect(wrongField.code).toBe('input_empty');
    expect(wrongField.message).toMatch(/121 × no text field.*no string "body"; fields: id, text/s);
    expect(await build(dataConfig({ sources: [{ path: join(folder, 'gone') }] }))).toMatchObject({
      code: 'input_missing',
    });
    const noTokenizer = dataConfig({ ...config, tokenizer: { path: join(folder, 'gone.json') } });
    expect(await build(noTokenizer)).toMatchObject({ code: 'input_missing' });
    expect(readdirSync(folder).sort()).toEqual(['corpus.jsonl', 'facts.jsonl']);
  });

  it('warns of splits that do not fill a sequence', async () => {
    const { data, config } = project({ sequenceLength: 100_000 });
    const { warnings } = await buildData(config, memory, data, 1);
    expect(warnings).toEqual([
      expect.stringContaining('training tokens'),
      expect.stringContaining('validation tokens'),
    ]);
  });
});

describe('inspectData', () => {
  it('shows counts, shards, samples and what was skipped', async () => {
    const { data, config, corpus } = project();
    const report = await buildData(config, memory, data, 1);
    const text = await inspectData(data);
    expect(text).toContain(`${report.train.documents} documents, ${report.train.tokens} tokens`);
    expect(text).toMatch(/[2-9]\.\d\d bytes a token/);
    expect(text).toMatch(/tokens-00000\.arrow {2}1024 tokens, \d+ bytes/);
    expect(text).toContain('at token 0: <s>');
    expect(text).toContain('[Fact 0]');
    expect(text).toMatch(/1 × invalid JSON\n +.*corpus\.jsonl at byte \d+: /);
    expect(text).toContain(corpus);
    expect(text).toContain('nothing skipped in references');
  });

  it('points to `data build` when nothing is built, and verify finds damage', async () => {
    const { data, config } = project();
    const error = await userErrorOf(inspectData(data));
    expect(error.code).toBe('artefact_missing');
    expect(error.message).toContain('memory3 data build');
    await buildData(config, memory, data, 1);
    flipBit(join(dataPaths(data).tokens, 'validation', 'tokens-00000.arrow'), 700);
    expect(await userErrorOf(verifyData(data))).toMatchObject({ code: 'file_corrupt' });
  });
});
