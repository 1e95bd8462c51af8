/** The log of records, read back by the independent reader and by our own, whole, cut off and damaged. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, it } from 'vitest';
import { encodeRecords, FILE_HEADER, readRecords } from '../../../src/tracking/wandb/record_log.ts';
import { readLog } from './reader.ts';

const folder = mkdtempSync(join(tmpdir(), 'memory3-log-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Records by their sizes: small ones, some that end about the end of a block, some of several blocks. */
const size = fc.oneof(
  { weight: 4, arbitrary: fc.nat(300) },
  { weight: 2, arbitrary: fc.integer({ min: 32768 - 40, max: 32768 + 20 }) },
  { weight: 1, arbitrary: fc.integer({ min: 65536, max: 140_000 }) },
);
const log = fc.array(size, { minLength: 1, maxLength: 8 });

function filled(size: number, i: number): Buffer {
  return Buffer.alloc(size, (i * 37 + 1) % 256);
}

function encode(records: readonly Buffer[]): Buffer {
  return Buffer.concat([FILE_HEADER, encodeRecords(records, FILE_HEADER.length)]);
}

async function readOurs(file: Uint8Array): Promise<{ records: Buffer[]; end: number }> {
  const path = join(folder, 'log');
  writeFileSync(path, file);
  const handle = await open(path, 'r');
  try {
    const records: Buffer[] = [];
    let end = FILE_HEADER.length;
    for await (const record of readRecords(handle)) {
      records.push(Buffer.from(record.bytes));
      end = record.end;
    }
    return { records, end };
  } finally {
    await handle.close();
  }
}

it('records of all sizes are read back by the independent reader and by ours', async () => {
  await fc.assert(
    fc.asyncProperty(log, async (sizes) => {
      const records = sizes.map(filled);
      const file = encode(records);
      const ours = await readOurs(file);
      for (const found of [readLog(file), ours.records]) {
        expect(found.map(({ length }) => length)).toEqual(sizes);
        expect(Buffer.concat(found).equals(Buffer.concat(records))).toBe(true);
      }
      expect(ours.end).toBe(file.length);
    }),
    { numRuns: 40 },
  );
}, 60_000);

it('every place about the end of a block works: padding of 0 to 6 bytes, a first chunk without data, a full block', () => {
  for (let left = 0; left <= 24; left++) {
    // The first record leaves `left` bytes of the first block.
    const records = [filled(32768 - 7 - 7 - left, 0), filled(100, 1), filled(70_000, 2)];
    expect(readLog(encode(records)).map(({ length }) => length)).toEqual(records.map(({ length }) => length));
  }
});

it('a file written in parts is the same as one written at once', () => {
  fc.assert(
    fc.property(log, log, (...sizes) => {
      const [first, second] = [sizes[0].map(filled), sizes[1].map(filled)];
      const whole = encode([...first, ...second]);
      const begin = encode(first);
      expect(Buffer.concat([begin, encodeRecords(second, begin.length)]).equals(whole)).toBe(true);
    }),
    { numRuns: 40 },
  );
});

it('a file cut off anywhere gives the records before, and goes on from there', async () => {
  await fc.assert(
    fc.asyncProperty(log, fc.double({ min: 0, max: 1, noNaN: true }), async (sizes, share) => {
      const records = sizes.map(filled);
      const file = encode(records);
      const cut = FILE_HEADER.length + Math.floor(share * (file.length - FILE_HEADER.length));
      const { records: found, end } = await readOurs(file.subarray(0, cut));
      expect(found.map(({ length }) => length)).toEqual(records.slice(0, found.length).map(({ length }) => length));
      if (found.length < records.length) expect(encode(records.slice(0, found.length + 1)).length).toBeGreaterThan(cut);
      const rest = records.slice(found.length);
      expect(Buffer.concat([file.subarray(0, end), encodeRecords(rest, end)]).equals(file)).toBe(true);
    }),
    { numRuns: 60 },
  );
}, 60_000);

it('a damaged byte ends the reading before its record; nothing wrong is read', async () => {
  await fc.assert(
    fc.asyncProperty(log, fc.nat(), fc.integer({ min: 1, max: 255 }), async (sizes, place, change) => {
      const records = sizes.map(filled);
      const file = encode(records);
      const at = FILE_HEADER.length + (place % (file.length - FILE_HEADER.length));
      file[at] = file[at]! ^ change;
      const { records: found, end } = await readOurs(file);
      expect(Buffer.concat(found).equals(Buffer.concat(records.slice(0, found.length)))).toBe(true);
      // Padding may be damaged without harm.
      if (found.length < records.length) expect(end).toBeLessThanOrEqual(at);
    }),
    { numRuns: 60 },
  );
}, 60_000);
