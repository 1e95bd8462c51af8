/** A report of a build for a terminal. */

import type { ShownReport } from './report.ts';
import {
  type ExampleGroup,
  exampleGroups,
  headLines,
  integer,
  reportTables,
  type Table,
  visible,
} from './report_tables.ts';

const LEAST_WIDTH = 60;
const GAP = '  ';
const EXCERPT_LINES = 2;

/** The whole report in lines of at most `width` columns, where no number or file name needs more. */
export function reportText(report: ShownReport, width = 80): string {
  const columns = Math.max(LEAST_WIDTH, width);
  const warnings = report.warnings.flatMap((warning) => wrapped(visible(warning), columns, '! ', '  '));
  const blocks = [
    headLines(report).map(([name, value]) => `${name.padEnd(12)}${value}`),
    ...(warnings.length > 0 ? [warnings] : []),
    ...reportTables(report).map((table) => tableLines(table, columns)),
    ...exampleGroups(report).map((group) => exampleLines(group, columns)),
  ];
  return blocks.map((lines) => lines.join('\n')).join('\n\n');
}

function tableLines(table: Table, columns: number): string[] {
  const { header, rows, totals, labels, title, note } = table;
  const widths = columnWidths(table, columns);
  const line = (cells: string[]) =>
    cells
      .map((cell, i) => (i < labels ? padEnd(cut(cell, widths[i]!), widths[i]!) : cell.padStart(widths[i]!)))
      .join(GAP)
      .trimEnd();
  const rule = '─'.repeat(widths.reduce((sum, width) => sum + width, GAP.length * (widths.length - 1)));
  return [
    ...wrapped(note ? `${title.toUpperCase()}  ${note}` : title.toUpperCase(), columns, '', ''),
    line(header),
    rule,
    ...rows.map(line),
    ...(totals ? [rule, line(totals)] : []),
  ];
}

/** Numbers are never cut; the first column gives way. */
function columnWidths({ header, rows, totals }: Table, columns: number): number[] {
  const all = [header, ...rows, ...(totals ? [totals] : [])];
  const widths = header.map((_, i) => Math.max(...all.map((row) => widthOf(row[i]!))));
  const others = widths.slice(1).reduce((sum, width) => sum + width + GAP.length, 0);
  widths[0] = Math.min(widths[0]!, Math.max(header[0]!.length, columns - others));
  return widths;
}

function exampleLines({ reason, records, examples }: ExampleGroup, columns: number): string[] {
  return [
    `${reason.toUpperCase()}  ${examples.length} of ${integer(records)}`,
    ...examples.flatMap(({ place, detail, excerpt }) => [
      `  ${place}`,
      ...(detail === reason ? [] : wrapped(detail, columns, '    ', '    ')),
      ...excerptLines(excerpt ?? '', columns - 6).map((line) => `    │ ${line}`),
    ]),
  ];
}

/** The beginning of a text in at most EXCERPT_LINES lines. */
function excerptLines(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (let rest = text; rest !== '' && lines.length < EXCERPT_LINES; ) {
    const isLast = lines.length === EXCERPT_LINES - 1;
    const line = isLast ? cut(rest, columns) : beginning(rest, columns);
    lines.push(line);
    rest = rest.slice(line.length);
  }
  return lines;
}

/** `text` broken between words; a longer word has a line of its own. */
function wrapped(text: string, columns: number, first: string, others: string): string[] {
  const lines: string[] = [];
  let line = first;
  for (const word of text.split(' ')) {
    const isEmpty = line === first || line === others;
    if (!isEmpty && widthOf(line) + 1 + widthOf(word) > columns) {
      lines.push(line);
      line = others + word;
    } else {
      line += isEmpty ? word : ` ${word}`;
    }
  }
  return [...lines, line];
}

/** Characters that take two columns of a terminal: East Asian wide and full-width ones, emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

function characterWidth(character: string): number {
  if (/[\p{M}\p{Cf}]/u.test(character)) return 0;
  return WIDE.test(character) ? 2 : 1;
}

function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += characterWidth(character);
  return width;
}

function padEnd(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}

function cut(text: string, width: number): string {
  return widthOf(text) <= width ? text : `${beginning(text, width - 1)}…`;
}

/** As many characters as take `width` columns. */
function beginning(text: string, width: number): string {
  let [end, taken] = [0, 0];
  for (const character of text) {
    taken += characterWidth(character);
    if (taken > width) break;
    end += character.length;
  }
  return text.slice(0, end);
}
