/** Manual pages (the man macros of roff) as paragraphs: without synopsis, listings, tables and fonts. */

import { type Page, PageBuilder } from './page.ts';

/** Macros of fonts: their arguments are text, joined by blanks (one letter) or not (two fonts in turn). */
const FONT = /^(B|I|SM|SB|R|BR|RB|BI|IB|IR|RI)$/;
const BREAK = /^(PP|P|LP|HP|sp|br|RS|RE|TP|TQ|IP|ad|ne)$/;
/** What listings and tables stand between. */
const CLOSED_BY: Record<string, string> = { nf: 'fi', EX: 'EE', TS: 'TE', EQ: 'EN', PS: 'PE', de: '.', ig: '.' };
/** Sections that are no prose, and those that say the same on every page. */
const SKIPPED_SECTION = /SYNOPSIS|COLOPHON|中文版|翻译计划|^(概述|总览|概要|語法|语法|译者|跋)$/;

/** @returns undefined for a page that only names another one, has no prose, or is written in the mdoc macros */
export function manPage(source: string): Page | undefined {
  if (/^\.Dd(\s|$)/m.test(source)) return undefined;
  const reader = new ManReader();
  // A backslash at the end goes on with the next line.
  const lines = source.replaceAll('\r\n', '\n').replace(/\\\n/g, '').split('\n');
  for (const line of lines) reader.line(line);
  return reader.page();
}

class ManReader {
  readonly #builder = new PageBuilder();
  #title: string | undefined;
  #open: string[] = [];
  /** Name of the macro that ends what is being skipped. */
  #until: string | undefined;
  /** Depth of the braces of a condition that is being skipped. */
  #braces = 0;
  #isSkipped = false;
  /** The next line is a tag, a paragraph of its own. */
  #isTag = false;
  /** The next text is the heading of a section. */
  #isHeading = false;

