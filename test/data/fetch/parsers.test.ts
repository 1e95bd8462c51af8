import { expect, it } from 'vitest';
import { poems } from '../../../src/data/fetch/chinese_poetry.ts';
import { type City, placeSentences } from '../../../src/data/fetch/cities.ts';
import { type Country, countryTexts } from '../../../src/data/fetch/countries.ts';
import { packageDescriptions } from '../../../src/data/fetch/debian_packages.ts';
import { dictionaryEntries } from '../../../src/data/fetch/dictd.ts';
import { computingTerm } from '../../../src/data/fetch/foldoc.ts';
import { cleanEntry } from '../../../src/data/fetch/gcide.ts';
import { book } from '../../../src/data/fetch/gutenberg.ts';
import { jargonTerm } from '../../../src/data/fetch/jargon.ts';
import { speech } from '../../../src/data/fetch/sotu.ts';
import { synsets } from '../../../src/data/fetch/wordnet.ts';

it('WordNet: words as they are written, part of speech, gloss', () => {
  const data = [
    '  1 This is a licence line  ',
    '00003553 03 n 02 hot_dog 0 unit 0 001 @ 00002684 n 0000 | a food; "we had two"  ',
    '00004296 00 s 01 galore(ip) 0 000 | in great numbers  ',
  ].join('\n');
  expect([...synsets(data, 'dict/data.noun')]).toEqual([
    { id: 'wordnet-n-00003553', title: 'hot dog', text: 'hot dog, unit (noun): a food; "we had two"' },
    { id: 'wordnet-s-00004296', title: 'galore', text: 'galore (adjective): in great numbers.' },
  ]);
  expect(() => [...synsets('no synset', 'dict/data.noun')]).toThrow(/dict\/data\.noun.*no synset/);
  const endless = '00003553 03 n ?? hot_dog 0 000 | a food';
  expect(() => [...synsets(endless, 'dict/data.noun')]).toThrow(/not a set of synonyms/);
});

const COUNTRY: Country = { cca2: 'US', cca3: 'USA', name: { common: 'United States', official: 'USA' }, area: 0 };

it('cities: a sentence with what is known of region and country', () => {
  const city = (fields: Partial<City>): City => ({ name: 'X', lat: '0', lng: '0', country: '', admin1: '', ...fields });
  const places = [
    city({ name: 'Springfield', lat: '39.80172', lng: '-89.64371', country: 'US', admin1: 'IL' }),
    city({ name: 'Nowhere', lat: '-1.5', lng: '2', country: 'US', admin1: '??' }),
    city({ name: 'Sea' }),
  ];
  const sentences = [...placeSentences(places, [{ code: 'US.IL', name: 'Illinois' }], [COUNTRY])];
  expect(sentences.map(({ text }) => text)).toEqual([
    'Springfield is a place in Illinois, United States, at 39.80 N 89.64 W.',
    'Nowhere is a place in United States, at 1.50 S 2.00 E.',
    'Sea is a place, at 0.00 N 0.00 E.',
  ]);
  expect(sentences[0]).toMatchObject({ id: 'city-0', title: 'Springfield' });
  expect(() => [...placeSentences([city({ lat: '' })], [], [])]).toThrow(/entry 0/);
});

it('countries: a sentence for each fact that is given', () => {
  const france = { ...COUNTRY, cca3: 'FRA', name: { common: 'France', official: 'France' }, capital: ['Paris'] };
  const [text, none] = [...countryTexts([{ ...france, borders: ['USA'], landlocked: true, area: 5 }, COUNTRY])];
  expect(text).toEqual({
    id: 'country-FRA',
    title: 'France',
    text: 'France: its capital is Paris. France: it borders United States. France: it has no coast. France: area: 5 square kilometres.',
  });
  expect(none!.text).toBe('United States: its official name is USA.');
});

it('Debian: joins lines of a paragraph, keeps lists, leaves out translations of other packages', () => {
  const content =
    'Package: foo\nDescription-md5: 0\nDescription-en: does foo\n One line\n goes on.\n .\n Lists:\n  * a\n  * b\n end\n' +
    '\nPackage: bar\nDescription-md5: 1\nDescription-en: short alone\n';
  expect([...packageDescriptions(content, 'sid.txt', 'sid')]).toEqual([
    {
      id: 'debian-foo',
      title: 'foo',
      text: 'foo: does foo.\nOne line goes on.\nLists:\n* a\n* b\nend',
      url: 'https://packages.debian.org/sid/foo',
    },
    {
      id: 'debian-bar',
      title: 'bar',
      text: 'bar: short alone.',
      url: 'https://packages.debian.org/sid/bar',
    },
  ]);
  expect(() => [...packageDescriptions('Package: foo\n', 'sid.txt', 'sid')]).toThrow(/sid\.txt/);
});

const DAVIT = String.raw`Davit \Dav"it\ (d[a^]"v[i^]t), n. [Cf. F. davier, see {Davy
   [sic] more}.] (Naut.)
   (a) A spar of the {fish davit} in a caf['e].
   [1913 Webster]

         A quotation.      --A. B.
   [1913 Webster]
`;

