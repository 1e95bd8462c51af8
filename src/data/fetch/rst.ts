/**
 * Pages of reStructuredText (docutils and Sphinx) as paragraphs: without directives that are no prose, comments, listings
 * and tables, inline marks unwrapped.
 */

import { type Page, PageBuilder } from './page.ts';

/** Directives whose content is no prose. */
const DROPPED = new Set(
  `code code-block sourcecode literalinclude parsed-literal highlight doctest testcode testoutput testsetup testcleanup
   productionlist toctree contents index include image figure kernel-figure kernel-image kernel-render kernel-doc
   kernel-abi kernel-feat maintainers-include graphviz digraph math raw table list-table csv-table flat-table tabularcolumns
   module currentmodule moduleauthor sectionauthor codeauthor only meta highlightlang default-domain default-role role
   audit-event audit-event-table c:namespace c:namespace-push c:namespace-pop unicode replace class-decl sectnum
   cssclass rst-class tabs`.split(/\s+/),
);
/** Directives whose argument begins the sentence that their content ends. */
const VERSIONS: Record<string, string> = {
  versionadded: 'New in version',
  versionchanged: 'Changed in version',
  deprecated: 'Deprecated since version',
  'deprecated-removed': 'Deprecated since version',
};
/** Directives whose argument is the first line of a paragraph. */
const NOTES =
  /^(note|warning|tip|hint|important|attention|caution|danger|error|seealso|admonition|topic|rubric|sidebar)$/;
/** Directives whose argument says how their content looks, not what it is. */
const SILENT =
  /^(container|compound|epigraph|highlights|pull-quote|glossary|centered|hlist|class|availability|impl-detail)$/;

const ADORNMENT = /^([!-/:-@[-`{-~])\1{2,}\s*$/;
const TABLE_BORDER = /^=+( +=+)+\s*$/;
const EXPLICIT = /^\.\.(\s|$)/;
const DIRECTIVE = /^\.\. +(?:\|[^|]+\| +)?([\w:+.-]+?) ?::(?:\s+|$)(.*)/;
const FOOTNOTE = /^\.\. +\[([^\]]+)\]\s+(.*)/;
const ITEM = /^([-*+•‣]|\d{1,3}[.)]|#\.|\([\da-z]{1,3}\)|[a-z][.)])\s+(?=\S)/i;
const FIELD = /^:((?:[^:`\\\n]|\\.)+):(?:\s+|$)/;

/** @returns undefined when the page has no prose */
export function rstPage(source: string): Page | undefined {
  const reader = new RstReader();
  reader.read(source.replaceAll('\r\n', '\n').replaceAll('\t', '        ').split('\n'));
  return reader.builder.page();
}

class RstReader {
  readonly builder = new PageBuilder();
  /** Fields before the first paragraph tell of the document: author, version, copyright. */
  #hasProse = false;

  read(lines: readonly string[]): void {
    let at = 0;
    while (at < lines.length) at = this.#block(lines, at);
  }

  /** Reads the block that begins at line `at`. @returns the line behind it */
  #block(lines: readonly string[], at: number): number {
    const line = lines[at]!.trimEnd();
    const text = line.trimStart();
    if (text === '') return at + 1;
    if (EXPLICIT.test(text)) return this.#explicit(lines, at);
    if (/^>>> /.test(text) || /^\+[-=+]{2,}\+$/.test(text)) return untilEmpty(lines, at);
    if (TABLE_BORDER.test(text)) return untilTableEnds(lines, at);
    if (text === '::') return untilIndent(lines, at + 1, indentOf(line));
    if (text.startsWith('__ ') || ADORNMENT.test(text)) return at + 1;
    if (isTitle(lines, at)) {
      this.builder.add('heading', inline(text.replace(/::$/, ':')));
      return at + 2;
    }
    if (FIELD.test(text)) return this.#field(lines, at);
    return this.#paragraph(lines, at);
  }

  /** A comment, target, footnote, substitution or directive. */
  #explicit(lines: readonly string[], at: number): number {
    const text = lines[at]!.trim();
    const end = untilDedent(lines, at);
    const [, name, argument = ''] = DIRECTIVE.exec(text) ?? [];
    const [, label, first = ''] = FOOTNOTE.exec(text) ?? [];
    const body = withoutOptions(lines.slice(at + 1, end));
    if (label !== undefined) this.read([first, ...dedented(body)]);
    if (name === undefined || DROPPED.has(name) || /^\.\. +\|/.test(text)) return end;
    const version = VERSIONS[name];
    if (version !== undefined) this.#version(version, argument, body);
    else if (NOTES.test(name)) this.read([argument, ...dedented(body)]);
    else {
      if (argument !== '' && !SILENT.test(name)) this.#add('paragraph', argument.replaceAll('\\', ''));
      this.read(body);
    }
    return end;
  }

  /** `.. versionadded:: 3.5` with its content, which goes on with the sentence. */
  #version(says: string, argument: string, body: readonly string[]): void {
    const [, number = '', rest = ''] = /^(\S*)\s*(.*)$/.exec(argument) ?? [];
    const content = [rest, ...dedented(body)].join('\n').trim();
    this.read(`${says} ${number}${content === '' ? '.' : `: ${content}`}`.split('\n'));
  }

  #field(lines: readonly string[], at: number): number {
    const end = untilDedent(lines, at);
    if (!this.#hasProse) return end;
    const [marker = '', name = ''] = FIELD.exec(lines[at]!.trimStart()) ?? [];
    const [first, ...rest] = lines.slice(at, end).map((line) => line.trimStart());
    this.read([`${name}: ${first!.slice(marker.length)}`.trimEnd(), ...rest]);
    return end;
  }

  #paragraph(lines: readonly string[], at: number): number {
    const marker = ITEM.exec(lines[at]!.trimStart())?.[0] ?? '';
    const indent = indentOf(lines[at]!) + marker.length;
    const taken = [lines[at]!.trimStart().slice(marker.length)];
    let end = at + 1;
    while (end < lines.length && goesOn(lines[end]!, indent)) taken.push(lines[end++]!.trim());
    const text = taken
      .map((line) => line.replace(/^\| /, ''))
      .join('\n')
      .trimEnd();
    const isLiteral = text.endsWith('::');
    this.#add(marker === '' ? 'paragraph' : 'item', text.replace(/\s*::$/, ':'));
    return isLiteral ? untilIndent(lines, end, indent) : end;
  }

  #add(kind: 'paragraph' | 'item', text: string): void {
    this.#hasProse = true;
    this.builder.add(kind, inline(text));
  }
}

