import { statSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { CompressionType, compressionRegistry, Int32, Table, tableToIPC, Utf8, vectorFromArray } from 'apache-arrow';
import fc from 'fast-check';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import { decompressLz4Frame } from '../../../src/data/sources/lz4.ts';
import { anyCharacter, temporaryFolder } from '../support.ts';
import { file, read, rowsOf, storedZstd, TEXT_TYPES, textsOf, toArrow, toJsonl, toParquet, toZstd } from './support.ts';

const ROWS = rowsOf(Array.from({ length: 250 }, (_, i) => `Text ${i}, héllo 你好 ${'again '.repeat(i % 30)}`));
const JSONL = toJsonl(ROWS);

const FILES: Record<string, () => Buffer> = {
  'plain.jsonl': () => JSONL,
  'gzip.jsonl.gz': () => gzipSync(JSONL),
  'gzip.json.gz': () => Buffer.concat([gzipSync(JSONL.subarray(0, 1000)), gzipSync(JSONL.subarray(1000))]),
  'zstd.ndjson.zst': () => storedZstd(JSONL),
  'frames.jsonl.zst': () => Buffer.concat([storedZstd(JSONL.subarray(0, 999), 7), storedZstd(JSONL.subarray(999), 64)]),
  'snappy.parquet': () => toParquet(ROWS),
  'plain.parquet': () => toParquet(ROWS, { codec: 'UNCOMPRESSED' }),
  'gzip.parquet': () => toParquet(ROWS, { codec: 'GZIP' }),
  'zstd.parquet': () => toParquet(ROWS, { codec: 'ZSTD' }),
  'groups.parquet': () => toParquet(ROWS, { rowGroupSize: 70, pageSize: 512 }),
  'stream.arrow': () => toArrow(ROWS),
  'file.arrow': () => toArrow(ROWS, { kind: 'file' }),
  ...Object.fromEntries(
    Object.entries(TEXT_TYPES).flatMap(([name, type]) => [
      [`${name}.feather`, () => toArrow(ROWS, { kind: 'file', type: type(), batchRows: 250 })],
      [`${name}.arrows`, () => toArrow(ROWS, { type: type(), batchRows: 250 })],
    ]),
  ),
};

describe('reading a file', () => {
  it.each(Object.keys(FILES))('gives its documents: %s', async (name) => {
    const path = file(temporaryFolder(), name, FILES[name]!());
    let bytes = 0;
    const onBytes = (where: string, position: number) => {
      expect(where).toBe(path);
      bytes = position;
    };
    const { documents, counters } = await read(path, {}, { onBytes, strict: true });
    expect(documents.map(({ source: _, ...document }) => document)).toEqual(
      ROWS.map(({ id, ...row }) => ({ id: String(id), ...row })),
    );
    expect(counters).toMatchObject({ documents: ROWS.length, skipped: {} });
    expect(bytes).toBe(statSync(path).size);
    if (/parquet|arrow|feather/.test(name))
      expect(documents.map(({ source }) => source.offset)).toEqual(ROWS.map(({ id }) => id));
  });

  it.each(['jsonl', 'parquet', 'arrow'] as const)('takes fields by their names: %s', async (format) => {
    const named = ROWS.slice(0, 3).map(({ id, text, title, url }) => ({
      id: `key ${id}`,
      text: title,
      title: url,
      url: text,
    }));
    const bytes = {
      jsonl: () => toJsonl(named),
      parquet: () =>
        Buffer.from(
          parquetWriteBuffer({
            columnData: (['id', 'text', 'title', 'url'] as const).map((name) => ({
              name,
              data: named.map((row) => row[name]),
              type: 'STRING',
            })),
          }),
        ),
      arrow: () =>
        Buffer.from(
          tableToIPC(
            new Table(
              Object.fromEntries(
                (['id', 'text', 'title', 'url'] as const).map((name) => [
                  name,
                  vectorFromArray(
                    named.map((row) => row[name]),
                    new Utf8(),
                  ),
                ]),
              ),
            ),
          ),
        ),
    }[format]();
    const fields = { format, textField: 'url', titleField: 'text', urlField: 'title', idField: 'none' };
    const path = file(temporaryFolder(), 'data.bin', bytes);
    const { documents } = await read(path, fields);
    expect(documents).toEqual(
      ROWS.slice(0, 3).map(({ text, title, url }, i) => {
        const offset = documents[i]!.source.offset;
        return { id: `${path}:${offset}`, text, title, url, source: { path, offset } };
      }),
    );
    expect((await read(path, { ...fields, idField: 'id' })).documents[2]!.id).toBe('key 2');
  });

  it('reads text of any kind, compressed too', async () => {
    const folder = temporaryFolder();
    file(folder, 'a.txt', '\ufeffone');
    file(folder, 'b.rst.gz', gzipSync('two'));
    file(folder, 'c.md.zst', storedZstd(Buffer.from('three')));
    file(folder, 'd.tex', Buffer.from('vier, fünf', 'latin1'));
    file(folder, 'e.zst', storedZstd(Buffer.from('not known')));
    expect(textsOf((await read(folder)).documents)).toEqual(['one', 'two', 'three', 'vier, fünf']);
    expect(textsOf((await read(folder, { format: 'text' })).documents)).toHaveLength(4);
  });

  it('reads what the zstd command compressed', async () => {
    const bytes = Buffer.from(
      'KLUv/WQ4BA0FANQGeyJpZCI6IDAsICJ0ZXh0IjogIlJvdyAwOiB0aGUgcml2ZXIgcnVucyBieXZpbGxhZ2UsIGFuZCBieS4g5rKz5rC05rWB6L+H5p2R5bqE44CCIn0KMTEyMjMzNDQ1NTY2Nzc4ODk5MSAxMDExMRqoENhanz3WkCPlHBASARESARHN/P/PA9QE07sW925W7C52NrZW8KxMrtS6Rl/2CqAUE6vYGQ==',
      'base64',
    );
    const { documents } = await read(file(temporaryFolder(), 'a.jsonl.zst', bytes), {}, { strict: true });
    expect(textsOf(documents)).toEqual(
      Array.from(
        { length: 12 },
        (_, i) => `Row ${i}: the river runs by the village, and the village by the river. 河水流过村庄。`,
      ),
    );
  });

  it('reads LZ4 frames', () => {
    const abc = Buffer.from('abcdefgh');
    const hex = (text: string) => Buffer.from(text, 'hex');
    const ones = (count: number) => Buffer.alloc(count, 0xff);
    // 9,000 times the eight letters and `the end`, as `lz4 -B4 -BD` wrote it.
    const written = Buffer.concat([
      ...[hex('04224d1844405e'), hex('120100008f'), abc, hex('0800'), ones(256), hex('e050'), Buffer.from('defgh')],
      ...[hex('2d0000008f'), abc, hex('0800'), ones(25), hex('3e70'), Buffer.from('the end'), hex('00000000181d7ea7')],
    ]);
    expect(Buffer.from(decompressLz4Frame(written)).equals(Buffer.from(`${'abcdefgh'.repeat(9000)}the end`))).toBe(
      true,
    );
    for (let length = 0; length < written.length - 4; length += 1) {
      expect(() => decompressLz4Frame(written.subarray(0, length)), `${length} bytes`).toThrow(RangeError);
    }
    // A match of 4 + 15 + 1 bytes that begins in the block before, and a stored block.
    const linked = Buffer.concat([
      ...[hex('04224d1840405e'), hex('0900000080'), abc, hex('06000000'), hex('0f08000110'), Buffer.from('!')],
      ...[hex('02000080'), Buffer.from('ok'), hex('00000000')],
    ]);
    expect(Buffer.from(decompressLz4Frame(linked)).toString()).toBe('abcdefghabcdefghabcdefghabcd!ok');
  });

  it('reads compressed Arrow batches', async () => {
    const stored = (bytes: Uint8Array) => {
      const head = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0]);
      const size = Buffer.alloc(4);
      size.writeUInt32LE((bytes.length | 0x8000_0000) >>> 0);
      return Buffer.concat([head, size, bytes, Buffer.alloc(4)]);
    };
    const zstd = compressionRegistry.get(CompressionType.ZSTD);
    const lz4 = compressionRegistry.get(CompressionType.LZ4_FRAME);
    compressionRegistry.set(CompressionType.ZSTD, { ...zstd, encode: (bytes) => storedZstd(bytes) });
    compressionRegistry.set(CompressionType.LZ4_FRAME, { ...lz4, encode: stored });
    for (const compressionType of [CompressionType.ZSTD, CompressionType.LZ4_FRAME]) {
      const path = file(temporaryFolder(), 'a.feather', toArrow(ROWS, { kind: 'file', compressionType }));
      expect(textsOf((await read(path, {}, { strict: true })).documents)).toEqual(ROWS.map(({ text }) => text));
    }
  });

  it('names rows without text and files without the column', async () => {
    const folder = temporaryFolder();
    const parquet = file(folder, 'a.parquet', toParquet([{ id: 1, text: 'one' }, { id: 2 }, { id: 3, text: '' }]));
    const table = new Table({
      id: vectorFromArray([1, 2], new Int32()),
      text: vectorFromArray([null, 'two'], new Utf8()),
    });
    const arrow = file(folder, 'b.arrow', tableToIPC(table));
    const { documents, counters } = await read([parquet, arrow]);
    expect(textsOf(documents)).toEqual(['one', 'two']);
    expect(counters.skipped).toEqual({ 'no text field': 2, 'empty text': 1 });
    expect(counters.examples[0]).toEqual({
      reason: 'no text field',
      path: parquet,
      offset: 1,
      detail: '"text" is null',
    });
    const wrong = await read([parquet, arrow], { textField: 'body' });
    expect(wrong.counters.skipped).toEqual({ 'no text field': 2 });
    expect(wrong.counters.examples.map(({ detail }) => detail)).toEqual([
      'no string "body"; fields: id, text, title, url',
      'no string "body"; fields: id, text',
    ]);
    const numbers = await read([parquet, arrow], { textField: 'id' });
    expect(numbers.counters.examples.map(({ detail }) => detail)).toEqual([
      'column "id" is INT64, not text',
      'column "id" is Int32, not text',
    ]);
  });

  it('refuses a window that is too large to be held', async () => {
    const path = file(temporaryFolder(), 'a.jsonl.zst', toZstd([JSONL], 31));
    const { counters } = await read(path);
    expect(counters.skipped).toEqual({ 'not supported': 1 });
    expect(counters.examples[0]!.detail).toContain('--long');
  });
});

