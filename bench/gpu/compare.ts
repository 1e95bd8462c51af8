/** Comparing what two engines computed, and the lines that the programs print. */

import { readFileSync, writeSync } from 'node:fs';

/** The largest difference relative to the largest magnitude (at least 0.01); infinite when a value is not a number. */
export function normalisedError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let largest = 1e-2;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!)); // NaN if one is
    largest = Math.max(largest, Math.abs(expected[i]!));
  }
  return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference / largest;
}

/** Whether two arrays hold the same bits. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  const [x, y] = [a, b].map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength));
  return x!.equals(y!);
}

/** One checked thing. */
export interface Finding {
  part: string;
  name: string;
  ok: boolean;
  /** It could not be checked here. */
  skipped?: boolean;
  /** What was measured, and what it may be at most. */
  value?: number;
  limit?: number;
  note?: string;
}

export interface Figure {
  side: 'memory3' | 'torch';
  device?: string;
  case: string;
  variant: string;
  /** Seconds. */
  median?: number;
  quartiles?: [number, number];
  runs?: number;
  error?: string;
  [more: string]: unknown;
}

/** Prints a line of JSON for another program. */
export function printLine(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** The lines of JSON in a file; others, such as warnings of libraries and what was cut off, are passed over. */
export function linesOf<T>(path: string): T[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => {
      try {
        return line.startsWith('{') ? [JSON.parse(line) as T] : [];
      } catch {
        return [];
      }
    });
}

export function printTable(rows: readonly string[][]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  for (const row of rows) {
    console.log(
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    );
  }
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!];
  return low + (high - low) * (at % 1);
}
