import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SkipReason } from '../../../src/data/documents.ts';
import { UserError } from '../../../src/errors.ts';
import { source, temporaryFolder } from '../support.ts';
import { file, read, rowsOf, storedZstd, TEXT_TYPES, textsOf, toArrow, toJsonl, toParquet, toZstd } from './support.ts';

const TEXTS = ['one', 'zwei 你好', 'three and a half', 'vier', 'five', 'six', 'seven', 'eight'];
const ROWS = rowsOf(TEXTS);
const JSONL = toJsonl(ROWS);
const ENDS = new Set([0, ...[...JSONL.entries()].filter(([, byte]) => byte === 10).flatMap(([i]) => [i, i + 1])]);

const FILES: Record<string, () => Buffer> = {
  'a.jsonl': () => JSONL,
  'a.jsonl.gz': () => gzipSync(JSONL),
  'a.jsonl.zst': () => storedZstd(JSONL, 100),
  'a.txt.gz': () => gzipSync(TEXTS.join()),
  'a.txt.zst': () => storedZstd(Buffer.from(TEXTS.join()), 10),
  'snappy.parquet': () => toParquet(ROWS),
  'groups.parquet': () => toParquet(ROWS, { rowGroupSize: 3, codec: 'ZSTD' }),
  'stream.arrow': () => toArrow(ROWS, { batchRows: 3 }),
  'file.arrow': () => toArrow(ROWS, { batchRows: 3, kind: 'file' }),
  'dictionary.arrow': () => toArrow(ROWS, { type: TEXT_TYPES.dictionary!() }),
  'view.arrow': () => toArrow(ROWS, { type: TEXT_TYPES.Utf8View!(), kind: 'file' }),
};

/** What a strict reading ends with. */
async function strictError(path: string | string[], fields = {}): Promise<UserError> {
  const error: unknown = await read(path, fields, { strict: true }).catch((thrown: unknown) => thrown);
  if (error instanceof UserError) return error;
  throw new Error(`no user error but ${error}`);
}

describe('a file that is cut off', () => {
  it.each(Object.keys(FILES))('gives documents of before the cut, and is counted: %s', async (name) => {
    const folder = temporaryFolder();
    const whole = FILES[name]!();
    const path = file(folder, name, whole);
    const all = textsOf((await read(path, {}, { strict: true })).documents);
    for (let length = whole.length - 1; length >= 0; length -= 1) {
      truncateSync(path, length);
      const { documents, counters } = await read(path);
      const what = `${name} cut to ${length} bytes`;
      expect(textsOf(documents), what).toEqual(all.slice(0, documents.length));
      const reasons = Object.keys(counters.skipped);
      const atEnd = name === 'a.jsonl' && ENDS.has(length) && length > 0;
      const expected: SkipReason[] = name === 'a.jsonl' ? ['invalid JSON', 'invalid UTF-8'] : ['ends too early'];
      if (length === 0) expected.push('empty file');
      if (atEnd) expect(reasons, what).toEqual([]);
      else expect(expected, what).toContain(reasons.join());
      if (!atEnd) expect(counters.examples, what).toHaveLength(1);
    }
  });

  it('loses nothing that was whole', async () => {
    const folder = temporaryFolder();
    const rows = rowsOf(Array.from({ length: 3000 }, (_, i) => `Text ${i} ${(i * 7919) % 3001}`));
    const gzip = gzipSync(toJsonl(rows));
    const cut = file(folder, 'b.jsonl.gz', gzip.subarray(0, gzip.length - 4));
    const before = file(folder, 'a.txt', 'before');
    const after = file(folder, 'c.txt', 'after');
    const { documents, counters } = await read(folder);
    expect(textsOf(documents)).toEqual(['before', ...rows.map(({ text }) => text), 'after']);
    expect(counters.skipped).toEqual({ 'ends too early': 1 });
    expect(counters.examples[0]).toMatchObject({ path: cut, offset: toJsonl(rows).length });
    const error = await strictError([before, cut, after]);
    expect(error).toMatchObject({ code: 'input_invalid', where: `${cut} at byte ${toJsonl(rows).length}` });
  });

  it('names the row of a table', async () => {
    const arrow = toArrow(ROWS, { batchRows: 3 });
    const path = file(temporaryFolder(), 'a.arrow', arrow.subarray(0, arrow.length - 8));
    const { documents, counters } = await read(path);
    expect(textsOf(documents)).toEqual(TEXTS);
    expect(counters.examples).toMatchObject([{ reason: 'ends too early', path, offset: TEXTS.length }]);
    expect((await strictError(path)).where).toBe(`${path} at row 8`);
  });
});

