import { readdirSync } from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type DeduplicationConfig, deduplicationSchema } from '../../src/config/schema.ts';
import { Duplicates, ENTRY_BYTES, type Match, packEntry, unpackEntry } from '../../src/data/duplicates.ts';
import { exactHash, MinHash } from '../../src/data/min_hash.ts';
import { PURPOSE, randomBits, randomInt } from '../../src/random.ts';
import { asText, changed, LANGUAGES, type Language, randomWords, shingles, TrueSimilarity } from './random_texts.ts';
import { temporaryFolder } from './support.ts';

const minHash = new MinHash();

function duplicates(config: Partial<DeduplicationConfig>, folder = temporaryFolder()): Duplicates {
  const made = new Duplicates(deduplicationSchema.parse({ exact: true, near: true, window: 1000, ...config }), folder);
  onTestFinished(() => made.close());
  return made;
}

/** Hash and signature of an invented document; those of different numbers have nothing in common. */
function entry(number: number): { exact: Uint32Array; signature: Uint32Array } {
  const words = (step: number, count: number) =>
    Uint32Array.from({ length: count }, (_, i) => randomBits(number, PURPOSE.test, step, i)[0]);
  return { exact: words(0, 4), signature: words(1, 128) };
}

/** An entry with another text and `places` of the signature changed, from place `from` on. */
function nearEntry(number: number, places: number, from = 0) {
  const { signature } = entry(number);
  const other = entry(number + 1e6);
  signature.set(other.signature.subarray(from, from + places), from);
  return { exact: other.exact, signature };
}

const check = (index: Duplicates, { exact, signature }: ReturnType<typeof entry>) => index.check(exact, signature);
const add = (index: Duplicates, { exact, signature }: ReturnType<typeof entry>) => index.add(exact, signature);

/** Texts of several lengths; two of three are changed copies of earlier ones, from hardly to beyond recognition. */
function corpus(language: Language, count: number): string[][] {
  const lengths = [40, 90, 250, 900];
  const documents: string[][] = [];
  for (let i = 0; i < count; i++) {
    const original = documents[randomInt(i, PURPOSE.test, 3, 0, Math.max(1, i))];
    if (original && i % 3 > 0) {
      // Changes spread over the text, and a text that ends early, are different ways to the same similarity.
      const copy = changed(language, original, i, randomInt(i, PURPOSE.test, 3, 1, 70) / 1000);
      documents.push(i % 2 ? copy : copy.slice(0, copy.length - randomInt(i, PURPOSE.test, 3, 2, 12)));
    } else {
      documents.push(randomWords(language, i + 1, lengths[i % 4]!));
    }
  }
  return documents;
}

/** Goes through documents as a build does, and compares each answer with the true similarity to all kept documents. */
function measure(language: Language, documents: string[][]) {
  const index = duplicates({ exact: false });
  const kept = new TrueSimilarity();
  const tally = { similar: 0, found: 0, different: 0, dropped: 0 };
  for (const words of documents) {
    const own = shingles(words);
    const best = kept.best(own);
    const text = asText(language, words);
    const [exact, signature] = [exactHash(text), minHash.sign(text)];
    const match = index.check(exact, signature);
    if (best >= 0.85) tally.similar++;
    if (best >= 0.85 && match) tally.found++;
    if (best < 0.6) tally.different++;
    if (best < 0.6 && match) tally.dropped++;
    if (match) continue;
    index.add(exact, signature);
    kept.add(own);
  }
  return tally;
}

