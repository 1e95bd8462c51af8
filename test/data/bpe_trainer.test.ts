import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { BPE, byteLevelPreTokenizer, Tokenizer } from 'tokenizers';
import { describe, expect, it } from 'vitest';
import { byteCharacters } from '../../src/data/bpe/words.ts';
import { type BpeProgress, SPECIALS, trainBpe } from '../../src/data/bpe_trainer.ts';
import { factTexts, stream, temporaryFolder } from './support.ts';

/** Counts all pairs of all words anew before each merge. Words are given as characters of a small alphabet. */
function slowMerges(words: string[], steps: number): [string, string][] {
  const spelled = words.map((word) => [...word]);
  const merges: [string, string][] = [];
  const order = [...byteCharacters()].sort();
  for (let step = 0; step < steps; ) {
    const counts = new Map<string, number>();
    for (const word of spelled) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = JSON.stringify([word[i], word[i + 1]]);
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    const rank = (pair: [string, string]) => pair.map((token) => order.indexOf(token));
    const best = [...counts]
      .map(([key, count]) => ({ pair: JSON.parse(key) as [string, string], count }))
      .filter(({ count }) => count >= 2)
      .sort((a, b) => {
        const [x, y] = [rank(a.pair), rank(b.pair)];
        return b.count - a.count || x[0]! - y[0]! || x[1]! - y[1]!;
      })[0];
    if (!best) break;
    const [left, right] = best.pair;
    if (!order.includes(left + right)) {
      order.push(left + right);
      step++;
    }
    if (!merges.some(([a, b]) => a === left && b === right)) merges.push(best.pair);
    for (const word of spelled) {
      for (let i = 0; i + 1 < word.length; i++)
        if (word[i] === left && word[i + 1] === right) word.splice(i, 2, left + right);
    }
  }
  return merges;
}

describe('trainBpe', () => {
  it('finds the merges of a trainer that counts everything anew', async () => {
    const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(word, { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 0, max: 40 }),
        async (words, steps) => {
          // Letters and digits never share a word, so a digit separates words without a space.
          const json = await trainBpe(stream(words.map((w) => `${w}1`)), { vocabSize: 260 + steps });
          expect(json.model.merges).toEqual(slowMerges(words, steps));
        },
      ),
      { numRuns: 150 },
    );
  });

  it('finds the merges of the `tokenizers` trainer', async () => {
    const lines = [
      ...factTexts(300),
      ...Array(40).fill('naïve café — 东京 и Москва!! \t 12.5%  don’t, it\'s "we\'ll"'),
    ];
    const file = join(temporaryFolder(), 'text.txt');
    writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
    const oracle = new Tokenizer(BPE.empty());
    oracle.setPreTokenizer(byteLevelPreTokenizer(false, true));
    oracle.train([file]);
    const saved = join(temporaryFolder(), 'oracle.json');
    oracle.save(saved);
    const expected = (JSON.parse(readFileSync(saved, 'utf8')) as { model: { merges: [string, string][] } }).model
      .merges;
    const { merges } = (await trainBpe(stream(lines.map((line) => `${line}\n`)), { vocabSize: 30_000 })).model;
    expect(merges.length).toBeGreaterThan(250);
    expect(merges).toEqual(expected.slice(0, merges.length));
  });

  it('numbers special tokens, then bytes, then merges, and stops when no pair occurs twice', async () => {
    const { model, added_tokens: added } = await trainBpe(stream(['abab']), { vocabSize: 1000 });
    expect(added.map(({ id, content }) => [id, content])).toEqual(SPECIALS.map((content, id) => [id, content]));
    expect(Object.keys(model.vocab)).toHaveLength(261);
    expect(model.merges).toEqual([['a', 'b']]);
    expect(model.vocab.ab).toBe(260);
    expect(Object.values(model.vocab).sort((a, b) => a - b)).toEqual([...Array(261).keys()]);
  });

  it('does not depend on the order of the texts', async () => {
    const texts = factTexts(60);
    const forward = await trainBpe(stream(texts), { vocabSize: 400 });
    const backward = await trainBpe(stream([...texts].reverse()), { vocabSize: 400 });
    expect(JSON.stringify(backward)).toBe(JSON.stringify(forward));
  });

  it('learns the same in any number of threads, and tells how far it is', async () => {
    // More than one group of texts.
    const facts = factTexts(200).map((text) => text.repeat(30));
    const texts = Array.from({ length: 1000 }, (_, i) => facts[i % 200]!);
    const told: BpeProgress[] = [];
    const options = { vocabSize: 500, progress: (progress: BpeProgress) => void told.push(progress) };
    const alone = await trainBpe(stream(texts), options);
    expect(told.at(-1)).toEqual({ characters: texts.join('').length, tokens: 240, wanted: 240 });
    expect(told.length).toBeGreaterThan(240);
    expect(await trainBpe(stream(texts), { ...options, workers: 2 })).toEqual(alone);
  });

  it('gives Chinese and English their share of one vocabulary', async () => {
    const lines = Array.from(
      { length: 100 },
      (_, i) => `床前明月光，疑是地上霜。举头望明月，低头思故乡${'一二三四五六七'[i % 7]}。`,
    );
    const { vocab } = (await trainBpe(stream([...factTexts(100), ...lines]), { vocabSize: 450 })).model;
    const characters = byteCharacters();
    const spelled = (word: string) => [...Buffer.from(word)].map((byte) => characters[byte]).join('');
    for (const word of ['明月', ' mountain', '。']) expect(vocab[spelled(word)], word).toBeDefined();
  });

  it('never spells a special token by merges', async () => {
    const json = await trainBpe(stream(Array(50).fill('abc ')), { vocabSize: 400, specials: ['<s>', 'abc'] });
    expect(json.model.vocab.abc).toBe(1);
    expect(json.model.merges.some(([a, b]) => a + b === 'abc')).toBe(false);
  });

  it('refuses a vocabulary without room for the bytes', async () => {
    await expect(trainBpe(stream([]), { vocabSize: 259 })).rejects.toThrow(RangeError);
  });
});
