import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type NamedArray,
  readSafetensors,
  type TensorData,
  weightsHash,
  writeSafetensors,
} from '../../src/checkpoint/safetensors.ts';
import { UserError } from '../../src/errors.ts';
import { sha256File } from '../../src/io/files.ts';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-safetensors-'));
  path = join(folder, 'x.safetensors');
});
afterEach(() => rm(folder, { recursive: true }));

async function codeOf(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => 'no error',
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof UserError)) return String(error);
  expect(error.message).toContain(path);
  expect(error.action).toBeDefined();
  return error.code;
}

/** A file made by hand: what a header claims, and so many bytes behind it. */
function plant(header: unknown, dataBytes: Uint8Array | number): void {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  const data = typeof dataBytes === 'number' ? Buffer.alloc(dataBytes) : dataBytes;
  writeFileSync(path, Buffer.concat([length, json, data]));
}

const shape = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 3 });
const tensor: fc.Arbitrary<NamedArray<TensorData>> = shape.chain((sizes) => {
  const length = sizes.reduce((product, size) => product * size, 1);
  const exactly = { minLength: length, maxLength: length };
  return fc
    .oneof<fc.Arbitrary<TensorData>[]>(
      fc.float32Array(exactly),
      fc.float64Array(exactly),
      fc.int32Array(exactly),
      fc.bigInt64Array(exactly),
      fc.uint8Array(exactly),
    )
    .map((data) => ({ shape: sizes, data }));
});
const name = fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('__proto__', 'constructor', '10', '2', ''));
const tensors = fc
  .array(fc.tuple(name, tensor), { maxLength: 6 })
  .map((entries) => new Map(entries.filter(([key]) => key !== '__metadata__')));

describe('round trip', () => {
  test('any names, shapes and bits', async () => {
    await fc.assert(
      fc.asyncProperty(tensors, fc.dictionary(name, fc.string()), async (map, metadata) => {
        const written = await writeSafetensors(path, map, metadata);
        const read = await readSafetensors(path);
        expect(written).toEqual({ bytes: readFileSync(path).byteLength, sha256: await sha256File(path) });
        expect(read.sha256).toBe(written.sha256);
        expect({ ...read.metadata }).toEqual({ ...metadata });
        expect([...read.tensors.keys()].sort()).toEqual([...map.keys()].sort());
        for (const [key, value] of map) {
          const back = read.tensors.get(key);
          expect(back?.shape).toEqual(value.shape);
          expect(back?.data.constructor).toBe(value.data.constructor);
          // Compared as bytes: NaN payloads and negative zeros count.
          expect(Buffer.from(back!.data.buffer)).toEqual(
            Buffer.from(value.data.buffer, value.data.byteOffset, value.data.byteLength),
          );
        }
      }),
      { numRuns: 40 },
    );
  });

  test('a view into a larger buffer writes its own part', async () => {
    const data = new Float32Array([1, 2, 3, 4]).subarray(1, 3);
    await writeSafetensors(path, new Map([['x', { shape: [2], data }]]));
    expect((await readSafetensors(path)).tensors.get('x')?.data).toEqual(new Float32Array([2, 3]));
  });

  test('a tensor larger than one piece', async () => {
    const data = Float32Array.from({ length: 4 * 2 ** 20 + 3 }, (_, i) => i);
    await writeSafetensors(path, new Map([['x', { shape: [data.length], data }]]));
    const read = await readSafetensors(path);
    expect(Buffer.from(read.tensors.get('x')!.data.buffer).equals(Buffer.from(data.buffer))).toBe(true);
    expect(read.sha256).toBe(await sha256File(path));
  });

  test('refuses a shape that does not fit', async () => {
    const wrong = new Map([['x', { shape: [3], data: new Float32Array(2) }]]);
    await expect(writeSafetensors(path, wrong)).rejects.toThrow(RangeError);
  });
});

test('the bytes are those of the published format', async () => {
  await writeSafetensors(path, new Map([['a', { shape: [1, 2], data: new Float32Array([1, -2]) }]]), { k: 'v' });
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE());
  const json = bytes.toString('utf8', 8, 8 + length);
  expect(length % 8).toBe(0);
  expect(json.trimEnd()).toBe('{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}');
  expect([bytes.readFloatLE(8 + length), bytes.readFloatLE(12 + length)]).toEqual([1, -2]);
  expect(bytes.byteLength).toBe(8 + length + 8);
});

test('half precisions are widened exactly', async () => {
  // IEEE 754: 1, −2, largest finite, smallest subnormal, infinity, not a number; the same values' bfloat16 where it has them.
  const half = new Uint16Array([0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e00]);
  const brain = new Uint16Array([0x3f80, 0xc000, 0x7f7f, 0x0001, 0xff80, 0x7fc0]);
  plant(
    {
      h: { dtype: 'F16', shape: [6], data_offsets: [0, 12] },
      b: { dtype: 'BF16', shape: [6], data_offsets: [12, 24] },
    },
    Buffer.concat([Buffer.from(half.buffer), Buffer.from(brain.buffer)]),
  );
  const read = (await readSafetensors(path)).tensors;
  expect([...read.get('h')!.data]).toEqual([1, -2, 65504, 2 ** -24, Number.POSITIVE_INFINITY, Number.NaN]);
  const expected = [1, -2, (2 - 2 ** -7) * 2 ** 127, 2 ** -133, Number.NEGATIVE_INFINITY, Number.NaN];
  expect([...read.get('b')!.data]).toEqual(expected);
});

