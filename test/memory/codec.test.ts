import { readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { FaissCodec, faissAvailable } from '../../src/engine/native/faiss.ts';
import { UserError } from '../../src/errors.ts';
import { Bank } from '../../src/memory/bank.ts';
import { bankStats } from '../../src/memory/bank_stats.ts';
import {
  automaticCodec,
  CodecSample,
  candidateCodecs,
  chooseCodec,
  codecError,
  restoreCodec,
  trainCodecs,
  VectorSample,
} from '../../src/memory/codec.ts';
import { codecPath, describeCodecs } from '../../src/memory/codec_files.ts';
import { readDraft } from '../../src/memory/draft.ts';
import { type BankIdentity, keptCount, rowLength, type StoredCodecs } from '../../src/memory/layout.ts';
import { bankProblems, type RepairSources, repairBank } from '../../src/memory/repair.ts';
import { RowCache } from '../../src/memory/row_cache.ts';
import { rowFormat, rowValues } from '../../src/memory/row_format.ts';
import { segmentFolder } from '../../src/memory/segment.ts';
import { stepMemories } from '../../src/memory/step_memories.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { batch, filesOf, IDENTITY, LAYOUT, memory, range, temporaryFolder } from './fixtures.ts';

const describeFaiss = faissAvailable().ok ? describe : describe.skip;

const D = LAYOUT.headDim;
const KEY_BYTES = 1;
const VALUE_BYTES = 4;

/** Keys in a byte, values in four, so that a mix-up of the two is seen. */
async function someCodecs(seed = 1): Promise<StoredCodecs> {
  const keys = randomNormals(seed, PURPOSE.test, 0, 400 * D);
  const values = randomNormals(seed, PURPOSE.test, 1, 400 * D);
  const coarse = await trainCodecs('PQ2x4', D, { keys, values });
  const fine = await trainCodecs('SQ8', D, { keys, values });
  return { keys: coarse.keys, values: fine.values };
}

let codecs: StoredCodecs;
let identity: BankIdentity;
beforeAll(async () => {
  if (!faissAvailable().ok) return;
  codecs = await someCodecs();
  identity = { ...IDENTITY, codecs };
});

/** What a bank gives back of memories, coded vector by vector by Faiss itself. */
async function asRead(numbers: readonly number[], variant = 0): Promise<number[]> {
  const { memoryLayers, kvHeads, keptTokens } = LAYOUT;
  const keys = await FaissCodec.restore(codecs.keys.state);
  const values = await FaissCodec.restore(codecs.values.state);
  const out: number[] = [];
  for (const number of numbers) {
    const { row } = memory(number, variant);
    for (let vector = 0; vector < memoryLayers * 2 * kvHeads * keptTokens; vector++) {
      const codec = Math.floor(vector / (kvHeads * keptTokens)) % 2 === 0 ? keys : values;
      out.push(...(await codec.decode(await codec.encode(row.slice(vector * D, (vector + 1) * D)))));
    }
  }
  return out;
}

async function smallBank(): Promise<string> {
  const folder = join(await temporaryFolder(), 'bank');
  const writer = await Bank.create(folder, identity, { segmentMemories: 4 });
  await writer.append([batch(range(0, 6))], 'w1');
  return folder;
}

async function expectHolds(folder: string, numbers: readonly number[], variant = 0): Promise<void> {
  const bank = await Bank.open(folder);
  const ids = numbers.map((number) => `m${number}`);
  expect(bank.ids()).toEqual(ids);
  expect(Array.from(await bank.readRows(ids))).toEqual(await asRead(numbers, variant));
  await bank.verify();
  expect(await bankProblems(folder)).toEqual([]);
  await bank.close();
}

describeFaiss('memories as codes', () => {
  it('take exactly the bytes of their codes, and come back as Faiss decodes them, in any number', async () => {
    const format = rowFormat(identity);
    expect(format.rowBytes).toBe(keptCount(LAYOUT) * (KEY_BYTES + VALUE_BYTES));
    expect(format).toMatchObject({ type: 'float32', readBytes: 4 * rowLength(LAYOUT) });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(30), { maxLength: 5 }), async (numbers) => {
        const codes = await format.encode(batch(numbers).rows);
        expect(codes.length).toBe(numbers.length * format.rowBytes);
        expect(Array.from(await rowValues(format, codes))).toEqual(await asRead(numbers));
      }),
      { numRuns: 15 },
    );
  });

  it('of the paper take 14 bytes instead of 80 numbers', () => {
    const layout = { memoryLayers: 22, kvHeads: 8, keptTokens: 8, headDim: 80 };
    const factory = automaticCodec(80);
    const { codeBytes } = FaissCodec.create(80, factory);
    const codec = { factory, codeBytes, stateHash: '', state: new Uint8Array(0) };
    const { rowBytes } = rowFormat({ layout, storage: 'float32', codecs: { keys: codec, values: codec } });
    expect(rowBytes).toBe(2 * 22 * 8 * 8 * 14);
  });

  it('lie in a bank that is appended to, edited, compacted and opened again', async () => {
    const folder = await smallBank();
    await expectHolds(folder, range(0, 6));
    const writer = await Bank.openForWriting(folder, { segmentMemories: 4 });
    await writer.edit(['m1', 'm4'], [batch([7, 8])], 'w2');
    await expectHolds(folder, [0, 2, 3, 5, 7, 8]);
    await writer.compact();
    await writer.prune([]);
    await expectHolds(folder, [0, 2, 3, 5, 7, 8]);
    await writer.replaceAll([batch(range(0, 3), 1)], 'w3');
    await expectHolds(folder, range(0, 3), 1);
    const bank = await Bank.open(folder);
    const [entry] = bank.segments;
    const { size } = await stat(join(segmentFolder(folder, entry!.id), 'rows.bin'));
    expect(size).toBe(3 * keptCount(LAYOUT) * (KEY_BYTES + VALUE_BYTES));
    expect((await bankStats(bank)).storage).toBe('codes: keys PQ2x4, 1 bytes; values SQ8, 4 bytes');
    await bank.close();
  });

  it('are kept in the row cache as codes, and reach a step as float32', async () => {
    const folder = await smallBank();
    const cache = new RowCache(2 ** 20);
    const bank = await Bank.open(folder, { cache });
    const step = await stepMemories(bank, [[['m1'], ['m3', 'm1']]], { memoriesPerChunk: 2, padTo: 4 });
    expect(cache.stats.bytes).toBe(2 * bank.format.rowBytes);
    expect(step.type).toBe('float32');
    const numbers = new Float32Array(step.rows.buffer);
    expect(Array.from(numbers.subarray(0, 2 * rowLength(LAYOUT)))).toEqual(await asRead([1, 3]));
    expect(numbers.subarray(2 * rowLength(LAYOUT)).every((number) => number === 0)).toBe(true);
    await bank.close();
  });
});

