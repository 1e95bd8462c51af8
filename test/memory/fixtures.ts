/** Small banks with made-up numbers. */

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import {
  type BankIdentity,
  keptCount,
  type MemoryBatch,
  type MemoryRecord,
  rowLength,
} from '../../src/memory/layout.ts';
import { PURPOSE, randomInt, randomNormals } from '../../src/random.ts';

export const LAYOUT = { memoryLayers: 2, kvHeads: 2, keptTokens: 3, headDim: 4 };

export const IDENTITY: BankIdentity = {
  modelKey: 'layers=4/2 hidden=16',
  tokenizerHash: 'a'.repeat(64),
  layout: LAYOUT,
  storage: 'float32',
  encoder: { dimensions: 6, description: { kind: 'test' }, state: Uint8Array.from([1, 2, 3]) },
};

/** A folder that is removed when the test ends. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'memory3-bank-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Memory number `number`; `variant` changes its numbers, not its text. */
export function memory(number: number, variant = 0): { record: MemoryRecord; row: Float32Array; vector: Float32Array } {
  const tokens = Int32Array.from({ length: 1 + (number % 5) }, (_, i) => randomInt(9, PURPOSE.test, number, i, 1000));
  const keptLength = Math.min(LAYOUT.keptTokens, tokens.length);
  const record: MemoryRecord = {
    id: `m${number}`,
    document: `document ${number % 3}`,
    title: number % 2 === 0 ? `Título ${number} 記憶` : '',
    text: `text of ${number} — ünïcode`,
    span: [number, number + 10],
    tokens,
    kept: Int32Array.from({ length: keptCount(LAYOUT) }, (_, i) => i % keptLength),
    keptLength,
  };
  return {
    record,
    row: randomNormals(variant, PURPOSE.test, number, rowLength(LAYOUT)),
    vector: randomNormals(variant + 77, PURPOSE.test, number, IDENTITY.encoder.dimensions),
  };
}

/** A batch of memories `numbers`. */
export function batch(numbers: readonly number[], variant = 0): MemoryBatch {
  const memories = numbers.map((number) => memory(number, variant));
  const joined = (parts: Float32Array[]): Float32Array => Float32Array.from(parts.flatMap((part) => [...part]));
  return {
    records: memories.map(({ record }) => record),
    rows: joined(memories.map(({ row }) => row)),
    vectors: joined(memories.map(({ vector }) => vector)),
  };
}

export function range(from: number, until: number): number[] {
  return Array.from({ length: until - from }, (_, i) => from + i);
}

/** Every file below `folder` with its bytes as hexadecimal text. */
export async function filesOf(folder: string): Promise<Map<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const files = new Map<string, string>();
  for (const path of paths.sort()) files.set(path.slice(folder.length + 1), (await readFile(path)).toString('hex'));
  return files;
}
