/** The figures of a report as tables of words, the same for a terminal and for a page. */

import type { Example, ShownReport, SourceReport } from './report.ts';
import { placeOf } from './sources/problem.ts';

export interface Table {
  title: string;
  /** What the columns mean, where their heads do not say it. */
  note?: string;
  header: string[];
  /** Columns at the left that hold words; the others hold numbers. */
  labels: number;
  rows: string[][];
  /** Sums in the last row. */
  totals?: string[];
}

/** What became of the records of a source, as parts of a bar. */
export interface Fate {
  name: string;
  records: number;
  parts: { what: string; records: number }[];
}

export const KEPT = 'kept';
export const SKIPPED = 'skipped';
const ALL = 'all';

export const integer = (value: number) => value.toLocaleString('en-US', { maximumFractionDigits: 0 });
export const megabytes = (bytes: number) => tenths(bytes / 1e6);
export const percent = (part: number, whole: number) => (whole === 0 ? '–' : `${tenths((100 * part) / whole)} %`);

/** With one digit; what would read as nothing but is something, as less than a tenth. */
const tenths = (value: number) => (value > 0 && value < 0.05 ? '<0.1' : fixed(value, 1));

function fixed(value: number, digits: number): string {
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/**
 * Text of others on one line: line feeds as ⏎, all else that moves a terminal's cursor or the direction of writing as ·,
 * so that it cannot play tricks on who reads it.
 */
export function visible(text: string): string {
  return text
    .replace(/\r?\n/g, '⏎')
    .replace(/\t/g, ' ')
    .replace(/[\p{Cc}\p{Cs}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '·');
}

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);

interface Figures {
  name: string;
  files: number;
  fileBytes: number;
  /** Documents and skipped records. */
  records: number;
  skipped: number;
  dropped: number;
  kept: number;
  train: SourceReport['train'];
  validation: SourceReport['validation'];
}

function figures({ name, files, fileBytes, documents, train, validation, ...left }: SourceReport): Figures {
  const skipped = sum(Object.values(left.skipped));
  const dropped = sum(Object.values(left.dropped).map((reason) => reason.documents));
  const kept = train.documents + validation.documents;
  return { name, files, fileBytes, records: documents + skipped, skipped, dropped, kept, train, validation };
}

function totals(all: readonly Figures[]): Figures {
  const total = (pick: (figures: Figures) => number) => sum(all.map(pick));
  const split = (pick: (figures: Figures) => SourceReport['train']) => ({
    documents: total((f) => pick(f).documents),
    tokens: total((f) => pick(f).tokens),
    bytes: total((f) => pick(f).bytes),
  });
  return {
    name: ALL,
    files: total((f) => f.files),
    fileBytes: total((f) => f.fileBytes),
    records: total((f) => f.records),
    skipped: total((f) => f.skipped),
    dropped: total((f) => f.dropped),
    kept: total((f) => f.kept),
    train: split((f) => f.train),
    validation: split((f) => f.validation),
  };
}

/** All sources, those of stage two named so. */
function allSources({ sources, continual = [] }: ShownReport): SourceReport[] {
  return [...sources, ...continual.map((source) => ({ ...source, name: `stage two: ${source.name}` }))];
}

/** The sums over all sources. */
export function totalFigures(report: ShownReport): Figures {
  return totals(allSources(report).map(figures));
}

/** All tables, in the order in which they are shown; those without rows are left out. */
export function reportTables(report: ShownReport): Table[] {
  const tables = [
    readTable(report),
    trainedTable('Trained on', report.sources, report.sequenceLength),
    trainedTable('Trained on in stage two', report.continual ?? [], report.sequenceLength),
    leftOutTable(report),
    stageTable(report),
  ];
  return tables.filter(({ rows }) => rows.length > 0);
}

function readTable(report: ShownReport): Table {
  const all = allSources(report).map(figures);
  const row = (f: Figures) => [
    visible(f.name),
    integer(f.files),
    megabytes(f.fileBytes),
    integer(f.records),
    integer(f.skipped),
    integer(f.dropped),
    integer(f.kept),
    percent(f.kept, f.records),
  ];
  return {
    title: 'Read',
    note: 'Skipped: could not be read. Dropped: by a rule, or met before.',
    header: ['source', 'files', 'MB', 'records', 'skipped', 'dropped', 'kept', 'share'],
    labels: 1,
    rows: all.map(row),
    ...(all.length > 1 && { totals: row(totals(all)) }),
  };
}

function trainedTable(title: string, sources: readonly SourceReport[], sequenceLength: number): Table {
  const all = sources.map(figures);
  const weights = sources.map(({ weight }) => weight);
  // Without weights a source is met as often as it has tokens; one without a sequence and its last target never.
  const parts = sources.map(({ weight, train }) => (train.tokens <= sequenceLength ? 0 : (weight ?? train.tokens)));
  const row = ({ name, train, validation }: Figures, weight: string, epoch: string) => [
    visible(name),
    integer(train.documents),
    integer(validation.documents),
    integer(train.tokens),
    bytesPerToken(train, validation),
    weight,
    epoch,
  ];
  return {
    title,
    note: 'Tokens: of training. Epoch: the part of its sequences that come from the source.',
    header: ['source', 'documents', 'held out', 'tokens', 'B/token', 'weight', 'epoch'],
    labels: 1,
    rows: all.map((f, i) => row(f, `${weights[i] ?? '–'}`, percent(parts[i]!, sum(parts)))),
    ...(all.length > 1 && { totals: row(totals(all), '', '') }),
  };
}

/** The begin-of-text token of each document stands for none of its bytes. */
function bytesPerToken(...splits: SourceReport['train'][]): string {
  const tokens = sum(splits.map((split) => split.tokens - split.documents));
  return tokens > 0 ? fixed(sum(splits.map(({ bytes }) => bytes)) / tokens, 2) : '–';
}

function leftOutTable(report: ShownReport): Table {
  const rows = allSources(report).flatMap((source) => {
    const { records } = figures(source);
    const reasons = [
      ...sorted(source.skipped, (count) => count).map(([reason, count]) => [`skipped: ${reason}`, count, '–'] as const),
      ...sorted(source.dropped, ({ documents }) => documents).map(
        ([reason, { documents, bytes }]) => [reason, documents, megabytes(bytes)] as const,
      ),
    ];
    return reasons.map(([reason, count, mb], i) => [
      i === 0 ? visible(source.name) : '',
      visible(reason),
      integer(count),
      percent(count, records),
      mb,
    ]);
  });
  return { title: 'Left out', header: ['source', 'reason', 'records', 'share', 'MB'], labels: 2, rows };
}

function sorted<Value>(record: Record<string, Value>, count: (value: Value) => number): [string, Value][] {
  return Object.entries(record).sort(([, a], [, b]) => count(b) - count(a));
}

function stageTable({ stages }: ShownReport): Table {
  return {
    title: 'Time',
    note: 'Of the last run, if the build was interrupted.',
    header: ['stage', 'seconds', 'MB', 'MB/s'],
    labels: 1,
    rows: stages.map(({ stage, seconds, bytes }) => [
      stage,
      fixed(seconds, 1),
      megabytes(bytes),
      seconds > 0 ? fixed(bytes / 1e6 / seconds, 1) : '–',
    ]),
  };
}

/** What became of the records of each source: kept, skipped, dropped by reason. */
export function fates(report: ShownReport): Fate[] {
  return allSources(report).map((source) => {
    const { name, records, kept, skipped } = figures(source);
    const dropped = sorted(source.dropped, ({ documents }) => documents);
    const parts = [
      { what: KEPT, records: kept },
      ...dropped.map(([what, { documents }]) => ({ what, records: documents })),
      { what: SKIPPED, records: skipped },
    ];
    return { name: visible(name), records, parts: parts.filter((part) => part.records > 0) };
  });
}

export interface ExampleGroup {
  reason: string;
  /** Records that were left out for it, in all sources. */
  records: number;
  examples: { place: string; detail: string; excerpt: string | undefined }[];
}

/** The examples of each reason, the most frequent reason first. */
export function exampleGroups(report: ShownReport): ExampleGroup[] {
  const groups = new Map<string, Example[]>();
  for (const example of report.examples) groups.set(example.reason, [...(groups.get(example.reason) ?? []), example]);
  const count = (reason: string) =>
    sum(allSources(report).map(({ skipped, dropped }) => (skipped[reason] ?? 0) + (dropped[reason]?.documents ?? 0)));
  return [...groups]
    .map(([reason, list]) => ({
      reason: visible(reason),
      records: count(reason),
      examples: list.map(({ path, offset, detail, excerpt }) => ({
        place: visible(placeOf(path, offset)),
        detail: visible(detail),
        excerpt: excerpt === undefined ? undefined : visible(excerpt.trim()),
      })),
    }))
    .sort((a, b) => b.records - a.records);
}

/** The lines above all tables: name and value. */
export function headLines({ folder, tokenizer, references }: ShownReport): [string, string][] {
  const { vocabSize, hash, trained } = tokenizer;
  const perReference =
    references.references === 0 ? '' : `, ${fixed(references.tokens / references.references, 1)} tokens each`;
  return [
    ['folder', visible(folder)],
    ['tokenizer', `${integer(vocabSize)} tokens, ${trained ? 'trained' : 'given'}, sha256 ${hash.slice(0, 12)}…`],
    ['references', `${integer(references.references)} from ${integer(references.documents)} documents${perReference}`],
  ];
}