describe('bad files', () => {
  const good = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };

  test.each([
    { name: 'a gap', header: { a: { ...good, data_offsets: [4, 12] } }, data: 12 },
    { name: 'an overlap', header: { a: good, b: { ...good, data_offsets: [4, 12] } }, data: 12 },
    { name: 'a size that the shape denies', header: { a: { ...good, shape: [3] } }, data: 8 },
    { name: 'a shape without end', header: { a: { ...good, shape: [2 ** 40, 2 ** 40] } }, data: 8 },
    { name: 'negative sizes', header: { a: { ...good, shape: [-1, -2] } }, data: 8 },
    { name: 'offsets backwards', header: { a: { ...good, data_offsets: [8, 0] } }, data: 8 },
    { name: 'bytes behind the last tensor', header: { a: good }, data: 9 },
    { name: 'no description', header: { a: 7 }, data: 8 },
    { name: 'metadata that are no strings', header: { __metadata__: { k: 1 }, a: good }, data: 8 },
    { name: 'a list for a header', header: [], data: 0 },
    { name: 'no JSON', header: '{"a":', data: 0 },
  ])('$name', async ({ header, data }) => {
    plant(header, data);
    expect(await codeOf(readSafetensors(path))).toBe('file_corrupt');
  });

  test('a type that is not read', async () => {
    plant({ a: { ...good, dtype: 'F8_E4M3', shape: [8] } }, 8);
    expect(await codeOf(readSafetensors(path))).toBe('input_invalid');
  });

  test('missing, empty, or of another kind', async () => {
    expect(await codeOf(readSafetensors(path))).toBe('artefact_missing');
    writeFileSync(path, '');
    expect(await codeOf(readSafetensors(path))).toBe('file_truncated');
    writeFileSync(path, 'PK\u0003\u0004 this is some other file, long enough');
    expect(await codeOf(readSafetensors(path))).toBe('file_corrupt');
  });

  test('every truncation is noticed', async () => {
    const map = new Map([['weight', { shape: [3], data: new Float32Array([1, 2, 3]) }]]);
    const { bytes } = await writeSafetensors(path, map);
    for (let size = bytes - 1; size >= 0; size--) {
      truncateSync(path, size);
      expect(await codeOf(readSafetensors(path))).toBe('file_truncated');
    }
  });

  test('a flipped bit is an error or changes the hash, and never crashes', async () => {
    const { bytes, sha256 } = await writeSafetensors(
      path,
      new Map([['w', { shape: [1], data: new Float32Array([1]) }]]),
    );
    const original = readFileSync(path);
    for (let bit = 0; bit < bytes * 8; bit += 3) {
      const flipped = Buffer.from(original);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      writeFileSync(path, flipped);
      const outcome = await readSafetensors(path).catch((error: unknown) => error);
      if (outcome instanceof UserError) continue;
      expect((outcome as { sha256: string }).sha256).toMatch(/^[0-9a-f]{64}$/);
      expect((outcome as { sha256: string }).sha256).not.toBe(sha256);
    }
  });
});

describe('weightsHash', () => {
  const a = { shape: [2], data: new Float32Array([1, 2]) };
  const b = { shape: [1], data: new Float32Array([3]) };

  test('does not depend on the order', () => {
    expect(
      weightsHash(
        new Map([
          ['a', a],
          ['b', b],
        ]),
      ),
    ).toBe(
      weightsHash(
        new Map([
          ['b', b],
          ['a', a],
        ]),
      ),
    );
  });

  test('depends on names, types, shapes, bytes and where one tensor ends', () => {
    const int = { shape: [2], data: new Int32Array(a.data.buffer) };
    const hashes = [
      new Map([['a', a]]),
      new Map([['c', a]]),
      new Map([['a', { ...a, shape: [1, 2] }]]),
      new Map([['a', { ...a, data: new Float32Array([1, 2.5]) }]]),
      new Map([
        ['a', { ...a, data: new Float32Array([1]) }],
        ['b', { ...b, data: new Float32Array([2]) }],
      ]),
      new Map<string, NamedArray<TensorData>>([['a', int]]),
    ].map((map) => weightsHash(map as Map<string, NamedArray<TensorData>>));
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  test('stays what it is: it names checkpoints on disk', () => {
    expect(weightsHash(new Map([['a', a]]))).toBe('69606b8e5930c46dbc2b1542488bf994e5e24af5648a93a3209857896b1f859e');
  });
});
