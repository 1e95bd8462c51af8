import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
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