/** True when a line belongs to the paragraph whose lines are set in by `indent`. */
function goesOn(line: string, indent: number): boolean {
  const text = line.trimStart();
  return text.trim() !== '' && indentOf(line) === indent && !ITEM.test(text) && !EXPLICIT.test(text);
}

/** A title is a line with a line of punctuation under it that is long enough. */
function isTitle(lines: readonly string[], at: number): boolean {
  const below = (lines[at + 1] ?? '').trimEnd();
  return ADORNMENT.test(below) && below.length * 2 >= lines[at]!.trim().length && indentOf(below) === 0;
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

function untilEmpty(lines: readonly string[], at: number): number {
  let end = at;
  while (end < lines.length && lines[end]!.trim() !== '') end++;
  return end;
}

/** The line behind all that is set further in than line `at`. */
function untilDedent(lines: readonly string[], at: number): number {
  return untilIndent(lines, at + 1, indentOf(lines[at]!));
}

/** The first line from `at` on that is set in by `indent` at most. */
function untilIndent(lines: readonly string[], at: number, indent: number): number {
  let end = at;
  while (end < lines.length && (lines[end]!.trim() === '' || indentOf(lines[end]!) > indent)) end++;
  return end;
}

/** A simple table ends with a border that has an empty line behind it. */
function untilTableEnds(lines: readonly string[], at: number): number {
  let end = at + 1;
  while (end < lines.length) {
    if (TABLE_BORDER.test(lines[end]!.trim()) && (lines[end + 1] ?? '').trim() === '') return end + 1;
    end++;
  }
  return untilEmpty(lines, at);
}

/** The content of a directive without the options that stand in front of it. */
function withoutOptions(lines: readonly string[]): readonly string[] {
  let at = 0;
  while (at < lines.length && /^\s*:[\w-]+:(\s|$)/.test(lines[at]!)) at++;
  return lines.slice(at);
}

function dedented(lines: readonly string[]): string[] {
  const depths = lines.filter((line) => line.trim() !== '').map(indentOf);
  const depth = Math.min(...depths);
  return lines.map((line) => line.slice(depth));
}

const INLINE = new RegExp(
  [
    '``(?<literal>(?:[^`]|`(?!`))+)``', // literal text
    ':(?:[\\w+.-]+:){1,3}`(?<role>[^`]+)`', // a role
    '`(?<phrase>[^`]+)`_{0,2}', // a reference
    '\\*\\*(?<strong>[^*\\n](?:[^*]*[^*\\s])?)\\*\\*',
    '(?<![\\w*])\\*(?<emphasis>[^*\\s](?:[^*]*[^*\\s])?)\\*(?![\\w*])',
    '(?<footnote> ?\\[(?:#\\w*|\\*|\\d+)\\]_)',
    '\\|(?<substitution>\\w[\\w -]*)\\|_?',
    '(?<=\\b)(?<reference>[A-Za-z][A-Za-z0-9.-]*[A-Za-z0-9])__?(?=[\\s.,;:)!?]|$)',
    '\\\\(?<escaped>[\\s\\S])',
  ].join('|'),
  'g',
);

/** Text without the marks of emphasis, literals, roles, references and footnotes. */
function inline(text: string): string {
  return text.replace(INLINE, (...found: unknown[]) => {
    const marks = found.at(-1) as Record<string, string | undefined>;
    const { literal, role, phrase, footnote, escaped } = marks;
    if (literal !== undefined) return literal;
    if (role !== undefined) return target(role);
    if (phrase !== undefined) return target(phrase);
    if (footnote !== undefined) return '';
    if (escaped !== undefined) return /\s/.test(escaped) ? '' : escaped;
    return marks.strong ?? marks.emphasis ?? marks.substitution ?? marks.reference ?? '';
  });
}

/** What is shown of `text <target>`, `~module.name` and `!name`. */
function target(text: string): string {
  const shown = /^([\s\S]*\S)\s*<[^<>]*>$/.exec(text)?.[1];
  return shown ?? text.replace(/^~(?:[\w.]*\.)?/, '').replace(/^[!<]|>$/g, '');
}