  line(line: string): void {
    const [, macro, rest = ''] = /^[.'][ \t]*(\S*)[ \t]*(.*)$/.exec(line) ?? [];
    if (this.#until !== undefined) {
      if (macro === this.#until) this.#until = undefined;
    } else if (this.#braces > 0) this.#braces += braces(line);
    else if (macro === undefined) this.#text(line);
    else if (/^(if|ie|el|while)$/.test(macro)) this.#braces += Math.max(0, braces(line));
    else this.#macro(macro, rest);
  }

  page(): Page | undefined {
    this.#end();
    return this.#builder.page(this.#title);
  }

  #macro(macro: string, rest: string): void {
    const closing = CLOSED_BY[macro];
    const values = argumentsOf(rest);
    if (closing !== undefined) {
      this.#end();
      this.#until = closing;
    } else if (macro === 'TH') this.#title = plain(`${values[0] ?? ''}(${values[1] ?? ''})`);
    else if (macro === 'SH' || macro === 'SS') {
      this.#end();
      if (macro === 'SH') this.#isSkipped = false;
      this.#isHeading = true;
      if (values.length > 0) this.#text(values.join(' '), macro === 'SH');
    } else if (FONT.test(macro))
      this.#text(values.join(macro.length === 2 && macro !== 'SM' && macro !== 'SB' ? '' : ' '));
    else if (macro === 'UR' || macro === 'MT') this.#text(values[0] ?? '');
    else if (BREAK.test(macro)) {
      this.#end();
      this.#isTag = macro === 'TP' || macro === 'TQ';
      if (macro === 'IP' && /[\p{L}\p{N}]/u.test(plain(values[0] ?? ''))) {
        this.#text(values[0]!);
        this.#end();
      }
    }
  }

  #text(line: string, isSection = true): void {
    const text = plain(line);
    if (this.#isHeading) {
      this.#isHeading = false;
      if (isSection) this.#isSkipped = SKIPPED_SECTION.test(text);
      if (!this.#isSkipped) this.#builder.add('heading', text);
      return;
    }
    if (text.trim() === '') this.#end();
    else this.#open.push(text);
    if (this.#isTag) this.#end();
    this.#isTag = false;
  }

  #end(): void {
    if (!this.#isSkipped) this.#builder.add('paragraph', this.#open.join('\n'));
    this.#open = [];
  }
}

function braces(line: string): number {
  return (line.match(/\\\{/g)?.length ?? 0) - (line.match(/\\\}/g)?.length ?? 0);
}

/** Arguments of a macro: parted by blanks, `"…"` holds blanks and `""` a quotation mark. */
function argumentsOf(rest: string): string[] {
  const found = rest.replace(/\\".*$/, '').match(/"(?:[^"]|"")*"?|(?:\\ |\S)+/g) ?? [];
  return found.map((value) => (value.startsWith('"') ? value.replace(/^"|"$/g, '').replaceAll('""', '"') : value));
}

/** Characters that roff writes with names. */
const NAMED: Record<string, string> = {
  '(em': '—',
  '(en': '–',
  '(bu': '•',
  '(aq': "'",
  '(dq': '"',
  '(lq': '“',
  '(rq': '”',
  '(oq': '‘',
  '(cq': '’',
  '(co': '©',
  '(rg': '®',
  '(ha': '^',
  '(ti': '~',
  '(rs': '\\',
  '(mu': '×',
  '(mc': 'µ',
  '(+-': '±',
  '(->': '→',
  '(<-': '←',
  '(<=': '≤',
  '(>=': '≥',
  '(!=': '≠',
  '(ss': 'ß',
  '*(lq': '“',
  '*(rq': '”',
  '*R': '®',
};

const ESCAPE = new RegExp(
  [
    '\\\\"[\\s\\S]*', // a comment
    '\\\\#[\\s\\S]*',
    '\\\\f(?:\\[[^\\]]*\\]|\\(..|.)', // a font
    '\\\\s[+-]?(?:\\[[^\\]]*\\]|\\d{1,2}|\\(..)', // a size
    "\\\\[hvwlLoZDbABRHSNXCx]'[^']*'", // movements and drawings
    '\\\\[kmMn](?:\\[[^\\]]*\\]|\\(..|.)',
    '\\\\(?<named>\\*?(?:\\(..|\\[[^\\]]*\\]))', // a character or string
    '\\\\\\*(?<string>.)',
    '\\\\(?<single>[\\s\\S])',
  ].join('|'),
  'g',
);

/** Text without fonts, sizes and comments, its characters as they are printed. */
function plain(line: string): string {
  return line.replace(ESCAPE, (...found: unknown[]) => {
    const { named, string, single } = found.at(-1) as Record<string, string | undefined>;
    if (named !== undefined) return namedCharacter(named);
    if (string !== undefined) return NAMED[`*${string}`] ?? '';
    if (single === 'e' || single === '\\') return '\\';
    if (single !== undefined && " 0~t-.'`".includes(single)) return ' 0~t'.includes(single) ? ' ' : single;
    return '';
  });
}

/** `(em` and `[em]` are the same; `[u2014]` is a code point; letters with accents are `['e]` or `('e`. */
function namedCharacter(name: string): string {
  const inner = name.replace(/^\*?\(|^\*?\[|\]$/g, '');
  const code = /^u([0-9A-F]{4,6})$/.exec(inner)?.[1];
  if (code !== undefined) return String.fromCodePoint(Number.parseInt(code, 16));
  const known = NAMED[`${name.startsWith('*') ? '*' : ''}(${inner}`];
  if (known !== undefined) return known;
  const [mark = '', letter = ''] = inner;
  const accent = { "'": '\u0301', '`': '\u0300', '^': '\u0302', ':': '\u0308', '~': '\u0303', ',': '\u0327' }[mark];
  return inner.length === 2 && accent !== undefined ? `${letter}${accent}`.normalize('NFC') : '';
}