it('a damaged file never ends the reading, whatever is wrong with it', async () => {
  const folder = temporaryFolder();
  const wholes = Object.entries(FILES).map(([name, bytes]) => [name, bytes()] as const);
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...wholes), damage, async ([name, whole], bytes) => {
      const damaged = Buffer.from(whole);
      for (const [at, value] of bytes) damaged[at % damaged.length] = value;
      const path = file(folder, name, damaged);
      const last = file(folder, 'last.txt', 'last');
      expect(textsOf((await read([path, last])).documents).at(-1)).toBe('last');
    }),
    { numRuns: 300 },
  );
});

describe('bad input is named', () => {
  it.each([
    ['no JSON', 'x.jsonl', '{"text":"a"}\n{"text":\n{"text":"b"}\n', 'invalid JSON', 13],
    ['no text', 'x.jsonl', '{"text":"a"}\n{"body":"x"}\n{"text":"b"}\n', 'no text field', 13],
    [
      'no UTF-8',
      'x.jsonl',
      Buffer.from('{"text":"a"}\n{"text":"\xff"}\n{"text":"b"}\n', 'latin1'),
      'invalid UTF-8',
      13,
    ],
    ['half a character', 'x.jsonl', '{"text":"a"}\n{"text":"\\ud800"}\n{"text":"b"}\n', 'invalid Unicode', 13],
    ['nothing', 'x.jsonl', '', 'empty file', 0],
    ['nothing', 'x.txt', '', 'empty file', 0],
    ['nothing', 'x.parquet', '', 'empty file', 0],
    ['nothing', 'x.arrow', '', 'empty file', 0],
    ['nothing compressed', 'x.jsonl.gz', gzipSync(''), 'empty file', 0],
    ['nothing compressed', 'x.jsonl.zst', storedZstd(Buffer.alloc(0)), 'empty file', 0],
    ['garbage', 'x.parquet', 'This is no table at all, but a text.', 'damaged', 0],
    ['garbage', 'x.arrow', 'This is no table at all, but a text.', 'damaged', 0],
    ['garbage', 'x.jsonl.gz', 'This is no gzip at all, but a text.', 'damaged', 0],
    ['garbage', 'x.jsonl.zst', 'This is no Zstandard at all, but a text.', 'damaged', 0],
    ['an old table', 'x.feather', 'FEA1 and so on, which ends with FEA1', 'not supported', 0],
  ] as const)('%s in %s', async (_, name, content, reason, offset) => {
    const folder = temporaryFolder();
    const path = file(folder, name, content);
    const last = file(folder, 'z.txt', 'last');
    const { documents, counters } = await read(folder);
    expect(textsOf(documents)).toEqual(offset > 0 ? ['a', 'b', 'last'] : ['last']);
    expect(counters.skipped).toEqual({ [reason]: 1 });
    expect(counters.examples).toMatchObject([{ reason, path, offset }]);
    expect(counters.examples[0]!.excerpt === undefined).toBe(offset === 0);
    const error = await strictError([path, last]);
    expect(error.code).toBe('input_invalid');
    expect(error.message).toContain(reason === 'empty file' ? `${path}: empty file` : `${path} at `);
  });

  it('a path that does not exist', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'nowhere.jsonl');
    symlinkSync(path, join(folder, 'link.jsonl'));
    const last = file(folder, 'z.txt', 'last');
    const { documents, counters } = await read([path, folder, last]);
    expect(textsOf(documents)).toEqual(['last', 'last']);
    expect(counters.skipped).toEqual({ 'no such file': 2 });
    expect(counters.examples.map((example) => example.path)).toEqual([path, join(folder, 'link.jsonl')]);
    expect(await strictError([path, last])).toMatchObject({ code: 'input_missing', where: path });
  });

  it('loops of links', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'a', 'b'), { recursive: true });
    file(join(folder, 'a', 'b'), 'x.txt', 'once');
    symlinkSync(join(folder, 'a'), join(folder, 'a', 'b', 'up'));
    symlinkSync('self.txt', join(folder, 'self.txt'));
    symlinkSync(join(folder, 'a', 'b', 'x.txt'), join(folder, 'y.txt'));
    const { documents, counters } = await read(folder);
    expect(documents.map(({ id }) => id)).toEqual([join(folder, 'a', 'b', 'x.txt'), join(folder, 'y.txt')]);
    expect(counters.skipped).toEqual({ 'loop of links': 2 });
    expect(counters.examples.map(({ path }) => path)).toEqual([join(folder, 'a', 'b', 'up'), join(folder, 'self.txt')]);
    expect(await strictError(folder)).toMatchObject({ code: 'input_invalid', where: join(folder, 'a', 'b', 'up') });
  });

  it('what cannot be opened or read', async () => {
    const folder = temporaryFolder();
    const pipe = join(folder, 'a.txt');
    expect(spawnSync('mkfifo', [pipe]).status).toBe(0);
    const closed = file(folder, 'b.txt', 'closed');
    chmodSync(closed, 0);
    symlinkSync('/proc/self/mem', join(folder, 'c.jsonl'));
    file(folder, 'd.txt', 'open');
    const { documents, counters } = await read(folder);
    const mayReadAll = process.getuid?.() === 0;
    expect(textsOf(documents)).toEqual(mayReadAll ? ['closed', 'open'] : ['open']);
    expect(counters.skipped).toEqual({ 'cannot be opened': mayReadAll ? 2 : 3 });
    expect(await strictError(pipe)).toMatchObject({ code: 'input_invalid', where: pipe });
    expect((await strictError(join(folder, 'c.jsonl'))).message).toContain('EIO');
  });

  it('but not what is left out on purpose', async () => {
    const path = file(temporaryFolder(), 'a.jsonl', toJsonl([{ text: ' ' }, { text: 'a' }, ...ROWS, ...ROWS]));
    const { counters } = await read(path, {}, { strict: true, minCharacters: 2, uniqueIds: true });
    expect(counters.skipped).toEqual({ 'empty text': 1, 'too short': 1, 'duplicate id': ROWS.length });
    expect(counters.examples[1]).toMatchObject({ detail: '1 characters', excerpt: 'a' });
  });

  it('a damaged row group, and reads the next one', async () => {
    const whole = toParquet(ROWS, { rowGroupSize: 3, codec: 'UNCOMPRESSED', statistics: false });
    const at = whole.indexOf(Buffer.from(TEXTS[4]!)) - 4;
    whole.writeUInt32LE(0x7fffffff, at);
    const path = file(temporaryFolder(), 'a.parquet', whole);
    const { documents, counters } = await read(path);
    expect(textsOf(documents)).toEqual([...TEXTS.slice(0, 3), ...TEXTS.slice(6)]);
    expect(counters.examples).toMatchObject([{ reason: 'damaged', path, offset: 3 }]);
    expect((await strictError(path)).where).toBe(`${path} at row 3`);
  });

  it('with the beginning of its text', async () => {
    const line = `{"body":"${'ab😀'.repeat(100)}"}`;
    const path = file(temporaryFolder(), 'a.jsonl', `${line}\n${line.slice(0, -1)}\n`);
    const { examples } = (await read(path)).counters;
    expect(examples.map(({ reason }) => reason)).toEqual(['no text field', 'invalid JSON']);
    expect(examples[0]!.excerpt).toHaveLength(200);
    expect(line.startsWith(examples[0]!.excerpt!.slice(0, -1))).toBe(true);
    expect(examples[0]!.excerpt).not.toMatch(/\p{Surrogate}/u);
  });
});

