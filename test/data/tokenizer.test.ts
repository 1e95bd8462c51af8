import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { describe, expect, it } from 'vitest';
import { SPECIALS, type TokenizerJson } from '../../src/data/bpe_trainer.ts';
import { textPieces } from '../../src/data/text_pieces.ts';
import { Tokenizer } from '../../src/data/tokenizer.ts';
import { sha256File } from '../../src/io/files.ts';
import { anyCharacter, factTexts, smallTokenizer, temporaryFolder, userErrorOf } from './support.ts';

describe('Tokenizer', () => {
  it('gives back any text, special tokens spelled out included', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const unit = fc.oneof(
      fc.string({ unit: anyCharacter, maxLength: 8 }),
      fc.constantFrom(...SPECIALS, '<', 's>', ' ', '\n'),
    );
    const text = fc.array(unit, { maxLength: 10 }).map((parts) => parts.join(''));
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 20 }), async (texts) => {
        const batch = await tokenizer.encodeBatch(texts);
        expect(Math.min(...batch.flatMap((ids) => [...ids]), 99)).toBeGreaterThanOrEqual(SPECIALS.length);
        expect(await Promise.all(batch.map((ids) => tokenizer.decode(ids)))).toEqual(texts);
      }),
      { numRuns: 25 },
    );
  });

  it('knows its special tokens, size, hash and reference prefix', async () => {
    const folder = temporaryFolder();
    const tokenizer = await smallTokenizer(folder);
    expect(tokenizer).toMatchObject({ vocabSize: 400, bos: 0, eos: 1, pad: 2 });
    expect(tokenizer.hash).toBe(await sha256File(join(folder, 'tokenizer-400.json')));
    expect(tokenizer.referencePrefix).toEqual(Int32Array.of(0, ...(await tokenizer.encode('Reference:'))));
    expect(await tokenizer.decode([0, ...(await tokenizer.encode('hi')), 1], { skipSpecial: true })).toBe('hi');
  });

  it('encodes a batch as each text alone', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const texts = ['', 'a <s> b', ...factTexts(3)];
    const alone = await Promise.all(texts.map((text) => tokenizer.encode(text)));
    expect(await tokenizer.encodeBatch(texts)).toEqual(alone);
    expect(await tokenizer.encodeBatch([])).toEqual([]);
  });

  it('encodes pieces of a long text as the whole', async () => {
    const tokenizer = await smallTokenizer(temporaryFolder());
    const separator = fc.constantFrom(' ', '\n', '  ', '\n\n', ', ', '. ', ' \t', '。', "'s ");
    const word = fc.tuple(fc.constantFrom('a', 'harbour', 'é', '42', '🙂', '东京', '!!'), separator);
    const text = fc.array(word, { minLength: 1, maxLength: 60 }).map((words) => words.flat().join(''));
    await fc.assert(
      fc.asyncProperty(text, async (original) => {
        const pieces = [...textPieces(original, 40)];
        expect(pieces.join('')).toBe(original);
        expect(Math.max(...pieces.map((piece) => piece.length))).toBeLessThanOrEqual(40);
        expect(pieces.some((piece) => /\p{Surrogate}/u.test(piece))).toBe(false);
        if (!/ |\n/.test(original) || / {2}|\n\n|\t|。/.test(original)) return;
        const ids = (await tokenizer.encodeBatch(pieces)).flatMap((piece) => [...piece]);
        expect(ids).toEqual([...(await tokenizer.encode(original))]);
      }),
      { numRuns: 100 },
    );
  });

  describe('equals `tokenizers` on the whole text, token for token', () => {
    const units: Record<string, fc.Arbitrary<string>> = {
      English: fc.constantFrom(...factTexts(50), ' ', '\n', "don't ", "we'll", ' ’s ', '42'),
      Chinese: fc.constantFrom('床前明月光', '，', '疑是地上霜', '。', '\n', '「', '」', '　', '3月', ' ', 'ABC'),
      code: fc.constantFrom(
        'for (let i = 0; i < n; i++) {',
        '\n',
        '    ',
        '\t',
        '}\n',
        "s['a']",
        '// x',
        ' ',
        '\r\n',
        '_',
      ),
      emoji: fc.constantFrom('🙂', '👩‍👩‍👧‍👦', '🇩🇪', ' ', '❤️', '\n', 'ok', '!', '１'),
      'random bytes': fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString()),
      'any characters': fc.string({ unit: anyCharacter, maxLength: 12 }),
      'white space': fc.constantFrom(
        ' ',
        '  ',
        '\n',
        '\n\n',
        '\t',
        '\u0085',
        '\u00a0',
        '\u3000',
        '\ufeff',
        'a',
        '.',
        "'s",
      ),
    };
    const whole = async (folder: string, text: string): Promise<number[]> => {
      const native = NativeTokenizer.fromFile(join(folder, 'tokenizer-600.json'));
      return (await native.encode(text, null, { addSpecialTokens: false })).getIds();
    };
    const texts = [...factTexts(200), ...Array(30).fill('床前明月光，疑是地上霜。\n    for (🙂)')] as string[];

    for (const [name, unit] of Object.entries(units)) {
      it(`${name}, short and cut in many pieces`, async () => {
        const folder = temporaryFolder();
        const tokenizer = await smallTokenizer(folder, 600, texts);
        const text = fc.array(unit, { maxLength: 60 }).map((parts) => parts.join(''));
        await fc.assert(
          fc.asyncProperty(text, fc.integer({ min: 2, max: 50 }), async (original, wanted) => {
            const expected = await whole(folder, original);
            expect([...(await tokenizer.encode(original))]).toEqual(expected);
            const pieces = [...textPieces(original, 2 ** 20, wanted)];
            expect((await tokenizer.encodeBatch(pieces)).flatMap((ids) => [...ids])).toEqual(expected);
          }),
          { numRuns: 40 },
        );
      });

      it(`${name}, longer than 2^18 characters`, async () => {
        const folder = temporaryFolder();
        const tokenizer = await smallTokenizer(folder, 600, texts);
        const parts = fc.sample(unit, { numRuns: 200, seed: 1 });
        let text = '';
        for (let i = 0; text.length <= 2 ** 18; i = (i * 5 + 3) % 65_537) text += parts[i % 200];
        const ours = await tokenizer.encode(text);
        const expected = Int32Array.from(await whole(folder, text));
        expect(Buffer.compare(Buffer.from(ours.buffer), Buffer.from(expected.buffer))).toBe(0);
        expect((await tokenizer.decode(ours)) === text).toBe(true);
      });
    }

    it('a single word of 600,000 letters, and other runs without a place to cut', async () => {
      const folder = temporaryFolder();
      const tokenizer = await smallTokenizer(folder, 600, texts);
      for (const part of ['床前明月光疑', ' ', '\n', '0123456789', '=-', '🙂']) {
        const text = part.repeat(Math.ceil((part === '床前明月光疑' ? 600_000 : 2 ** 16) / part.length));
        const [ours, expected] = [await tokenizer.encode(text), Int32Array.from(await whole(folder, text))];
        expect(Buffer.compare(Buffer.from(ours.buffer), Buffer.from(expected.buffer)), part).toBe(0);
      }
    }, 120_000);
  });

  it('cuts long texts within bounds, whatever they hold', () => {
    const unit = fc.oneof(anyCharacter, fc.constantFrom(' ', '\n', 'word', '，', '🙂'));
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 200 }), fc.integer({ min: 2, max: 40 }), (text, length) => {
        const pieces = [...textPieces(text, 2 * length, length)];
        expect(pieces.join('')).toBe(text);
        expect(Math.max(0, ...pieces.map((piece) => piece.length))).toBeLessThanOrEqual(2 * length);
        expect(pieces.every((piece) => piece.length > 0 && !/\p{Surrogate}/u.test(piece))).toBe(true);
      }),
    );
  });

  it('reads foreign files: begin of text by common names, no truncation, no padding, sparse ids', async () => {
    const folder = temporaryFolder();
    await smallTokenizer(folder);
    const json = JSON.parse(readFileSync(join(folder, 'tokenizer-400.json'), 'utf8')) as TokenizerJson;
    const write = (name: string, changes: object): string => {
      writeFileSync(join(folder, name), JSON.stringify({ ...json, ...changes }));
      return join(folder, name);
    };
    const token = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
    const ordinary = Object.fromEntries(Object.entries(json.model.vocab).filter(([, id]) => id >= 4));
    const vocab = { ...ordinary, '<|endoftext|>': 500 };
    const foreign = {
      truncation: { direction: 'Right', max_length: 2, strategy: 'LongestFirst', stride: 0 },
      padding: {
        strategy: { Fixed: 64 },
        direction: 'Right',
        pad_to_multiple_of: null,
        pad_id: 0,
        pad_type_id: 0,
        pad_token: 'x',
      },
      model: { ...json.model, vocab },
      added_tokens: [{ id: 500, content: '<|endoftext|>', ...token }],
    };
    const tokenizer = await Tokenizer.load(write('foreign.json', foreign));
    expect(tokenizer).toMatchObject({ vocabSize: 501, bos: 500, eos: 500, pad: 500 });
    const ids = await tokenizer.encode('Arel is a river near the harbour');
    expect(ids.length).not.toBe(2);
    expect(await tokenizer.decode(ids)).toBe('Arel is a river near the harbour');

    const nameless = write('nameless.json', {
      ...foreign,
      model: { ...json.model, vocab: ordinary },
      added_tokens: [],
    });
    expect(await userErrorOf(Tokenizer.load(nameless))).toMatchObject({ code: 'input_invalid' });
    const moved = write('moved.json', { ...foreign, model: { ...json.model, vocab: ordinary } });
    expect((await userErrorOf(Tokenizer.load(moved))).message).toContain('<|endoftext|> has id 500');
    const broken = write('broken.json', { model: { type: 'Nonsense' } });
    expect(await userErrorOf(Tokenizer.load(broken))).toMatchObject({ code: 'input_invalid' });
    expect(await userErrorOf(Tokenizer.load(join(folder, 'no.json')))).toMatchObject({ code: 'artefact_missing' });
  });
});