describe('JSONL', () => {
  it('gives the same documents however it is cut into files', async () => {
    const text = fc.string({ unit: anyCharacter, minLength: 1 }).filter((s) => s.trim() !== '');
    const compressions = {
      '.jsonl': (b: Buffer) => b,
      '.jsonl.gz': gzipSync,
      '.jsonl.zst': (b: Buffer) => storedZstd(b, 50),
    };
    const kinds = Object.entries(compressions);
    const cut = fc.record({ take: fc.nat(4), kind: fc.constantFrom(...kinds) });
    const last = fc.constantFrom(...kinds);
    await fc.assert(
      fc.asyncProperty(
        fc.array(text, { minLength: 1, maxLength: 20 }),
        fc.array(cut),
        last,
        async (texts, cuts, end) => {
          const rows = texts.map((t) => ({ text: t }));
          const folder = temporaryFolder();
          let at = 0;
          for (const [i, { take, kind }] of [...cuts, { take: rows.length, kind: end }].entries()) {
            const name = `part-${String(i).padStart(4, '0')}${kind[0]}`;
            file(folder, name, kind[1](toJsonl(rows.slice(at, at + take))));
            at += take;
          }
          const { documents } = await read(folder);
          expect(textsOf(documents)).toEqual(texts);
        },
      ),
      { numRuns: 40 },
    );
  });
});
