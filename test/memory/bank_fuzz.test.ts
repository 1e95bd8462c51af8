/** Damages every file of a small bank in a thousand ways: what is read is right, or an error names the file. */

import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { faissAvailable } from '../../src/engine/native/faiss.ts';
import { UserError } from '../../src/errors.ts';
import { Bank } from '../../src/memory/bank.ts';
import { BankIndex, specOf } from '../../src/memory/bank_index.ts';
import { trainCodecs } from '../../src/memory/codec.ts';
import { LexicalEncoder } from '../../src/memory/encoders/lexical.ts';
import type { BankIdentity } from '../../src/memory/layout.ts';
import { Retriever } from '../../src/memory/retrieve.ts';
import { readWithdrawn, withdraw } from '../../src/memory/withdrawn.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import { batch, filesOf, IDENTITY, LAYOUT, memory, range, temporaryFolder } from './fixtures.ts';

const CASES = 1000;
const WRITER = 'w1';
const DELETED = 'm2';

/** What is done to the bytes of a file; or it is removed, or a folder takes its place. */
const DAMAGES: ((bytes: Buffer, random: (choices: number) => number) => Buffer | 'gone' | 'folder')[] = [
  // One bit, some bytes, a block of zeros.
  (bytes, random) => altered(bytes, random(bytes.length), (old) => old ^ (1 << random(8))),
  (bytes, random) => altered(bytes, random(bytes.length), () => random(256), 1 + random(16)),
  (bytes, random) => altered(bytes, random(bytes.length), () => 0, 1 + random(64)),
  // Shorter, longer, empty, gone.
  (bytes, random) => bytes.subarray(0, random(bytes.length)),
  (bytes, random) => Buffer.concat([bytes, Buffer.alloc(1 + random(40), random(256))]),
  () => Buffer.alloc(0),
  () => 'gone',
  () => 'folder',
  // A piece of the file in another place, as of a wrong block of the disk.
  (bytes, random) => Buffer.concat([bytes.subarray(random(bytes.length)), bytes]).subarray(0, bytes.length),
  // Digits and letters changed so that JSON stays JSON.
  (bytes, random) =>
    Buffer.from(
      bytes.toString('latin1').replace(/[0-9]/g, (digit) => (random(20) ? digit : String(random(10)))),
      'latin1',
    ),
];

function altered(bytes: Buffer, from: number, change: (old: number) => number, count = 1): Buffer {
  const out = Buffer.from(bytes);
  for (let i = from; i < Math.min(out.length, from + count); i++) out[i] = change(out[i]!) & 255;
  return out;
}

/**
 * A bank of two segments, two kept versions, a memory deleted since, and vectors of a real encoder; with Faiss its memories are
 * codes and it has an index.
 */
async function makeBank(folder: string): Promise<LexicalEncoder> {
  const encoder = await LexicalEncoder.fit(
    range(0, 7).map((number) => memory(number).record.tokens),
    6,
  );
  const { state, ...stored } = { dimensions: 6, description: encoder.describe(), state: Uint8Array.of(1, 2, 3) };
  const memories = batch(range(0, 7));
  const identity = { ...IDENTITY, ...(await someCodecs(memories.rows)), encoder: { ...stored, state } };
  const writer = await Bank.create(folder, identity, { segmentMemories: 4 });
  const tokens = memories.records.map((record) => record.tokens);
  await writer.append([{ ...memories, vectors: await encoder.encodeReferences({ tokens }) }], WRITER);
  if (faissAvailable().ok) await addIndex(folder);
  await withdraw(writer, [DELETED]);
  await writer.delete([DELETED]);
  return encoder;
}

async function someCodecs(rows: Float32Array): Promise<Pick<BankIdentity, 'codecs'>> {
  if (!faissAvailable().ok) return {};
  const half = rows.length >> 1;
  const vectors = { keys: rows.subarray(0, half), values: rows.subarray(half) };
  return { codecs: await trainCodecs('SQ8', LAYOUT.headDim, vectors) };
}

async function addIndex(folder: string): Promise<void> {
  const bank = await Bank.open(folder);
  const index = await BankIndex.build(bank, specOf('HNSW4', 'test'));
  await index!.save();
  await index!.close();
  await bank.close();
}

