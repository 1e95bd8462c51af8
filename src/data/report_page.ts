/** A report of a build as one HTML page that needs nothing else: no script, no file beside it, no network. */

import type { ShownReport } from './report.ts';
import {
  type ExampleGroup,
  exampleGroups,
  type Fate,
  fates,
  headLines,
  integer,
  KEPT,
  megabytes,
  percent,
  reportTables,
  SKIPPED,
  type Table,
  totalFigures,
  visible,
} from './report_tables.ts';

/** Colours of the reasons in a bar; further reasons take the last. */
const REASON_COLOURS = 9;

const STYLE = `
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2127; --quiet: #5b6570; --line: #d9dee3; --soft: #f4f6f8;
  --kept: #1f8a70; --part-0: #d1495b; --part-1: #e08e2b; --part-2: #5a7fc0; --part-3: #8a5fb0; --part-4: #b8a12a;
  --part-5: #3aa0b5; --part-6: #8d6e5a;
  --part-7: #d477a8; --part-8: #4a4f9c; --skipped: #8d96a0; --warn: #fff4d6; --warn-line: #c58a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e4e8ec; --quiet: #98a3ae; --line: #323a42;
  --soft: #1c2227; --kept: #35ab8c; --part-0: #e0697a; --part-1: #eba34d; --part-2: #7c9cd8; --part-3: #a682c9;
  --part-4: #cdb84a; --part-5: #58b8cb; --part-6: #ab8b76;
  --part-7: #e39bc1; --part-8: #7378c9; --skipped: #737d87; --warn: #33290f; --warn-line: #d9a227; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.15rem; }
p, dl { margin: .25rem 0; }
.note, dt { color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0; padding: 0; list-style: none; }
.tiles li { padding: .7rem .9rem; border-radius: .5rem; background: var(--soft); color: var(--quiet); font-size: .875rem; }
.tiles b { display: block; color: var(--ink); font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.warnings { margin: 1rem 0; padding: .6rem 1rem .6rem 2rem; border-left: .25rem solid var(--warn-line); background: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 100%; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 0 .3rem 1.25rem; vertical-align: top; border-top: 1px solid var(--line); text-align: right; white-space: nowrap; font-weight: normal; }
thead th { border-top: 0; color: var(--quiet); font-size: .8125rem; }
.label { min-width: 9rem; text-align: left; white-space: normal; overflow-wrap: anywhere; }
td.label:empty { border-top: 0; }
th:first-child, td:first-child { padding-left: 0; }
tfoot td { border-top-width: 2px; font-weight: 600; }
.fate { margin: .9rem 0; }
.fate p { display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: 1rem; overflow-wrap: anywhere; }
.bar { display: flex; gap: 1px; height: 1.1rem; overflow: hidden; border-radius: .25rem; background: var(--soft); }
.bar span { min-width: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .5rem 0 0; padding: 0; list-style: none; font-size: .875rem; }
.legend i { display: inline-block; width: .75em; height: .75em; margin-right: .4em; border-radius: .15em; }
details { margin: .4rem 0; border: 1px solid var(--line); border-radius: .5rem; }
summary { padding: .5rem .9rem; cursor: pointer; }
summary span { color: var(--quiet); }
.example { padding: .6rem .9rem; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.example code { color: var(--quiet); font-size: .8125rem; }
blockquote { margin: .3rem 0 0; padding-left: .75rem; border-left: .2rem solid var(--line); }
`;

/** The whole page. Everything that stems from the data is escaped, and the page may load and run nothing. */
export function reportPage(report: ShownReport): string {
  const colours = reasonColours(report);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data report: ${escaped(visible(report.folder))}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>Data report</h1>
<dl>${headLines(report)
    .map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped(value)}</dd>`)
    .join('')}</dl>
${tiles(report)}
${warnings(report)}
<h2>What became of the records</h2>
${fates(report)
  .map((fate) => bar(fate, colours))
  .join('\n')}
${legend(colours)}
${reportTables(report).map(tableHtml).join('\n')}
${examplesHtml(exampleGroups(report))}
</main>
</body>
</html>
`;
}

