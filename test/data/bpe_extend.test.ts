import fc from 'fast-check';
import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { describe, expect, it } from 'vitest';
import { extendBpe, type TokenizerJson, trainBpe } from '../../src/data/bpe_trainer.ts';
import { anyCharacter, factTexts, stream, userErrorOf } from './support.ts';

const CHINESE = [
  '床前明月光，疑是地上霜。',
  '举头望明月，低头思故乡。',
  '白日依山尽，黄河入海流。',
  '明月松间照，清泉石上流。',
];
const LLAMA_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const english = async () => await trainBpe(stream(factTexts(200)), { vocabSize: 400 });

/** As Llama 3 has it: another word pattern, merges as texts, special tokens above the vocabulary, whole words first. */
function likeLlama(json: TokenizerJson): object {
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const { added_tokens: _, ...rest } = json;
  const vocab = Object.fromEntries(Object.entries(json.model.vocab).filter(([, id]) => id >= 4));
  const sorted = Object.fromEntries(Object.keys(vocab).map((token, id) => [token, id]));
  return {
    ...rest,
    added_tokens: ['<|begin_of_text|>', '<|end_of_text|>'].map((content, i) => ({
      ...{ id: Object.keys(sorted).length + i, content, ...special },
    })),
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: LLAMA_PATTERN }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    model: {
      ...json.model,
      vocab: sorted,
      merges: json.model.merges.map((merge) => merge.join(' ')),
      ignore_merges: true,
    },
  };
}

async function idsOf(json: string, text: string): Promise<number[]> {
  const encoding = await NativeTokenizer.fromString(json).encode(text, null, { addSpecialTokens: false });
  return encoding.getIds();
}

describe('extendBpe', () => {
  for (const [name, change] of [
    ['ours', (json: TokenizerJson): object => json],
    ['one like Llama 3’s', likeLlama],
  ] as const) {
    it(`keeps ids, tokens and merges of ${name}, and learns a second language`, async () => {
      const before = JSON.stringify(change(await english()));
      const old = NativeTokenizer.fromString(before);
      const size = Math.max(...Object.values(old.getVocab(true))) + 1;
      const poems = Array(20).fill(CHINESE).flat() as string[];
      const after = JSON.stringify(await extendBpe(before, stream(poems), { vocabSize: size + 30, path: 'old.json' }));
      const extended = NativeTokenizer.fromString(after);
      expect(extended.getVocab(true)).toMatchObject(old.getVocab(true));
      const added = Object.entries(extended.getVocab(true)).filter(([token]) => !(token in old.getVocab(true)));
      expect(added.map(([, id]) => id).sort((a, b) => a - b)).toEqual([...Array(30).keys()].map((i) => size + i));
      const [oldJson, newJson] = [before, after].map((json) => JSON.parse(json) as TokenizerJson);
      expect(newJson!.model.merges.slice(0, oldJson!.model.merges.length)).toEqual(oldJson!.model.merges);
      expect(newJson!.model.merges.length).toBeGreaterThanOrEqual(oldJson!.model.merges.length + 30);

      // Merges of Chinese never apply where there is none.
      const ascii = fc.oneof(fc.constantFrom(...factTexts(50)), fc.string({ unit: 'grapheme-ascii', maxLength: 40 }));
      await fc.assert(
        fc.asyncProperty(ascii, async (text) => {
          expect(await idsOf(after, text)).toEqual(await idsOf(before, text));
        }),
        { numRuns: 30 },
      );
      const chinese = CHINESE.join('');
      expect((await idsOf(after, chinese)).length).toBeLessThan(0.7 * (await idsOf(before, chinese)).length);
      const anything = fc.string({ unit: anyCharacter, maxLength: 20 });
      await fc.assert(
        fc.asyncProperty(anything, async (text) => {
          expect(await extended.decode(await idsOf(after, text), false)).toBe(text);
        }),
        { numRuns: 30 },
      );
    });
  }

  it('goes on where training ended: half the merges and then the rest are all of them', async () => {
    const texts = [...factTexts(200), ...CHINESE];
    const half = await trainBpe(stream(texts), { vocabSize: 330 });
    const whole = await extendBpe(JSON.stringify(half), stream(texts), { vocabSize: 400, path: 'half.json' });
    expect(whole).toEqual(await trainBpe(stream(texts), { vocabSize: 400 }));
  });

  it('learns the same in threads', async () => {
    const before = JSON.stringify(likeLlama(await english()));
    const learn = async (workers: number) =>
      JSON.stringify(await extendBpe(before, stream(CHINESE), { vocabSize: 420, path: 'old.json', workers }));
    expect(await learn(2)).toBe(await learn(0));
  });

  it('refuses what it cannot extend, and says why', async () => {
    const json = await english();
    const refusal = async (change: object, vocabSize = 500) =>
      await userErrorOf(extendBpe(JSON.stringify({ ...json, ...change }), stream([]), { vocabSize, path: 'x.json' }));
    const { model } = json;
    const wordPiece = { type: 'WordLevel', vocab: { a: 0 }, unk_token: 'a' };
    expect(await refusal({ model: wordPiece })).toMatchObject({ code: 'input_invalid' });
    expect((await refusal({ model: wordPiece })).message).toContain('its model is WordLevel, not BPE');
    expect((await refusal({ pre_tokenizer: { type: 'Whitespace' } })).message).toContain('no `ByteLevel`');
    expect((await refusal({ model: { ...model, end_of_word_suffix: '</w>' } })).message).toMatch(/x\.json: .*suffix/);
    const { '!': _, ...lacking } = model.vocab;
    expect((await refusal({ model: { ...model, vocab: lacking, merges: [] } })).message).toContain('the byte 33');
    expect((await refusal({ model: 7 })).message).toContain('not a Hugging Face tokenizer.json');
    expect(await refusal({}, 399)).toMatchObject({ code: 'config_invalid' });
  });
});
