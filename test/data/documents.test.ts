import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newCounters, readDocuments } from '../../src/data/documents.ts';
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

  it('walks folders by name, takes known extensions, leaves dot files out', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'b', '.git'), { recursive: true });
    writeFileSync(join(folder, 'b', '.git', 'x.txt'), 'hidden');
    writeFileSync(join(folder, 'b', 'two.md'), '\ufefftwo');
    writeFileSync(join(folder, 'a.txt'), 'one');
    writeFileSync(join(folder, 'c.png'), 'no text');
    writeFileSync(join(folder, 'd.TXT'), Buffer.from([0xe9]));
    writeFileSync(join(folder, 'e.jsonl'), '{"text":"three"}');
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
    expect(counters.skipped).toEqual({ 'invalid UTF-8': 2 });
  });

  it('says what is wrong with a source', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'data.bin'), 'x');
    const read = (path: string) => userErrorOf(collect(readDocuments([source(path)], newCounters())));
    expect(await read(join(folder, 'nowhere'))).toMatchObject({ code: 'input_missing' });
    expect(await read(join(folder, 'data.bin'))).toMatchObject({ code: 'input_invalid' });
    expect(await read(folder)).toMatchObject({ code: 'input_empty' });
    expect((await read(join(folder, 'nowhere'))).message).toContain(join(folder, 'nowhere'));
  });

  it('keeps the first document of an id when ids must be unique', async () => {
    const path = jsonl('{"text":"a","id":"x"}', '{"text":"b","id":"x"}');
    const counters = newCounters();
    const documents = await collect(readDocuments([source(path)], counters, { uniqueIds: true }));
    expect(documents.map(({ text }) => text)).toEqual(['a']);
    expect(counters).toMatchObject({ documents: 1, skipped: { 'duplicate id': 1 } });
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
