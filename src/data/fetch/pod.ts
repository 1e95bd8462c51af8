/** Pages of POD (Perl's documentation, perlpod) as paragraphs: without listings and formatting codes. */

import { type Page, PageBuilder } from './page.ts';

/** @returns undefined when the page has no prose */
export function podPage(source: string): Page | undefined {
  const builder = new PageBuilder();
  // A file of Perl code is no documentation until the first command.
  let isPod = false;
  let isForOthers = false;
  for (const paragraph of source.replaceAll('\r\n', '\n').split(/\n[ \t]*\n/)) {
    const text = paragraph.replace(/^\n+/, '');
    const [, command, content = ''] = /^=([a-zA-Z]\w*)\s*([\s\S]*)$/.exec(text) ?? [];
    if (command !== undefined) isPod = command !== 'cut';
    if (command === 'begin') isForOthers = true;
    else if (command === 'end') isForOthers = false;
    else if (!isPod || isForOthers || /^\s/.test(text)) continue;
    else if (command === undefined) builder.add('paragraph', formatted(text));
    else if (command.startsWith('head')) builder.add('heading', formatted(content));
    // A bullet or number alone stands before a paragraph, which says what the item is.
    else if (command === 'item' && /\p{L}/u.test(content))
      builder.add('item', formatted(content.replace(/^\*\s+/, '')));
  }
  const page = builder.page();
  // A page begins with `NAME` and `name - what it is about`.
  return page && { ...page, title: /^NAME\n\n(.+)/.exec(page.text)?.[1] ?? page.title };
}

const ENTITIES: Record<string, string> = { lt: '<', gt: '>', verbar: '|', sol: '/', nbsp: ' ', amp: '&', quot: '"' };
const OPENING = /([A-Z])(<(?!<)|<{2,}\s)/g;

/** The text with its codes, which may be nested, unwrapped. */
function formatted(text: string): string {
  OPENING.lastIndex = 0;
  const found = OPENING.exec(text);
  if (!found) return text;
  const [opening, letter = '', marks = ''] = found;
  const start = found.index + opening.length;
  const end = closing(text, start, marks);
  const inside = text.slice(start, end.at).trim();
  return `${text.slice(0, found.index)}${shown(letter, inside)}${formatted(text.slice(end.behind))}`;
}

/** Where a code ends: at `>` of its own depth, or at a blank and as many `>` as it began with. */
function closing(text: string, start: number, marks: string): { at: number; behind: number } {
  const width = marks.trim().length;
  if (width > 1) {
    const at = text.slice(start).search(new RegExp(`\\s>{${width}}(?!>)`));
    const end = at < 0 ? text.length : start + at;
    return { at: end, behind: Math.min(text.length, end + 1 + width) };
  }
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text[at] === '<' && /[A-Z]/.test(text[at - 1] ?? '')) depth++;
    else if (text[at] === '>' && depth-- === 0) return { at, behind: at + 1 };
  }
  return { at: text.length, behind: text.length };
}

function shown(letter: string, inside: string): string {
  if (letter === 'X' || letter === 'Z') return '';
  if (letter === 'E') return ENTITIES[inside] ?? codePoint(inside);
  if (letter !== 'L') return formatted(inside);
  const [first = '', target] = inside.split('|', 2);
  if (target !== undefined) return formatted(first);
  // `perlop/"Quote Operators"`: the section, else the page.
  const [page = '', section] = /^\w+:\/\//.test(first) ? [first] : first.split('/', 2);
  return formatted(section === undefined || section === '' ? page : section.replace(/^"|"$/g, ''));
}

function codePoint(name: string): string {
  const number = Number(/^\d+$|^0x[0-9a-f]+$/i.test(name) ? name : name.replace(/^x/i, '0x'));
  return Number.isInteger(number) && number > 0 && number <= 0x10ffff ? String.fromCodePoint(number) : '';
}
