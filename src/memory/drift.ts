/**
 * How far a bank has aged: precompiled memories stay what they were while the weights that wrote them move (paper,
 * Remark 9).
 *
 * Legend: n memories, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import type { Model } from '../model/model.ts';
import { PURPOSE, permute } from '../random.ts';
import type { Bank } from './bank.ts';
import { keptCount, type MemoryLayout, type MemoryRecord, rowLength } from './layout.ts';
import { rowValues } from './row_format.ts';
import { type WriteOptions, writeMemories } from './write.ts';

/**
 * Stored memories against what the current weights write of the same references, as it would be stored: what is lost by
 * the format of the bank is no drift. All 1 when nothing has changed.
 */
export interface Drift {
  /** Mean cosine of the keys of tokens that are kept again, over memories, layers, heads and tokens; 0 without any. */
  keyCosine: number;
  /** The same of the values. */
  valueCosine: number;
  /** Share of the kept tokens that are kept again. */
  keptShare: number;
}

/**
 * Writes the memories `ids` again, without storing them, and compares.
 * @param ids at least one; in the order of the bank each segment is read once
 * @throws UserError memory_unknown, file_corrupt, file_truncated
 */
export async function measureDrift(
  model: Model,
  bank: Bank,
  ids: readonly string[],
  options: WriteOptions,
): Promise<Drift> {
  const { layout } = bank.identity;
  const stored = new Map<string, MemoryRecord>();
  for (const id of ids) stored.set(id, await bank.get(id));
  const sums = { key: 0, value: 0, again: 0, kept: 0 };
  for await (const { records, rows: written } of writeMemories(model, stored.values(), options)) {
    const storedRows = await bank.readRows(records.map(({ id }) => id));
    const rows = await rowValues(bank.format, await bank.format.encode(written));
    const width = rowLength(layout);
    records.forEach((record, i) => {
      const [from, until] = [i * width, (i + 1) * width];
      const before = { record: stored.get(record.id)!, row: storedRows.subarray(from, until) };
      addMemory(sums, layout, before, { record, row: rows.subarray(from, until) });
    });
  }
  const pairs = Math.max(1, sums.again);
  return { keyCosine: sums.key / pairs, valueCosine: sums.value / pairs, keptShare: sums.again / sums.kept };
}

/** Ids of `count` memories, drawn anew for each version of the bank, in its order. */
export function driftSample(bank: Bank, seed: number, count: number): string[] {
  const ids = bank.ids();
  const drawn = Array.from({ length: Math.min(count, ids.length) }, (_, i) =>
    permute(seed, PURPOSE.bankDrift, bank.version, i, ids.length),
  );
  return drawn.sort((a, b) => a - b).map((position) => ids[position]!);
}

/** A memory with its numbers, [Lmem, 2, K, S, D]. */
interface Memory {
  record: MemoryRecord;
  row: Float32Array;
}

/** Sums of cosines over the tokens that are kept again, and how many are of how many. */
interface Sums {
  key: number;
  value: number;
  again: number;
  kept: number;
}

function addMemory(sums: Sums, layout: MemoryLayout, before: Memory, now: Memory): void {
  const { kvHeads, keptTokens: S, headDim: D } = layout;
  const { keptLength } = before.record;
  for (let head = 0; head < keptCount(layout) / S; head++) {
    const again = now.record.kept.subarray(head * S, head * S + keptLength);
    // Layer by layer, the keys of all heads lie before the values of all heads.
    const keys = (head + Math.floor(head / kvHeads) * kvHeads) * S * D;
    const values = keys + kvHeads * S * D;
    for (let slot = 0; slot < keptLength; slot++) {
      sums.kept++;
      const place = again.indexOf(before.record.kept[head * S + slot]!);
      if (place < 0) continue;
      sums.again++;
      sums.key += cosine(vector(before, keys, slot, D), vector(now, keys, place, D));
      sums.value += cosine(vector(before, values, slot, D), vector(now, values, place, D));
    }
  }
}

function vector({ row }: Memory, first: number, slot: number, length: number): Float32Array {
  return row.subarray(first + slot * length, first + (slot + 1) * length);
}

/** 0 when either has no length. */
function cosine(a: Float32Array, b: Float32Array): number {
  let [product, squareA, squareB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    product += a[i]! * b[i]!;
    squareA += a[i]! ** 2;
    squareB += b[i]! ** 2;
  }
  const lengths = Math.sqrt(squareA * squareB);
  return lengths === 0 ? 0 : product / lengths;
}
