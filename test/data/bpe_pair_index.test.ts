import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { leftOf, PairIndex, pairOf, rightOf } from '../../src/data/bpe/pair_index.ts';
import { countWords } from '../../src/data/bpe/words.ts';

/** Words as lists of tokens, merged and counted one by one. */
class SlowIndex {
  readonly words: string[][];

  constructor(words: readonly string[]) {
    this.words = words.map((word) => [...word]);
  }

  counts(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const word of this.words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = `${word[i]} ${word[i + 1]}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    return counts;
  }

  merge(left: string, right: string, merged: string): void {
    for (const word of this.words) {
      for (let i = 0; i + 1 < word.length; i++) {
        if (word[i] === left && word[i + 1] === right) word.splice(i, 2, merged);
      }
    }
  }
}

describe('PairIndex', () => {
  // Any pair, not the most frequent one, and any token of its length: in foreign vocabularies several pairs make one token.
  const word = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 14 });
  for (const room of [1, 2]) {
    it(`has the counts of one that counts everything anew, with room for ${room}n places`, () => {
      fc.assert(
        fc.property(
          fc.array(word, { minLength: 1, maxLength: 12 }),
          fc.array(fc.nat(), { maxLength: 25 }),
          (words, choices) => {
            const tokens = ['a', 'b'];
            const byteIds = Int32Array.from({ length: 256 }, (_, byte) => byte - 97);
            const spelled = countWords(words);
            const index = new PairIndex(spelled, byteIds, [1, 1], room);
            const slow = new SlowIndex(words);
            const counts = () => {
              const occurring = [...index.keys()].filter((pair) => index.count(pair) > 0);
              return new Map(
                occurring.map((pair) => [`${tokens[leftOf(pair)]} ${tokens[rightOf(pair)]}`, index.count(pair)]),
              );
            };
            expect(counts()).toEqual(slow.counts());
            for (const choice of choices) {
              const keys = [...slow.counts().keys()].sort();
              if (keys.length === 0) break;
              const [left, right] = keys[choice % keys.length]!.split(' ') as [string, string];
              const alike = tokens.filter(({ length }) => length === left.length + right.length);
              const merged = alike[choice % (alike.length + 1)] ?? left + right;
              if (!tokens.includes(merged)) tokens.push(merged);
              const risen = index.merge(pairOf(tokens.indexOf(left), tokens.indexOf(right)), tokens.indexOf(merged));
              const before = slow.counts();
              slow.merge(left, right, merged);
              expect(counts()).toEqual(slow.counts());
              for (const [key, count] of slow.counts()) {
                const [a, b] = key.split(' ').map((token) => tokens.indexOf(token));
                if (count > (before.get(key) ?? 0)) expect(risen).toContain(pairOf(a!, b!));
              }
            }
          },
        ),
        { numRuns: 200 },
      );
    });
  }
});