describe('memory', () => {
  it('stays bounded at a line of 200 MB, plain and out of small files', { timeout: 120_000 }, () => {
    const folder = temporaryFolder();
    const [before, after] = [toJsonl([{ text: 'before' }]), toJsonl([{ text: 'after' }])];
    const megabytes = 200;
    const plain = file(folder, 'a.jsonl', before);
    truncateSync(plain, megabytes * 2 ** 20);
    writeFileSync(plain, `\n${after}`, { flag: 'a' });
    const member = gzipSync(Buffer.alloc(2 ** 20, 'x'));
    file(
      folder,
      'b.jsonl.gz',
      Buffer.concat([gzipSync(before), ...Array(megabytes).fill(member), gzipSync(`\n${after}`)]),
    );
    const block = { byte: 0x78, count: 2 ** 17 };
    file(folder, 'c.jsonl.zst', toZstd([before, ...Array(8 * megabytes).fill(block), Buffer.from(`\n${after}`)]));
    file(folder, 'd.txt.gz', Buffer.concat(Array(megabytes).fill(member)));
    const { baseline, peak, texts, skipped } = readInChild(folder);
    expect(texts).toEqual(['before', 'after', 'before', 'after', 'before', 'after']);
    expect(skipped).toEqual({ 'too long': 4 });
    expect(peak - baseline).toBeLessThan(256 * 2 ** 20);
  });
});

/** Reads a folder in a process of its own; bytes of memory it held at most, after a first small file and after all. */
function readInChild(folder: string): { baseline: number; peak: number; texts: string[]; skipped: object } {
  const small = file(temporaryFolder(), 'a.jsonl.gz', gzipSync(JSONL));
  const module = resolve('src/data/documents.ts');
  const script = `
    import { newCounters, readDocuments } from ${JSON.stringify(module)};
    const texts = [];
    const counters = newCounters();
    const peak = () => process.resourceUsage().maxRSS * 1024;
    for await (const _ of readDocuments([${JSON.stringify(source(small))}], newCounters()));
    const baseline = peak();
    for await (const { text } of readDocuments([${JSON.stringify(source(folder))}], counters)) texts.push(text);
    console.log(JSON.stringify({ baseline, peak: peak(), texts, skipped: counters.skipped }));
  `;
  const path = file(temporaryFolder(), 'read.mts', script);
  const child = spawnSync(process.execPath, ['--import', 'tsx', '--max-old-space-size=96', path], { encoding: 'utf8' });
  if (child.status !== 0) throw new Error(child.stderr);
  return JSON.parse(child.stdout);
}