it('GCIDE: without pronunciation, etymology and sources', () => {
  expect(cleanEntry(DAVIT)).toEqual({
    title: 'Davit',
    text: 'Davit, n. (Naut.) (a) A spar of the fish davit in a café.\nA quotation. --A. B.',
  });
  expect(cleanEntry('Bare \\Bare\\, v. t.\n   [1913 Webster]\n')).toBeUndefined();
});

it('dictd: entries by the index, each once, in the order of the text, old bytes included', () => {
  const first = Buffer.from(DAVIT);
  const second = Buffer.from([...Buffer.from('Es \\Es\\, n.\n   It has one byte: '), 0x92, 10]);
  const index = `00-info\tA\tB\nes\t${base64(first.length)}\t${base64(second.length)}\ndavit\tA\t${base64(first.length)}\nDavit\tA\t${base64(first.length)}\n`;
  const entries = [...dictionaryEntries(Buffer.concat([first, second]), index, 'a.index')];
  expect(entries.map(({ offset }) => offset)).toEqual([0, first.length]);
  expect(cleanEntry(entries[1]!.text)?.text).toBe('Es, n. It has one byte: ’');
  expect(() => [...dictionaryEntries(first, 'x\tA\t//\n', 'a.index')]).toThrow(/a\.index.*it names byte/);
  expect(() => [...dictionaryEntries(first, 'x\tA\t?\n', 'a.index')]).toThrow(/a\.index/);
});

function base64(value: number): string {
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
  return (value >= 64 ? base64(Math.floor(value / 64)) : '') + digits[value % 64];
}

it('books and speeches', () => {
  expect(book('a-b.txt', Buffer.from('[Emma by Jane]\r\n\r\n\r\n\r\nA line \r\n'))).toEqual({
    id: 'gutenberg-a-b',
    title: 'Emma by Jane',
    text: 'A line',
  });
  expect(() => book('a.txt', Buffer.from('no title'))).toThrow(/a\.txt/);
  expect(
    speech('1790_x.json', Buffer.from('{"year":1790,"name":"George Washington","text":"Fellow-Citizens "}')),
  ).toEqual({
    id: 'sotu-1790_x',
    title: 'George Washington, 1790',
    text: 'Fellow-Citizens',
  });
  expect(() => speech('1790_x.json', Buffer.from('{}'))).toThrow(/1790_x\.json: year/);
  expect(() => speech('1790_x.json', Buffer.from('{"year":'))).toThrow(/1790_x\.json: the file is not JSON/);
});

const FOLDOC = `*LISP
StarLISP

   <language> (StarLISP) A {data-parallel} extension of
   {Common
   LISP}, see {left (left parenthesis)} and {(http://a.org/)}.

   [{Jargon File}]

   (2014-12-17)
`;

it('FOLDOC: all words, references as they are shown, no dates', () => {
  expect(computingTerm(FOLDOC)).toEqual({
    title: '*LISP',
    text: '*LISP, StarLISP: (language) (StarLISP) A data-parallel extension of Common LISP, see left and http://a.org/.',
  });
  expect(computingTerm('word\n\n   (2014-12-17)\n')).toEqual({ title: 'word', text: 'word: (2014-12-17)' });
  expect(computingTerm('word\n')).toBeUndefined();
});

it('the Jargon File: part of speech without pronunciation', () => {
  expect(jargonTerm("@-party\n /at'par`tee/, n.\n\n    A party; see {\n    network}.\n\n    Second.\n")).toEqual({
    title: '@-party',
    text: '@-party (n): A party; see network.\n\nSecond.',
  });
  expect(jargonTerm('word\n n.\n')).toBeUndefined();
});

it('poems: names of fields, books of chapters, entries without lines', () => {
  const texts = (value: unknown) => [...poems(Buffer.from(JSON.stringify(value)), 'a/b.json')];
  expect(
    texts([
      { title: '獨遊  其一', author: '元稹', paragraphs: ['遠地難逢侶', ' ', '閒人且獨行。'] },
      { rhythmic: '浣溪沙', para: ['春色'] },
      { content: '读经宜冬' },
      { author: '名', description: '生平' },
    ]),
  ).toEqual([
    { id: 'poetry-a/b-0', title: '獨遊 其一 元稹', text: '《獨遊 其一》元稹\n遠地難逢侶\n閒人且獨行。' },
    { id: 'poetry-a/b-1', title: '浣溪沙', text: '《浣溪沙》\n春色' },
    { id: 'poetry-a/b-2', title: '', text: '读经宜冬' },
  ]);
  const book = { title: '卷一', content: [{ author: '左丘明', content: [{ chapter: '隐公', paragraphs: ['初'] }] }] };
  expect(texts(book).map(({ text }) => text)).toEqual(['《隐公》左丘明\n初']);
  expect(() => texts(7)).toThrow(/a\/b\.json/);
  expect(() => [...poems(Buffer.from('[{'), 'b.json')]).toThrow(/b\.json: the file is not JSON/);
});
