import { type Dirent, mkdirSync, writeFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { listSourceFiles, newCounters, placeOf, readDocuments } from '../../src/data/documents.ts';
import { anyCharacter, collect, source, temporaryFolder, userErrorOf } from './support.ts';

function jsonl(...lines: (string | Buffer)[]): string {
  const path = join(temporaryFolder(), 'rows.jsonl');
  writeFileSync(path, Buffer.concat(lines.map((line) => Buffer.concat([Buffer.from(line), Buffer.from('\n')]))));
  return path;
}

describe('readDocuments', () => {
  it('reads JSONL with ids, titles and byte offsets', async () => {
    const path = jsonl('{"text":"é one","id":7,"title":"T"}', '', '{"text":"two"}');
    const counters = newCounters();
    const documents = await collect(readDocuments([source(path)], counters));
    expect(documents).toEqual([
      { id: '7', title: 'T', text: 'é one', source: { path, offset: 0 } },
      { id: `${path}:38`, text: 'two', source: { path, offset: 38 } },
    ]);
    expect(counters).toEqual({ documents: 2, bytes: 9, skipped: {}, examples: [] });
  });

  it('counts and names every record that it cannot use', async () => {
    const path = jsonl(
      '{"text":"good"}',
      '{"text":',
      '{"body":"x"}',
      '[1]',
      'null',
      '{"text":5}',
      '{"text":"  \\n "}',
      '{"text":"abc"}',
      Buffer.from([0x7b, 0xff, 0x7d]),
      '{"text":"half \\ud800 pair"}',
    );
    const counters = newCounters();
    const documents = await collect(readDocuments([source(path)], counters, { minCharacters: 4 }));
    expect(documents.map(({ text }) => text)).toEqual(['good']);
    expect(counters.skipped).toEqual({
      'invalid JSON': 1,
      'no text field': 4,
      'empty text': 1,
      'too short': 1,
      'invalid UTF-8': 1,
      'invalid Unicode': 1,
    });
    expect(counters.examples.filter(({ reason }) => reason === 'no text field')).toHaveLength(3);
    expect(counters.examples[1]).toMatchObject({ path, offset: 25, detail: 'no string "text"; fields: body' });
  });

  it('lists folders of any number of files', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'texts'));
    const entryOf = (_: unknown, i: number) => ({ name: `${i}.txt`, isFile: () => true, isDirectory: () => false });
    const entries = Array.from({ length: 150_000 }, entryOf) as unknown as Dirent<NonSharedBuffer>[];
    const original = fs.readdir;
    const readdir = vi.spyOn(fs, 'readdir').mockImplementation(async (path, options) => {
      return path === folder ? await original(path, options) : entries;
    });
    onTestFinished(() => {
      readdir.mockRestore();
      syncBuiltinESMExports();
    });
    syncBuiltinESMExports();
    expect(await listSourceFiles([source(folder)])).toHaveLength(150_000);
  });

  it('walks folders by name, takes known extensions, leaves dot files out', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'b', '.git'), { recursive: true });
    writeFileSync(join(folder, 'b', '.git', 'x.txt'), 'hidden');
    writeFileSync(join(folder, 'b', 'two.md'), '\ufefftwo');
    writeFileSync(join(folder, 'a.txt'), 'one');
    writeFileSync(join(folder, 'c.png'), 'no text');
    writeFileSync(join(folder, 'd.TXT'), Buffer.from([0xe9, 0]));
    writeFileSync(join(folder, 'e.jsonl'), '{"text":"three"}');
    writeFileSync(join(folder, 'package.json'), '{"name":"three"}');
    const counters = newCounters();
    const read = async (format: 'auto' | 'text') => {
      return (await collect(readDocuments([source(folder, { format })], counters))).map(({ id, text }) => [id, text]);
    };
    const texts = [
      [join(folder, 'a.txt'), 'one'],
      [join(folder, 'b', 'two.md'), 'two'],
    ];
    expect(await read('text')).toEqual(texts);
    expect(await read('auto')).toEqual([...texts, [`${join(folder, 'e.jsonl')}:0`, 'three']]);
    expect(counters.skipped).toEqual({ 'unknown encoding': 2 });
  });

  it('says what is wrong with a source', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'data.bin'), 'x');
    const read = (path: string) => userErrorOf(collect(readDocuments([source(path)], newCounters())));
    expect(await read(join(folder, 'data.bin'))).toMatchObject({ code: 'input_invalid' });
    expect(await read(folder)).toMatchObject({ code: 'input_empty' });
    expect((await read(folder)).message).toContain(folder);
  });

  it('keeps the first document of an id when ids must be unique', async () => {
    const path = jsonl('{"text":"a","id":"x"}', '{"text":"b","id":"x"}');
    const counters = newCounters();
    const documents = await collect(readDocuments([source(path)], counters, { uniqueIds: true }));
    expect(documents.map(({ text }) => text)).toEqual(['a']);
    expect(counters).toMatchObject({ documents: 1, skipped: { 'duplicate id': 1 } });
  });

  it('takes numbers as ids, and addresses', async () => {
    const path = jsonl('{"text":"a","id":7,"url":"https://example.org"}', '{"text":"b","id":null,"url":""}');
    expect(await collect(readDocuments([source(path)], newCounters()))).toEqual([
      { id: '7', text: 'a', url: 'https://example.org', source: { path, offset: 0 } },
      { id: `${path}:48`, text: 'b', source: { path, offset: 48 } },
    ]);
  });

  it('gives the turn to other work', async () => {
    const path = jsonl(...Array.from({ length: 40 }, () => JSON.stringify({ text: 'x'.repeat(200_000) })));
    let turns = 0;
    const timer = setInterval(() => {
      turns += 1;
    }, 0);
    for await (const _ of readDocuments([source(path)], newCounters())) {
      // Nothing that takes time.
    }
    clearInterval(timer);
    expect(turns).toBeGreaterThan(2);
  });

  it('gives back any rows, each at its offset, across read chunks', async () => {
    const text = fc.string({ unit: anyCharacter, minLength: 1 }).filter((s) => s.trim() !== '');
    const rows = fc.array(text, { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(rows, fc.integer({ min: 0, max: 2_200_000 }), async (texts, padding) => {
        const lines = texts.map((t, i) => JSON.stringify({ padding: 'x'.repeat(i === 0 ? padding : 0), text: t }));
        const path = jsonl(...lines);
        const documents = await collect(readDocuments([source(path)], newCounters()));
        expect(documents.map((d) => d.text)).toEqual(texts);
        let offset = 0;
        for (const [i, d] of documents.entries()) {
          expect(d.source.offset).toBe(offset);
          offset += Buffer.byteLength(lines[i] ?? '') + 1;
        }
      }),
      { numRuns: 12 },
    );
  });
});