describeFaiss('the codecs of a bank', () => {
  it('are named when they are damaged or gone, in each way of opening, and only the same ones take their place', async () => {
    const folder = await smallBank();
    const whole = await filesOf(folder);
    const other = await someCodecs(2);
    for (const codec of [codecs.keys, codecs.values]) {
      const path = codecPath(folder, codec);
      const good = await readFile(path);
      const flipped = Buffer.from(good);
      flipped[good.length >> 1]! ^= 4;
      for (const damage of [() => writeFile(path, flipped), () => truncate(path, good.length - 1), () => rm(path)]) {
        await damage();
        const expected = {
          code: expect.stringMatching(/file_corrupt|artefact_missing/),
          where: path,
          action: expect.stringContaining('memory3 compile'),
        };
        await expect(Bank.open(folder)).rejects.toMatchObject(expected);
        await expect(Bank.openForWriting(folder)).rejects.toMatchObject(expected);
        expect(await bankProblems(folder)).toMatchObject([expected]);
        const report = await repairBank(folder, NOTHING);
        expect(report).toMatchObject({ done: [], dropped: [], left: [expected] });
        expect(await repairBank(folder, { ...NOTHING, codecs: async () => other })).toMatchObject({ left: [expected] });
        expect(await repairBank(folder, { ...NOTHING, codecs: async () => codecs })).toMatchObject({
          done: ['trained the codecs again'],
          left: [],
        });
        expect(await filesOf(folder)).toEqual(whole);
      }
    }
  });

  it('of another bank are not taken', async () => {
    const folder = await smallBank();
    const other = await someCodecs(2);
    await writeFile(codecPath(folder, codecs.keys), other.keys.state);
    await expect(Bank.open(folder)).rejects.toMatchObject({ code: 'file_corrupt' });
    // Right by its own hash, but made for heads of another size.
    const wide = await trainCodecs('SQ8', 8, {
      keys: randomNormals(1, PURPOSE.test, 0, 80),
      values: new Float32Array(80),
    });
    await expect(restoreCodec(wide.keys, D)).rejects.toMatchObject({ code: 'artefact_mismatch' });
    await expect(restoreCodec({ ...codecs.keys, codeBytes: 2 }, D)).rejects.toBeInstanceOf(UserError);
  });

  it('let bank.json and lost rows be made again, the same as before', async () => {
    const folder = await smallBank();
    const whole = await filesOf(folder);
    await writeFile(join(folder, 'bank.json'), '{}');
    expect((await repairBank(folder, NOTHING)).done).toEqual(['made bank.json again']);
    expect(await filesOf(folder)).toEqual(whole);
    const rows = [...whole.keys()].find((name) => name.endsWith('rows.bin'))!;
    await truncate(join(folder, rows), 3);
    const report = await repairBank(folder, WITH_MODEL);
    expect(report).toMatchObject({ dropped: [], left: [] });
    expect(await filesOf(folder)).toEqual(whole);
  });

  it('leave a bank without codecs as it was', async () => {
    const folder = join(await temporaryFolder(), 'bank');
    await (await Bank.create(folder, IDENTITY)).append([batch([1])], 'w1');
    for (const text of [...(await filesOf(folder)).values()].map((hex) => Buffer.from(hex, 'hex').toString('latin1'))) {
      expect(text).not.toContain('codec');
    }
  });

  it('make the same bytes when a compilation is killed and goes on', async () => {
    const compiled = async (folder: string): Promise<Map<string, string>> => {
      const writer = await Bank.openForWriting(folder, { segmentMemories: 4 });
      const memories = (first: number) => range(first, 11).map((number) => batch([number]));
      await writer.compile('key', memories, 'w1', 2);
      await writer.prune([]);
      return await filesOf(folder);
    };
    const once = join(await temporaryFolder(), 'bank');
    await Bank.create(once, identity);
    const files = await compiled(once);
    const killed = join(await temporaryFolder(), 'bank');
    const writer = await Bank.create(killed, identity, { segmentMemories: 4 });
    function* until(first: number) {
      for (const number of range(first, 6)) yield batch([number]);
      throw new Error('killed');
    }
    await expect(writer.compile('key', until, 'w1', 2)).rejects.toThrow('killed');
    expect(await compiled(killed)).toEqual(files);
    await expectHolds(killed, range(0, 11));
  });

  it('are others when all memories are written anew with others; older versions keep theirs', async () => {
    const folder = await smallBank();
    const others = await someCodecs(2);
    const writer = await Bank.openForWriting(folder, { segmentMemories: 4 });
    function* until(first: number) {
      for (const number of range(first, 6)) yield batch([number]);
      throw new Error('killed');
    }
    const options = { codecs: others };
    await expect(writer.compile('key', until, 'w2', 2, options)).rejects.toThrow('killed');
    // What is added meanwhile is coded as before.
    await writer.append([batch([7])], 'w1');
    await expectHolds(folder, [...range(0, 6), 7]);
    const again = await Bank.openForWriting(folder, { segmentMemories: 4 });
    const draft = (await readDraft(folder))!;
    expect(draft).toMatchObject({ codecs: describeCodecs(others), segments: [{ memories: 4 }] });
    const asked: number[] = [];
    const memories = (first: number) => {
      asked.push(first);
      return range(first, 8).map((number) => batch([number]));
    };
    await again.compile('key', memories, 'w2', 2, options);
    expect(asked).toEqual([4]);
    const [older, newer] = [await Bank.open(folder, { version: 2 }), await Bank.open(folder)];
    expect(newer.identity.codecs).toEqual(others);
    expect(Array.from(await older.readRows(['m7', 'm3']))).toEqual(await asRead([7, 3]));
    const format = rowFormat({ ...IDENTITY, codecs: others });
    const expected = await rowValues(format, await format.encode(batch([7, 3]).rows));
    expect(await newer.readRows(['m7', 'm3'])).toEqual(expected);
    expect(await bankProblems(folder)).toEqual([]);
    await Promise.all([older.close(), newer.close()]);
    await again.prune([]);
    expect([...(await filesOf(folder)).keys()].filter((name) => name.startsWith('codec-'))).toHaveLength(2);
    await again.compile('numbers', memories, 'w2', 2, {});
    await again.prune([]);
    const numbers = await Bank.open(folder);
    expect(Array.from(await numbers.readRows(['m7']))).toEqual(Array.from(memory(7).row));
    expect([...(await filesOf(folder)).keys()].filter((name) => name.startsWith('codec-'))).toEqual([]);
    await numbers.close();
  });
});

