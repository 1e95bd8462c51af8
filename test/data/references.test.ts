import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { tableFromIPC } from 'apache-arrow';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newCounters } from '../../src/data/documents.ts';
import {
  cutReferences,
  inContext,
  type Reference,
  ReferenceDataset,
  writeReferences,
} from '../../src/data/references.ts';
import { sentences } from '../../src/data/sentences.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import {
  collect,
  document,
  factTexts,
  flipBit,
  smallTokenizer,
  stream,
  temporaryFolder,
  userErrorOf,
} from './support.ts';

const visible = (text: string) => text.replace(/\s/gu, '');

describe('sentences', () => {
  it('ends at full stops before white space, at CJK stops and at empty lines', () => {
    const text = ' Dr. A. is 3.5 m tall!  “Really?” Yes…\nno\n\nnew。次の文！end ';
    expect(sentences(text).map(({ start, end }) => text.slice(start, end))).toEqual([
      'Dr.',
      'A.',
      'is 3.5 m tall!',
      '“Really?”',
      'Yes…',
      'no',
      'new。',
      '次の文！',
      'end',
    ]);
    expect(sentences(' \n ')).toEqual([]);
  });
});

describe('cutReferences', () => {
  it('keeps all visible text, in order, within the limit', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const unit = fc.constantFrom('river ', 'Arel. ', 'x', '🙂', '东京。', '\n\n', '\n', ' ', '<s>', 'é! ', 'harbour, ');
    const text = fc.array(unit, { minLength: 1, maxLength: 150 }).map((parts) => parts.join(''));
    await fc.assert(
      fc.asyncProperty(text, fc.integer({ min: 6, max: 60 }), async (original, limit) => {
        fc.pre(original.trim() !== '');
        const references = await collect(cutReferences(stream([document('d', original)]), tokenizer, limit));
        for (const { text: part, span, tokens } of references) {
          expect(part).toBe(original.slice(...span));
          expect(part).toBe(part.trim());
          expect(tokens).toEqual(await tokenizer.encode(part));
          expect(tokens.length).toBeLessThanOrEqual(limit);
        }
        expect(references.map((reference) => visible(reference.text)).join('')).toBe(visible(original));
        expect(new Set(references.map(({ id }) => id)).size).toBe(references.length);
      }),
      { numRuns: 60 },
    );
  });

  it('fills references with whole sentences', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const text = factTexts(12).join(' ');
    const references = await collect(cutReferences(stream([document('d', text, 'Facts')]), tokenizer, 64));
    expect(references.length).toBeGreaterThan(3);
    for (const { text: part, title } of references) {
      expect(part).toMatch(/^[A-Z“].*[.”]$/s);
      expect(title).toBe('Facts');
    }
    const average = references.reduce((sum, { tokens }) => sum + tokens.length, 0) / references.length;
    expect(average).toBeGreaterThan(32);
  });

  it('gives a reference the same id wherever its document stands', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const ids = async (...names: string[]) => {
      const documents = names.map((name) => document(name, `${name} is a river.`));
      return (await collect(cutReferences(stream(documents), tokenizer, 64))).map(({ id }) => id);
    };
    const [a, b] = await ids('a', 'b');
    expect(await ids('b', 'c', 'a')).toEqual([b, expect.stringMatching(/^[0-9a-f]{16}$/), a]);
  });

  it('says when a character does not fit', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const cut = collect(cutReferences(stream([document('d', 'a 🙂 b')]), tokenizer, 2));
    expect(await userErrorOf(cut)).toMatchObject({ code: 'config_invalid' });
  });
});

