import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { RecordBatchReader, tableFromIPC } from 'apache-arrow';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TokenDataset } from '../../src/data/token_dataset.ts';
import { type DatasetShape, flipBit, temporaryFolder, userErrorOf, writeTokens } from './support.ts';

/** Writes documents of these token ids as one source. */
const write = (documents: number[][], shape: DatasetShape = {}) => writeTokens({ source: documents }, shape);

const counting = (count: number) => Array.from({ length: count }, (_, i) => i % 1000);
const firstShard = (folder: string) => join(folder, 'train', 'tokens-00000.arrow');

describe('TokenDataset', () => {
  it('gives back every window of the stream, whatever the sizes of documents, batches and shards', async () => {
    const documents = fc.array(fc.array(fc.integer({ min: 0, max: 69_999 }), { minLength: 1, maxLength: 50 }), {
      maxLength: 12,
    });
    const sizes = fc.record({
      shardDocuments: fc.integer({ min: 1, max: 5 }),
      batchTokens: fc.integer({ min: 1, max: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(documents, sizes, fc.boolean(), fc.nat(), fc.nat(), async (rows, size, wide, a, b) => {
        const ids = rows.map((row) => row.map((id) => (wide ? id : id % 65_536)));
        const cut = a % (ids.length + 1);
        const sources = { first: ids.slice(0, cut), second: ids.slice(cut) };
        const folder = await writeTokens(sources, { ...size, vocabSize: wide ? 70_000 : 65_536 });
        const dataset = await TokenDataset.open(folder, 'train');
        const all = ids.flat();
        expect(dataset.numTokens).toBe(all.length);
        expect(dataset.numDocuments).toBe(rows.length);
        const start = a % (all.length + 1);
        const length = b % (all.length - start + 1);
        expect([...(await dataset.window(start, length))]).toEqual(all.slice(start, start + length));
        expect([...(await dataset.window(0, all.length))]).toEqual(all);
        const firstTokens = ids.slice(0, cut).flat().length;
        expect(dataset.segments).toEqual([
          { name: 'first', start: 0, tokens: firstTokens },
          { name: 'second', start: firstTokens, tokens: all.length - firstTokens },
        ]);
        await dataset.verify();
        await dataset.close();
      }),
      { numRuns: 12 },
    );
  });

  it('writes files that any Arrow reader reads', async () => {
    const folder = await write([counting(5), counting(30), counting(2)], { shardDocuments: 3 });
    const table = tableFromIPC(readFileSync(firstShard(folder)));
    const rows = table.toArray().map((row) => row.toJSON());
    expect(rows.map(({ document: id, part }) => [id, part])).toEqual([
      ['document 0 é', 0],
      ['document 1 é', 0],
      ['document 1 é', 1],
      ['document 1 é', 2],
      ['document 2 é', 0],
    ]);
    expect(rows[0]).toMatchObject({ title: 'title 0', url: '', source: 'memory', offset: 0n });
    expect(rows.flatMap(({ tokens }) => [...tokens])).toEqual([...counting(5), ...counting(30), ...counting(2)]);
    const handle = await open(firstShard(folder));
    const reader = await (await RecordBatchReader.from(handle)).open();
    expect(reader.numRecordBatches).toBe(3);
    expect((await reader.readRecordBatch(1))?.numRows).toBe(1);
    await reader.cancel();
    await handle.close();
  });

  it('is the same bytes for the same documents', async () => {
    const [a, b] = [await write([counting(90), counting(40)]), await write([counting(90), counting(40)])];
    const other = await write([counting(90), counting(41)]);
    const bytes = (folder: string) => [readFileSync(firstShard(folder)), readFileSync(join(folder, 'manifest.json'))];
    expect(bytes(a)).toEqual(bytes(b));
    const hash = async (folder: string) => (await TokenDataset.open(folder, 'train')).contentHash;
    expect(await hash(a)).toBe(await hash(b));
    expect(await hash(a)).not.toBe(await hash(other));
  });

  it('reads concurrent windows of more shards than it keeps open', async () => {
    const documents = Array.from({ length: 40 }, (_, i) => counting(500).slice(12 * i, 12 * i + 12));
    const dataset = await TokenDataset.open(await write(documents, { shardDocuments: 1 }), 'train');
    const openFiles = () => readdirSync('/proc/self/fd').length;
    const before = openFiles();
    const starts = Array.from({ length: 60 }, (_, i) => (i * 37) % 450);
    const windows = await Promise.all(starts.map((start) => dataset.window(start, 30)));
    expect(windows.map((window) => [...window])).toEqual(starts.map((start) => counting(500).slice(start, start + 30)));
    for (const start of starts) await dataset.window(start, 30);
    expect(openFiles() - before).toBeLessThanOrEqual(8);
    await dataset.close();
    expect(openFiles()).toBeLessThanOrEqual(before);
    await expect(dataset.window(470, 11)).rejects.toThrow(RangeError);
    await expect(dataset.window(-1, 1)).rejects.toThrow(RangeError);
  });

  it('refuses a truncated or missing shard at open', async () => {
    const folder = await write([counting(100)]);
    const shard = firstShard(folder);
    truncateSync(shard, readFileSync(shard).length - 1);
    const error = await userErrorOf(TokenDataset.open(folder, 'train'));
    expect(error.code).toBe('file_truncated');
    expect(error.message).toContain(shard);
    expect(error.message).toContain('memory3 data build');
    const empty = await write([counting(100)]);
    writeFileSync(firstShard(empty), Buffer.concat([readFileSync(firstShard(empty)), Buffer.from('x')]));
    expect(await userErrorOf(TokenDataset.open(empty, 'train'))).toMatchObject({ code: 'file_corrupt' });
    expect(await userErrorOf(TokenDataset.open(temporaryFolder(), 'train'))).toMatchObject({
      code: 'artefact_missing',
    });
  });

  it('finds any flipped bit of a shard by `verify`, and of a record batch when it is read', async () => {
    const folder = await write([counting(100)]);
    const path = firstShard(folder);
    const second = (await TokenDataset.open(folder, 'train')).shards[0]?.batches[1];
    if (!second) throw new Error('the shard has two batches');
    for (const at of [
      0,
      second.offset,
      second.offset + 100,
      second.offset + second.bytes - 1,
      readFileSync(path).length - 1,
    ]) {
      flipBit(path, at);
      const dataset = await TokenDataset.open(folder, 'train');
      expect(await userErrorOf(dataset.verify())).toMatchObject({ code: 'file_corrupt' });
      expect([...(await dataset.window(0, 16))]).toEqual(counting(16));
      const inside = at >= second.offset && at < second.offset + second.bytes;
      if (inside) expect(await userErrorOf(dataset.window(10, 10))).toMatchObject({ code: 'file_corrupt' });
      else expect([...(await dataset.window(10, 10))]).toEqual(counting(20).slice(10));
      flipBit(path, at);
    }
    await (await TokenDataset.open(folder, 'train')).verify();
  });

  it('notices a shard that is cut short while it is open', async () => {
    const folder = await write([counting(64)]);
    const dataset = await TokenDataset.open(folder, 'train');
    truncateSync(firstShard(folder), 100);
    expect(await userErrorOf(dataset.window(40, 8))).toMatchObject({ code: 'file_truncated' });
  });

  it('refuses another tokenizer, another version and a changed manifest', async () => {
    const folder = await write([counting(20)]);
    const path = join(folder, 'manifest.json');
    const text = readFileSync(path, 'utf8');
    await TokenDataset.open(folder, 'train', { tokenizerHash: 'aa' });
    const error = await userErrorOf(TokenDataset.open(folder, 'train', { tokenizerHash: 'bb' }));
    expect(error.code).toBe('artefact_mismatch');
    expect(error.message).toMatch(/made with tokenizer aa….*tokenizer bb… is in use/);
    const reopen = (changed: string) => {
      writeFileSync(path, changed);
      return userErrorOf(TokenDataset.open(folder, 'train'));
    };
    expect(await reopen(text.replace('"version": 2', '"version": 3'))).toMatchObject({ code: 'version_unsupported' });
    expect(await reopen(text.replace('"tokens": 20', '"tokens": 21'))).toMatchObject({ code: 'file_corrupt' });
    expect(await reopen(text.slice(0, -20))).toMatchObject({ code: 'file_corrupt' });
    expect(await reopen('[]')).toMatchObject({ code: 'file_corrupt' });
  });
});