describe('a sample of vectors', () => {
  /** Rows whose numbers say where they stand. */
  const numbered = (memories: number): Float32Array =>
    Float32Array.from({ length: memories * rowLength(LAYOUT) }, (_, i) => Math.floor(i / D));

  it('pairs each key with the value of the same token, and holds no place of a short reference', () => {
    const sample = new VectorSample(LAYOUT, 1000, 1);
    const { memoryLayers, kvHeads, keptTokens } = LAYOUT;
    sample.add(numbered(2), [1, 3]);
    const { keys, values } = sample.vectors;
    expect(keys.length).toBe(memoryLayers * kvHeads * (1 + 3) * D);
    for (let i = 0; i < keys.length; i++) expect(values[i]! - keys[i]!).toBe(kvHeads * keptTokens);
    const ofFirst = [...keys].filter((vector) => vector < rowLength(LAYOUT) / D);
    expect(ofFirst.every((vector) => vector % keptTokens === 0)).toBe(true);
  });

  it('takes each vector about equally often, and the same ones for the same seed', () => {
    const seen = new Map<number, number>();
    for (let seed = 0; seed < 400; seed++) {
      const sample = new VectorSample(LAYOUT, 6, seed);
      sample.add(numbered(2), [3, 3]);
      const { keys } = sample.vectors;
      for (let i = 0; i < keys.length; i += D) seen.set(keys[i]!, (seen.get(keys[i]!) ?? 0) + 1);
      const again = new VectorSample(LAYOUT, 6, seed);
      again.add(numbered(1), [3]);
      again.add(numbered(2).subarray(rowLength(LAYOUT)), [3]);
      expect(again.vectors.keys).toEqual(keys);
    }
    // 24 keys, each in a quarter of 400 samples: 100 ± 8.7.
    expect(seen.size).toBe(24);
    for (const count of seen.values()) expect(Math.abs(count - 100)).toBeLessThan(40);
  });

  it('keeps some memories for the test', () => {
    const sample = new CodecSample(LAYOUT, 1);
    const numbers = range(0, 32);
    sample.add(
      numbers,
      numbered(32),
      numbers.map(() => 3),
    );
    const memoryOf = (vector: number): number => Math.floor((vector * D) / rowLength(LAYOUT));
    expect(new Set([...sample.test.keys].map(memoryOf))).toEqual(new Set([15, 31]));
    expect([...sample.train.keys].map(memoryOf)).not.toContain(15);
    expect(sample.isFull).toBe(false);
  });
});

