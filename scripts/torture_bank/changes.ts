/** Changes to a bank of made-up memories, as data: what a writer does, and what must be in the bank afterwards. */

import { createHash } from 'node:crypto';
import type { BankWriter } from '../../src/memory/bank_writer.ts';
import {
  type BankIdentity,
  keptCount,
  type MemoryBatch,
  type MemoryRecord,
  rowLength,
} from '../../src/memory/layout.ts';
import { PURPOSE, randomInt, randomNormals } from '../../src/random.ts';

export const IDENTITY: BankIdentity = {
  modelKey: 'torture',
  tokenizerHash: 'a'.repeat(64),
  storage: 'float32',
  layout: { memoryLayers: 2, kvHeads: 2, keptTokens: 4, headDim: 8 },
  encoder: { dimensions: 8, description: { kind: 'torture' }, state: Uint8Array.from([1, 2, 3]) },
};
export const SEGMENT_MEMORIES = 5;
const WRITER = 'w';

export type Change =
  | { kind: 'add'; add: string[] }
  | { kind: 'edit'; remove: string[]; add: string[] }
  | { kind: 'delete'; remove: string[] }
  | { kind: 'compact' };

/** Change number `step` of run `run`: a pure function of these and of the ids in the bank. */
export function nextChange(seed: number, run: number, step: number, ids: readonly string[]): Change {
  let draw = 0;
  const random = (choices: number): number => randomInt(seed, PURPOSE.test, run * 10_000 + step, draw++, choices);
  const fresh = (count: number): string[] => Array.from({ length: count }, (_, i) => `m-${run}-${step}-${i}`);
  const some = (count: number): string[] => [...new Set(Array.from({ length: count }, () => ids[random(ids.length)]!))];
  const kind = ids.length < 10 ? 'add' : (['add', 'edit', 'delete', 'compact'] as const)[random(4)]!;
  if (kind === 'add') return { kind, add: fresh(1 + random(12)) };
  if (kind === 'edit') return { kind, remove: some(1 + random(3)), add: fresh(1 + random(3)) };
  if (kind === 'delete') return { kind, remove: some(Math.ceil(ids.length / 4)) };
  return { kind };
}

/** The ids in the bank after a change. */
export function idsAfter(ids: readonly string[], change: Change): string[] {
  const gone = new Set('remove' in change ? change.remove : []);
  return [...ids.filter((id) => !gone.has(id)), ...('add' in change ? change.add : [])];
}

export async function apply(writer: BankWriter, change: Change): Promise<void> {
  if (change.kind === 'compact') {
    await writer.compact();
    await writer.prune([]);
    return;
  }
  const add = 'add' in change ? [batchOf(change.add)] : [];
  await writer.edit('remove' in change ? change.remove : [], add, WRITER);
}

/** The memory of an id: all its numbers follow from the id. */
export function memoryOf(id: string): { record: MemoryRecord; row: Float32Array; vector: Float32Array } {
  const seed = createHash('sha256').update(id).digest().readUInt32LE();
  const { layout, encoder } = IDENTITY;
  const tokens = Int32Array.from({ length: 2 + (seed % 20) }, (_, i) => randomInt(seed, PURPOSE.test, 0, i, 30_000));
  const keptLength = Math.min(layout.keptTokens, tokens.length);
  const kept = Int32Array.from({ length: keptCount(layout) }, (_, i) => i % keptLength);
  const record: MemoryRecord = {
    ...{ id, document: `document ${seed % 5}`, title: '', text: `text of ${id}`, span: [0, tokens.length] },
    ...{ tokens, kept, keptLength },
  };
  return {
    record,
    row: randomNormals(seed, PURPOSE.test, 1, rowLength(layout)),
    vector: randomNormals(seed, PURPOSE.test, 2, encoder.dimensions),
  };
}

function batchOf(ids: readonly string[]): MemoryBatch {
  const memories = ids.map(memoryOf);
  const joined = (parts: Float32Array[]): Float32Array => Float32Array.from(parts.flatMap((part) => [...part]));
  return {
    records: memories.map(({ record }) => record),
    rows: joined(memories.map(({ row }) => row)),
    vectors: joined(memories.map(({ vector }) => vector)),
  };
}