/** The numbers of every memory as the bank gives them when it is whole. */
async function rowsOf(folder: string): Promise<Map<string, Float32Array>> {
  const bank = await Bank.open(folder);
  const rows = new Map<string, Float32Array>();
  for (const id of bank.ids()) rows.set(id, await bank.readRows([id]));
  await bank.close();
  return rows;
}

/** Opens, verifies, reads and searches as a program would; wrong contents fail the test. */
async function use(folder: string, encoder: LexicalEncoder, rows: ReadonlyMap<string, Float32Array>): Promise<void> {
  const identity = { modelKey: IDENTITY.modelKey, tokenizerHash: IDENTITY.tokenizerHash, writers: [WRITER] };
  const bank = await Bank.open(folder, { identity });
  try {
    const live = bank.version === 2 ? range(0, 7).filter((number) => `m${number}` !== DELETED) : range(0, 7);
    // A bank that opens at another version than was committed would bring a deleted memory back.
    expect(bank.version).toBe(2);
    expect(bank.ids()).toEqual(live.map((number) => `m${number}`));
    const read = live.map((number) => memory(number));
    for (const { record } of read) {
      expect(await attempt(() => bank.get(record.id), record)).toEqual(record);
      const row = rows.get(record.id)!;
      expect(await attempt(() => bank.readRows([record.id]), row)).toEqual(row);
    }
    const withdrawn = await attempt(() => readWithdrawn(folder), undefined);
    // Nothing names the file: that it is gone cannot be seen.
    if (withdrawn !== undefined && withdrawn.size > 0) expect([...withdrawn]).toEqual([DELETED]);
    const found = await attempt(async () => {
      const retriever = await Retriever.fromBank(bank, encoder);
      return await retriever.search([memory(5).record.tokens], 7);
    }, undefined);
    if (found !== undefined) {
      expect(found[0]!.map(({ id }) => id).toSorted()).toEqual(bank.ids());
      expect(found[0]![0]!.id).toBe('m5');
    }
    await bank.verify();
  } finally {
    await bank.close();
  }
}

const refusals: UserError[] = [];

/** What `work` gives, or `instead` after a user error, which is noted. */
async function attempt<T>(work: () => Promise<T>, instead: T): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    refusals.push(error);
    return instead;
  }
}

it(`a bank damaged in ${CASES} ways says which file, or is read right`, async () => {
  await openEngine('cpu', 1);
  const folder = join(await temporaryFolder(), 'bank');
  const encoder = await makeBank(folder);
  const files = [...(await filesOf(folder)).keys()];
  expect(files).toHaveLength(faissAvailable().ok ? 19 : 15);
  const rows = await rowsOf(folder);
  await use(folder, encoder, rows);
  expect(refusals).toEqual([]);
  let refused = 0;
  for (let number = 0; number < CASES; number++) {
    let draw = 0;
    const random = (choices: number): number => randomInt(7, PURPOSE.test, number, draw++, choices);
    const name = files[number % files.length]!;
    const path = join(folder, name);
    const good = await readFile(path);
    const damage = DAMAGES[random(DAMAGES.length)]!;
    const bad = damage(good, random);
    if (typeof bad === 'string') await rm(path);
    else await writeFile(path, bad);
    if (bad === 'folder') await mkdir(path);
    refusals.length = 0;
    try {
      await use(folder, encoder, rows);
    } catch (error) {
      if (!(error instanceof UserError))
        throw new Error(`case ${number}: ${name}, damage ${DAMAGES.indexOf(damage)}`, { cause: error });
      refusals.push(error);
    }
    for (const { where, message, action } of refusals) {
      expect(where, `case ${number}: ${message}`).toContain(folder);
      expect(action, `case ${number}: ${message}`).toBeDefined();
    }
    const isOld = /manifest-[01]\.json/.test(name);
    const unchanged = typeof bad !== 'string' && bad.equals(good);
    if (isOld || unchanged) expect(refusals, `case ${number}: ${name}`).toEqual([]);
    if (refusals.length > 0) refused++;
    if (bad === 'folder') await rmdir(path);
    await writeFile(path, good);
  }
  expect(refused).toBeGreaterThan(CASES / 2);
  await use(folder, encoder, rows);
}, 120_000);