describe('Duplicates', () => {
  it.each(LANGUAGES)('finds 95 % of near duplicates at 0.85 and drops less than 1 % below 0.6: $name', (language) => {
    const { similar, found, different, dropped } = measure(language, corpus(language, 1200));
    expect(similar).toBeGreaterThan(150);
    expect(found / similar).toBeGreaterThanOrEqual(0.95);
    expect(different).toBeGreaterThan(400);
    expect(dropped / different).toBeLessThan(0.01);
  });

  it('tells which kept document is repeated, and how', () => {
    const index = duplicates({});
    for (let i = 0; i < 20; i++) add(index, entry(i));
    expect(index.kept).toBe(20);
    expect(check(index, entry(7))).toEqual({ kind: 'duplicate', of: 7, similarity: 1 });
    expect(check(index, nearEntry(7, 32))).toEqual({ kind: 'near duplicate', of: 7, similarity: 0.75 });
    expect(check(index, nearEntry(7, 33))).toBeUndefined();
    expect(check(index, entry(20))).toBeUndefined();
    expect(index.kept).toBe(20);
  });

  it('searches only for what is asked', () => {
    const [exact, near] = [duplicates({ near: false }), duplicates({ exact: false })];
    for (const index of [exact, near]) add(index, entry(1));
    expect(check(exact, entry(1))?.kind).toBe('duplicate');
    expect(check(exact, nearEntry(1, 8))).toBeUndefined();
    expect(check(near, entry(1))).toEqual({ kind: 'near duplicate', of: 0, similarity: 1 });
    expect(near.check(entry(1).exact, undefined)).toBeUndefined();
  });

  it('knows documents without a signature by their text', () => {
    const index = duplicates({});
    for (let i = 0; i < 600; i++) index.add(entry(i).exact, i % 2 ? entry(i).signature : undefined);
    expect(index.check(entry(2).exact, undefined)?.of).toBe(2);
    expect(check(index, nearEntry(2, 4))).toBeUndefined();
    expect(check(index, nearEntry(3, 4))?.of).toBe(3);
  });

  it('remembers one to two windows of kept documents', () => {
    const window = 7;
    const index = duplicates({ window });
    for (let kept = 1; kept <= 40; kept++) {
      add(index, entry(kept - 1));
      const first = Math.max(0, Math.floor((kept - 1) / window) - 1) * window;
      expect(kept - first).toBeLessThanOrEqual(2 * window);
      for (let i = 0; i < kept; i++) {
        expect(check(index, entry(i))?.of).toBe(i < first ? undefined : i);
        expect(check(index, nearEntry(i, 16))?.of).toBe(i < first ? undefined : i);
      }
    }
  });

  it('reads signatures back from its files, more than it holds in memory', () => {
    const index = duplicates({ exact: false, window: 6000 });
    for (let i = 0; i < 6500; i++) add(index, entry(i));
    for (let i = 0; i < 6500; i += 13) {
      const number = (i * 7) % 6500;
      expect(check(index, nearEntry(number, 16))).toMatchObject({ of: number, similarity: 0.875 });
    }
  });

  it('answers the same again, and when it is filled from packed entries', () => {
    const documents = corpus(LANGUAGES[0]!, 400).map((words) => words.join(' '));
    const go = (index: Duplicates, packed: Uint8Array[]) =>
      documents.map((text): Match | undefined => {
        const [exact, signature] = [exactHash(text), minHash.sign(text)];
        const match = index.check(exact, signature);
        if (match) return match;
        index.add(exact, signature);
        packed.push(packEntry(exact, signature));
        return undefined;
      });
    const packed: Uint8Array[] = [];
    const answers = go(duplicates({ window: 60 }), packed);
    expect(answers.filter((answer) => answer).length).toBeGreaterThan(40);
    expect(go(duplicates({ window: 60 }), [])).toEqual(answers);

    // Killed after any document: the kept ones so far are given again, and the rest goes on as before.
    for (const at of [0, 1, 90, 250, 399]) {
      const keptBefore = answers.slice(0, at).filter((answer) => !answer).length;
      const index = duplicates({ window: 60 });
      for (const entry of packed.slice(0, keptBefore)) {
        const { exact, signature } = unpackEntry(entry);
        index.add(exact, signature);
      }
      const rest = documents.slice(at).map((text) => {
        const [exact, signature] = [exactHash(text), minHash.sign(text)];
        const match = index.check(exact, signature);
        if (!match) index.add(exact, signature);
        return match;
      });
      expect(rest).toEqual(answers.slice(at));
    }
  });

  it('compares with the eight newest documents of a band, whatever their number', () => {
    const crowded = (others: number) => {
      const index = duplicates({ exact: false });
      // All share the first eight bands; the first document and the query differ in one place of each of the others.
      const common = entry(0).signature.subarray(0, 64);
      add(index, entry(0));
      for (let i = 1; i <= others; i++) {
        const { exact, signature } = entry(i);
        signature.set(common);
        index.add(exact, signature);
      }
      const query = entry(0);
      for (let place = 64; place < 128; place += 8) query.signature[place]! ^= 1;
      return check(index, query);
    };
    expect(crowded(7)).toEqual({ kind: 'near duplicate', of: 0, similarity: 120 / 128 });
    expect(crowded(8)).toBeUndefined();
  });

  it('removes its files', () => {
    const folder = temporaryFolder();
    const index = new Duplicates(deduplicationSchema.parse({ near: true, window: 2 }), folder);
    for (let i = 0; i < 5; i++) add(index, entry(i));
    expect(readdirSync(folder)).toHaveLength(2);
    index.close();
    expect(readdirSync(folder)).toEqual([]);
  });

  it('says when the window is larger than memory', () => {
    expect(() => duplicates({ window: 1e12 })).toThrow(/data\.deduplication\.window: no memory for tables/);
  });
});

describe('packEntry', () => {
  it('takes a fixed number of bytes, with or without a signature', () => {
    const { exact, signature } = entry(5);
    for (const given of [signature, undefined]) {
      const packed = packEntry(exact, given);
      expect(packed.byteLength).toBe(ENTRY_BYTES);
      // Inside a file an entry begins at any byte.
      const file = new Uint8Array(3 + ENTRY_BYTES);
      file.set(packed, 3);
      expect(unpackEntry(file.subarray(3))).toEqual({ exact, signature: given });
      expect(unpackEntry(Buffer.from(file.buffer).subarray(3))).toEqual({ exact, signature: given });
    }
  });
});
