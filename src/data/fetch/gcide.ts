/** The GNU version of the Collaborative International Dictionary of English, from its dictd files. */

import { dictionaryCorpus } from './dictd.ts';

export const gcide = dictionaryCorpus(
  {
    name: 'gcide',
    describe: "a dictionary of English: Webster's of 1913 with additions",
    language: 'English',
    megabytes: 25,
    licence: 'GPL-2+',
  },
  cleanEntry,
);

/**
 * Headword and text without pronunciation, etymology and marks of sources, lines joined to paragraphs; undefined when
 * nothing is explained.
 */
export function cleanEntry(entry: string): { title: string; text: string } | undefined {
  const [head = '', ...rest] = accented(entry)
    .trim()
    .split(/\n\s*\n/);
  const title = /^[^\\[(]+/.exec(head.replace(/\s+/g, ' '))?.[0].replace(/[\s,.]+$/, '') ?? '';
  // Between backslashes, and in round brackets behind, stands the pronunciation; in the head's square ones the etymology.
  const first = withoutBrackets(head.replace(/\\[^\\]*\\(\s*\([^)]*\))?/g, ' '));
  const paragraphs = [first, ...rest].map(cleanParagraph).filter((paragraph) => paragraph !== '');
  const text = paragraphs.join('\n');
  return title === '' || text.length <= title.length + MARKS ? undefined : { title, text };
}

/** What a head without explanation still says: `, v. t.` */
const MARKS = 8;

function cleanParagraph(paragraph: string): string {
  return paragraph
    .split('\n')
    .filter((line) => !/^\s*\[[^\]]*\]\s*$/.test(line))
    .join(' ')
    .replace(/[{}]/g, '')
    .replace(/\s+/g, ' ')
    .replace(/ ([,.;:])/g, '$1')
    .trim();
}

/** Leaves out what stands in square brackets, which may be nested. */
function withoutBrackets(text: string): string {
  let depth = 0;
  let out = '';
  for (const character of text) {
    if (character === '[') depth++;
    if (depth === 0) out += character;
    if (character === ']') depth = Math.max(0, depth - 1);
  }
  return out;
}

/** Combining characters of the marks that GCIDE writes before a letter in brackets. */
const ACCENTS: Record<string, string> = {
  "'": '\u0301',
  '`': '\u0300',
  '^': '\u0302',
  '"': '\u0308',
  '=': '\u0304',
  '~': '\u0303',
  ',': '\u0327',
};

/** `caf['e]` as `café`, `[ae]gis` as `ægis`. */
function accented(text: string): string {
  return text
    .replace(/\[(['`^"=~,])([A-Za-z])\]/g, (_, mark: string, letter: string) =>
      `${letter}${ACCENTS[mark]}`.normalize('NFC'),
    )
    .replace(/\[(ae|oe|AE|OE)\]/g, (_, letters: string) => ({ ae: 'æ', oe: 'œ', AE: 'Æ', OE: 'Œ' })[letters]!);
}