function escaped(text: string): string {
  const names: Record<string, string> = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot', "'": '#39' };
  return text.replace(/[&<>"']/g, (character) => `&${names[character]};`);
}

/** A colour for each thing that became of records anywhere: the most frequent reasons first, skipped last. */
function reasonColours(report: ShownReport): Map<string, string> {
  const records = new Map<string, number>();
  for (const { parts } of fates(report)) {
    for (const part of parts) records.set(part.what, (records.get(part.what) ?? 0) + part.records);
  }
  const isReason = (what: string) => what !== KEPT && what !== SKIPPED;
  const reasons = [...records.keys()].filter(isReason).sort((a, b) => records.get(b)! - records.get(a)!);
  return new Map([
    [KEPT, 'var(--kept)'],
    ...reasons.map((what, i) => [what, `var(--part-${Math.min(i, REASON_COLOURS - 1)})`] as const),
    ...(records.has(SKIPPED) ? [[SKIPPED, 'var(--skipped)'] as const] : []),
  ]);
}

function tiles(report: ShownReport): string {
  const all = totalFigures(report);
  const shown: [string, string][] = [
    [`${megabytes(all.fileBytes)} MB`, `in ${integer(all.files)} ${all.files === 1 ? 'file' : 'files'}`],
    [integer(all.records), 'records'],
    [integer(all.kept), `documents kept, ${percent(all.kept, all.records).replace(' ', '\u00a0')}`],
    [integer(all.train.tokens), 'tokens to train on'],
    [integer(all.validation.tokens), 'tokens held out'],
  ];
  return `<ul class="tiles">${shown.map(([value, what]) => `<li><b>${value}</b>${escaped(what)}</li>`).join('')}</ul>`;
}

function warnings({ warnings }: ShownReport): string {
  if (warnings.length === 0) return '';
  return `<ul class="warnings">${warnings.map((warning) => `<li>${escaped(visible(warning))}</li>`).join('')}</ul>`;
}

function bar({ name, records, parts }: Fate, colours: Map<string, string>): string {
  const kept = parts.find(({ what }) => what === KEPT)?.records ?? 0;
  const words = parts.map(
    (part) => `${visible(part.what)}: ${integer(part.records)}, ${percent(part.records, records)}`,
  );
  const spans = parts.map(
    (part, i) =>
      `<span title="${escaped(words[i]!)}" style="flex:${part.records} 0 0;background:${colours.get(part.what)}"></span>`,
  );
  return `<div class="fate">
<p><b>${escaped(name)}</b><span class="note">${integer(kept)} of ${integer(records)} kept, ${percent(kept, records)}</span></p>
<div class="bar" role="img" aria-label="${escaped(words.join('; '))}">${spans.join('')}</div>
</div>`;
}

function legend(colours: Map<string, string>): string {
  const items = [...colours].map(
    ([what, colour]) => `<li><i style="background:${colour}"></i>${escaped(visible(what))}</li>`,
  );
  return `<ul class="legend">${items.join('')}</ul>`;
}

function tableHtml({ title, note, header, labels, rows, totals }: Table): string {
  const cell = (tag: string, scope: string) => (text: string, i: number) =>
    `<${tag}${scope}${i < labels ? ' class="label"' : ''}>${escaped(text)}</${tag}>`;
  const head = header.map(cell('th', ' scope="col"')).join('');
  const row = (cells: string[]) => `<tr>${cells.map(cell('td', '')).join('')}</tr>`;
  return `<h2>${escaped(title)}</h2>
${note ? `<p class="note">${escaped(note)}</p>` : ''}
<div class="scroll"><table>
<thead><tr>${head}</tr></thead>
<tbody>${rows.map(row).join('\n')}</tbody>
${totals ? `<tfoot>${row(totals)}</tfoot>` : ''}
</table></div>`;
}

function examplesHtml(groups: ExampleGroup[]): string {
  if (groups.length === 0) return '';
  const example = ({ place, detail, excerpt }: ExampleGroup['examples'][number]) => `<div class="example">
<p>${escaped(detail)}</p>
<code>${escaped(place)}</code>
${excerpt ? `<blockquote>${escaped(excerpt)}</blockquote>` : ''}
</div>`;
  const details = groups.map(
    ({ reason, records, examples }) => `<details>
<summary>${escaped(reason)} <span>${examples.length} of ${integer(records)}</span></summary>
${examples.map(example).join('\n')}
</details>`,
  );
  return `<h2>Examples of what was left out</h2>\n${details.join('\n')}`;
}
