import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import yargs from 'yargs';
import { reportCommand } from '../../src/cli/data_report.ts';
import type { ShownReport, SourceReport } from '../../src/data/report.ts';
import { reportPage } from '../../src/data/report_page.ts';
import { exampleGroups, fates, reportTables } from '../../src/data/report_tables.ts';
import { reportText } from '../../src/data/report_text.ts';
import { anyCharacter, temporaryFolder, userErrorOf } from './support.ts';

function sourceReport(name: string, fields: Partial<SourceReport> = {}): SourceReport {
  return {
    name,
    files: 2,
    fileBytes: 2_500_000,
    documents: 100,
    bytes: 2_000_000,
    skipped: { 'invalid JSON': 10, 'no text field': 15 },
    dropped: { 'too few words': { documents: 5, bytes: 300 }, duplicate: { documents: 20, bytes: 400_000 } },
    train: { documents: 70, tokens: 400_070, bytes: 1_200_000 },
    validation: { documents: 5, tokens: 100_005, bytes: 300_000 },
    ...fields,
  };
}

function shownReport(fields: Partial<ShownReport> = {}): ShownReport {
  return {
    folder: 'runs/x/data',
    sequenceLength: 64,
    sources: [
      sourceReport('books'),
      sourceReport('古典诗歌选集', { train: { documents: 1, tokens: 100_000, bytes: 4 } }),
    ],
    examples: [
      { reason: 'invalid JSON', path: 'a.jsonl', offset: 17, detail: 'Unexpected token' },
      {
        reason: 'duplicate',
        path: 'b.jsonl',
        offset: 5,
        detail: 'the same as document 3',
        excerpt: 'Once upon\na time',
      },
    ],
    stages: [{ stage: 'read and clean', seconds: 2, bytes: 5_000_000 }],
    warnings: ['the vocabulary is small'],
    tokenizer: { vocabSize: 8192, hash: '0123456789abcdef'.repeat(4), trained: true },
    references: { references: 10, documents: 4, tokens: 1000 },
    ...fields,
  };
}

const row = (report: ShownReport, title: string, first: string) => {
  const table = reportTables(report).find((table) => table.title === title);
  return [...(table?.rows ?? []), table?.totals ?? []].find(([name]) => name === first);
};

describe('reportTables', () => {
  it('counts skipped records and documents as records, and takes shares of them', () => {
    expect(row(shownReport(), 'Read', 'books')).toEqual(['books', '2', '2.5', '125', '25', '25', '75', '60.0 %']);
    expect(row(shownReport(), 'Read', 'all')).toEqual(['all', '4', '5.0', '250', '50', '50', '81', '32.4 %']);
    const leftOut = reportTables(shownReport()).find(({ title }) => title === 'Left out');
    expect(leftOut?.rows.slice(0, 4)).toEqual([
      ['books', 'skipped: no text field', '15', '12.0 %', '–'],
      ['', 'skipped: invalid JSON', '10', '8.0 %', '–'],
      ['', 'duplicate', '20', '16.0 %', '0.4'],
      ['', 'too few words', '5', '4.0 %', '<0.1'],
    ]);
  });

  it('gives the part of an epoch by weight, else by tokens', () => {
    expect(row(shownReport(), 'Trained on', 'books')).toEqual(['books', '70', '5', '400,070', '3.00', '–', '80.0 %']);
    const sources = [sourceReport('a', { weight: 0.5 }), sourceReport('b', { weight: 1.5 })];
    expect(row(shownReport({ sources }), 'Trained on', 'b')?.slice(5)).toEqual(['1.5', '75.0 %']);
    const short = sourceReport('c', { weight: 9, train: { documents: 1, tokens: 64, bytes: 100 } });
    const withShort = shownReport({ sources: [...sources, short] });
    expect(row(withShort, 'Trained on', 'b')?.slice(5)).toEqual(['1.5', '75.0 %']);
    expect(row(withShort, 'Trained on', 'c')?.slice(5)).toEqual(['9', '0.0 %']);
    expect(row(shownReport({ sources }), 'Trained on', 'all')).toEqual(['all', '140', '10', '800,140', '3.00', '', '']);
  });

  it('gives the speed of the stages, and no totals of a single source', () => {
    const report = shownReport({ sources: [sourceReport('one')] });
    expect(row(report, 'Time', 'read and clean')).toEqual(['read and clean', '2.0', '5.0', '2.5']);
    expect(row(report, 'Read', 'all')).toBeUndefined();
  });

  it('divides by nothing when there is nothing', () => {
    const none = { documents: 0, tokens: 0, bytes: 0 };
    const empty = { documents: 0, bytes: 0, skipped: {}, dropped: {}, train: none, validation: none };
    const report = shownReport({
      sources: [sourceReport('empty', empty)],
      stages: [{ stage: 'encode', seconds: 0, bytes: 0 }],
      references: { references: 0, documents: 0, tokens: 0 },
    });
    expect(reportText(report)).not.toMatch(/NaN|Infinity/);
    expect(reportPage(report)).not.toMatch(/NaN|Infinity/);
    expect(reportTables(report).map(({ title }) => title)).toEqual(['Read', 'Trained on', 'Time']);
  });
});

it('fates account for every record', () => {
  for (const { records, parts } of fates(shownReport({ sources: [sourceReport('books')] }))) {
    expect(parts.reduce((sum, part) => sum + part.records, 0)).toBe(records);
    expect(parts.map(({ what }) => what)).toEqual(['kept', 'duplicate', 'too few words', 'skipped']);
  }
});