describeFaiss('training a codec', () => {
  it('gives the same bytes for the same vectors, and less is lost with more bytes', async () => {
    const x = { keys: randomNormals(1, PURPOSE.test, 0, 4000), values: randomNormals(1, PURPOSE.test, 1, 4000) };
    const errors: number[] = [];
    for (const factory of ['PQ1x4', 'OPQ2-PQ2x4', 'SQ8']) {
      const first = await trainCodecs(factory, D, x);
      expect(await trainCodecs(factory, D, x)).toEqual(first);
      errors.push((await codecError(first, D, x)).keys);
    }
    expect(errors).toEqual([...errors].sort((a, b) => b - a));
    expect(errors[0]).toBeLessThan(1);
    expect(errors[2]).toBeLessThan(1e-3);
  });
});

describe('memory.codec', () => {
  it('asks for none when it is left out', () => expect(chooseCodec(undefined, 16)).toBeUndefined());

  it.runIf(faissAvailable().ok)('takes what Faiss takes, and names itself when it does not', () => {
    expect(chooseCodec('PQ4', 16)).toBe('PQ4');
    for (const headDim of [2, 16, 32, 42, 64, 80, 96, 128, 256]) {
      expect(chooseCodec('auto', headDim)).toBe(automaticCodec(headDim));
      for (const codec of candidateCodecs(headDim)) expect(chooseCodec(codec, headDim)).toBe(codec);
    }
    expect(chooseCodec('auto', 6)).toBe('RQ3x8');
    expect(chooseCodec('auto', 80)).toBe('OPQ20x80-Residual2x14-PQ8x10');
    for (const unfit of ['PQ5', 'HNSW32', 'nonsense']) {
      expect(() => chooseCodec(unfit, 16)).toThrow(
        expect.objectContaining({
          code: 'config_invalid',
          where: 'memory.codec',
          message: expect.stringContaining(unfit),
        }),
      );
    }
  });

  it.runIf(!faissAvailable().ok)('needs Faiss', () => {
    expect(() => chooseCodec('auto', 16)).toThrow(expect.objectContaining({ code: 'config_invalid' }));
  });
});

/** As if nothing were at hand but the bank itself. */
const NOTHING: RepairSources = {
  encoderState: async () => undefined,
  codecs: async () => undefined,
  encoder: async () => Promise.reject(new Error('not asked for')),
  rewriter: async () => undefined,
};

/** As if the checkpoint that wrote the memories were at hand. */
const WITH_MODEL: RepairSources = {
  ...NOTHING,
  rewriter: async () => async (tokens) => {
    const numbers = tokens.map((text) => range(0, 6).find((n) => String(memory(n).record.tokens) === String(text))!);
    const { rows, records } = batch(numbers);
    const kept = Int32Array.from(records.flatMap((record) => [...record.kept]));
    return { rows, kept, keptLengths: records.map(({ keptLength }) => keptLength) };
  },
};