describe('ReferenceDataset', () => {
  const options = { tokenizerHash: 'aa', vocabSize: 400, referenceTokens: 24 };

  async function store(count: number): Promise<{ folder: string; references: Reference[] }> {
    const folder = temporaryFolder();
    const tokenizer = await smallTokenizer(temporaryFolder());
    const documents = factTexts(count).map((text, i) =>
      document(`é${i}`, text, i % 2 === 0 ? `title ${i}` : undefined),
    );
    const references = await collect(cutReferences(stream(documents), tokenizer, 24));
    await writeReferences(folder, stream(references), options, newCounters());
    return { folder, references };
  }

  it('gives back what was stored, alone and in groups', async () => {
    const { folder, references } = await store(1500);
    const dataset = await ReferenceDataset.open(folder, { tokenizerHash: 'aa', cacheBytes: 1 });
    expect(dataset.size).toBe(references.length);
    expect(dataset.manifest.file.batches.length).toBeGreaterThan(1);
    for (const i of [0, 1, references.length >> 1, references.length - 1])
      expect(await dataset.get(i)).toEqual(references[i]);
    const groups = await collect(dataset.batches(100));
    expect(groups.flat()).toEqual(references);
    expect(groups.slice(0, -1).every((group) => group.length === 100)).toBe(true);
    await expect(dataset.get(dataset.size)).rejects.toThrow(RangeError);
    const { id, url } = groups.at(-1)!.at(-1)!;
    expect(await dataset.addressOf(id)).toBe(url);
    expect(await dataset.addressOf('none')).toBeUndefined();
    await dataset.verify();
    const table = tableFromIPC(readFileSync(join(folder, 'references.arrow')));
    expect(table.numRows).toBe(references.length);
    expect(table.get(3)?.text).toBe(references[3]?.text);
  });

  it('gives a reference with the tokens in front of it in its document, and none of another', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const texts = ['One river. Two rivers. Three rivers. Four rivers.', 'A harbour. Another harbour.'];
    const documents = texts.map((text, i) => document(`d${i}`, text));
    const references = await collect(cutReferences(stream(documents), tokenizer, 12));
    expect(references.filter(({ document: id }) => id === 'd0').length).toBeGreaterThan(2);
    const options = { tokenizerHash: 't', vocabSize: 1000, referenceTokens: 12 };
    const folder = temporaryFolder();
    await writeReferences(folder, stream(references), options, newCounters());
    const dataset = await ReferenceDataset.open(folder);
    for (const count of [0, 5, 17, 1000]) {
      const streamed = await collect(inContext(references, count));
      for (const [i, reference] of references.entries()) {
        const before = references.slice(0, i).filter((other) => other.document === reference.document);
        const tokens = before.flatMap((other) => [...other.tokens]);
        const context = Int32Array.from(tokens.slice(Math.max(0, tokens.length - count)));
        expect(await dataset.getInContext(i, count)).toEqual({ ...reference, context });
        expect(streamed[i]).toEqual({ ...reference, context });
      }
    }
  });

  it('gives any order that is asked for', async () => {
    const { folder } = await store(1500);
    const dataset = await ReferenceDataset.open(folder, { cacheBytes: 1 });
    const numbers = Array.from({ length: 40_000 }, (_, i) => randomInt(3, PURPOSE.test, 0, i, dataset.size));
    const all = (await collect(dataset.batches(100))).flat();
    let at = 0;
    for await (const { context, ...reference } of dataset.inOrder(numbers, 0)) {
      expect(context).toHaveLength(0);
      const wanted = all[numbers[at++]!]!;
      if (reference.id !== wanted.id || reference.text !== wanted.text) expect(reference).toEqual(wanted);
    }
    expect(at).toBe(numbers.length);
    const expected = await Promise.all(numbers.slice(0, 50).map((i) => dataset.getInContext(i, 30)));
    expect(await collect(dataset.inOrder(numbers.slice(0, 50), 30))).toEqual(expected);
    expect(await collect(dataset.inOrder([], 0))).toEqual([]);
    await expect(collect(dataset.inOrder([0, dataset.size], 0))).rejects.toThrow(RangeError);
  });

  it('may be empty', async () => {
    const folder = temporaryFolder();
    await writeReferences(folder, stream([]), options, newCounters());
    const dataset = await ReferenceDataset.open(folder);
    expect(dataset.size).toBe(0);
    expect(await collect(dataset.batches(4))).toEqual([]);
    await dataset.verify();
  });

  it('refuses damage and another tokenizer', async () => {
    const { folder } = await store(20);
    const path = join(folder, 'references.arrow');
    expect(await userErrorOf(ReferenceDataset.open(folder, { tokenizerHash: 'b' }))).toMatchObject({
      code: 'artefact_mismatch',
    });
    flipBit(path, 1000);
    const dataset = await ReferenceDataset.open(folder);
    expect(await userErrorOf(dataset.get(0))).toMatchObject({ code: 'file_corrupt' });
    expect(await userErrorOf(dataset.verify())).toMatchObject({ code: 'file_corrupt' });
    truncateSync(path, 1000);
    expect(await userErrorOf(ReferenceDataset.open(folder))).toMatchObject({ code: 'file_truncated' });
  });
});