it('exampleGroups puts the most frequent reason first', () => {
  expect(exampleGroups(shownReport()).map(({ reason, records }) => [reason, records])).toEqual([
    ['duplicate', 40],
    ['invalid JSON', 20],
  ]);
});

/** Reports whose words come from anyone. */
const hostile = fc
  .record({
    word: fc.string({ unit: anyCharacter, minLength: 1 }),
    sign: fc.constantFrom('<b>', '"', "'", '&', '\u001b[2J', '\r'),
  })
  .map(({ word, sign }) => {
    const text = `x${sign}${word}${sign}x`;
    return shownReport({
      folder: text,
      sources: [sourceReport(text, { skipped: { [text]: 3 }, dropped: { [`${text}!`]: { documents: 1, bytes: 1 } } })],
      examples: [{ reason: text, path: text, offset: 1, detail: `${text}.`, excerpt: text }],
      warnings: [text],
    });
  });

describe('reportText', () => {
  it('shows everything in order', () => {
    const text = reportText(shownReport());
    const inOrder = [
      'runs/x/data',
      '8,192 tokens, trained',
      '10 from 4 documents, 100.0 tokens each',
      '! the vocabulary',
    ];
    inOrder.push(
      'READ',
      'TRAINED ON',
      'LEFT OUT',
      'TIME',
      'DUPLICATE  1 of 40',
      'b.jsonl at byte 5',
      'the same as document 3',
    );
    inOrder.push('│ Once upon⏎a time', 'INVALID JSON  1 of 20', 'a.jsonl at byte 17', 'Unexpected token');
    const places = inOrder.map((part) => text.indexOf(part));
    expect(places).not.toContain(-1);
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });

  it.each([80, 120])('keeps to %i columns, wide characters counted twice', (width) => {
    const name = '唐诗与宋词选集'.repeat(9);
    const report = shownReport({
      sources: [sourceReport(name, { fileBytes: 3e12, documents: 1e9 }), sourceReport('b'.repeat(150))],
      examples: [{ reason: 'duplicate', path: 'p', offset: 1, detail: 'word '.repeat(60), excerpt: '长'.repeat(300) }],
      warnings: ['warning '.repeat(40).trim()],
    });
    const columns = (line: string) => [...line].reduce((sum, c) => sum + (/[\u4e00-\u9fff]/.test(c) ? 2 : 1), 0);
    const widths = reportText(report, width).split('\n').map(columns);
    expect(Math.max(...widths)).toBeLessThanOrEqual(width);
    expect(Math.max(...widths)).toBeGreaterThan(width - 2);
  });

  it('lets nobody move the cursor', () => {
    fc.assert(
      fc.property(hostile, (report) => {
        expect(reportText(report).replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
      }),
      { numRuns: 50 },
    );
  });
});

describe('reportPage', () => {
  it('lets nobody write tags or attributes into it', () => {
    // What remains of a page without its words: the tags, and attributes without their values.
    const bones = (page: string) =>
      page
        .slice(page.indexOf('</style>'))
        .match(/<[^>]*>/g)
        ?.map((tag) => tag.replace(/"[^"]*"/g, '""'));
    const harmless = bones(
      reportPage(
        shownReport({
          sources: [sourceReport('s', { skipped: { r: 3 }, dropped: { 'r!': { documents: 1, bytes: 1 } } })],
          examples: [{ reason: 'r', path: 'p', offset: 1, detail: 'd', excerpt: 'e' }],
        }),
      ),
    );
    expect(harmless?.length).toBeGreaterThan(100);
    fc.assert(
      fc.property(hostile, (report) => {
        expect(bones(reportPage(report))).toEqual(harmless);
      }),
      { numRuns: 50 },
    );
  });

  it('needs nothing but itself and says so', () => {
    const page = reportPage(shownReport());
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'"`);
    expect(page).not.toMatch(/<script|src=|href=|url\(|@import|https?:/);
    expect(page).toContain('prefers-color-scheme: dark');
    expect(page).toContain('Once upon⏎a time');
    expect(page).toContain(
      'aria-label="kept: 75, 60.0 %; duplicate: 20, 16.0 %; too few words: 5, 4.0 %; skipped: 25, 20.0 %"',
    );
  });
});

describe('memory3 data report', () => {
  async function run(...args: string[]): Promise<string> {
    let written = '';
    const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      written += String(text);
      return true;
    });
    try {
      const command = reportCommand(async (folder) => shownReport({ folder }));
      await yargs(['report', '-c', 'configs/tiny.yaml', '--set', 'runsFolder=somewhere', ...args])
        .command(command)
        .fail((message, error) => {
          throw error ?? new Error(message);
        })
        .parseAsync();
    } finally {
      write.mockRestore();
    }
    return written;
  }

  it('prints the report of the data of the run', async () => {
    const folder = resolve('somewhere', 'tiny', 'data');
    expect(await run()).toBe(`${reportText(shownReport({ folder }), process.stdout.columns)}\n`);
  });

  it('writes the page and says where', async () => {
    const folder = temporaryFolder();
    const file = join(folder, 'sub', 'report.html');
    expect(await run('--html', file)).toContain(`the page is ${file}\n`);
    expect(readFileSync(file, 'utf8')).toContain('<h1>Data report</h1>');
    expect(readdirSync(join(folder, 'sub'))).toEqual(['report.html']);
  });

  it('says when the page cannot be written', async () => {
    const folder = temporaryFolder();
    const { code, message } = await userErrorOf(run('--html', folder));
    expect(code).toBe('usage_invalid');
    expect(message).toContain(folder);
    expect(existsSync(folder)).toBe(true);
  });
});