describe('listSourceFiles', () => {
  it('says what a reader needs, and counts what is not there', async () => {
    const folder = temporaryFolder();
    for (const name of ['a.jsonl.gz', 'b.txt.zst', 'c.parquet', 'd.feather', 'e.parquet.gz', 'f.json', 'g.json.gz']) {
      writeFileSync(join(folder, name), 'x');
    }
    const counters = newCounters();
    const named = source(join(folder, 'f.json'));
    const files = await listSourceFiles([source(folder), named, source(join(folder, 'nowhere'))], counters);
    expect(files.map(({ path, format, compression }) => [path.slice(folder.length + 1), format, compression])).toEqual([
      ['a.jsonl.gz', 'jsonl', 'gzip'],
      ['b.txt.zst', 'text', 'zstd'],
      ['c.parquet', 'parquet', 'none'],
      ['d.feather', 'arrow', 'none'],
      ['g.json.gz', 'jsonl', 'gzip'],
      ['f.json', 'jsonl', 'none'],
    ]);
    expect(files.at(-1)!.source).toBe(named);
    expect(counters.skipped).toEqual({ 'no such file': 1 });
    const strict = listSourceFiles([source(join(folder, 'nowhere'))], newCounters(), { strict: true });
    expect(await userErrorOf(strict)).toMatchObject({ code: 'input_missing' });
  });
});

it('placeOf names a row or a byte', () => {
  expect(placeOf('a/x.parquet', 12)).toBe('a/x.parquet at row 12');
  expect(placeOf('x.arrow', 0)).toBe('x.arrow at row 0');
  expect(placeOf('x.jsonl.gz', 120)).toBe('x.jsonl.gz at byte 120');
});
