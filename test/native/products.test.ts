/** Matrix products in all forms and sizes, with every instruction set that is here, against products in float64. */

import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';
import { addon, describeNative } from './support.ts';

/** Around strips of 12 rows, panels of 16 columns, blocks of 256 columns and 512 inner, and parts of several threads. */
const SIZES = [
  { rows: 1, columns: 1, inner: 1 },
  { rows: 1, columns: 19, inner: 70 },
  { rows: 8, columns: 33, inner: 37 },
  { rows: 9, columns: 16, inner: 16 },
  { rows: 12, columns: 32, inner: 511 },
  { rows: 13, columns: 31, inner: 769 },
  { rows: 49, columns: 17, inner: 1024 },
  { rows: 100, columns: 257, inner: 64 },
  { rows: 24, columns: 530, inner: 1300 },
  { rows: 700, columns: 48, inner: 5 },
  { rows: 200, columns: 1024, inner: 128 },
];

const values = (count: number, seed: number): Float32Array =>
  Float32Array.from(randomNormals(seed, PURPOSE.test, 0, count));

/** An array between guards; `check` fails when something was written outside of it. */
function guarded(count: number): { array: Float32Array; check(): void } {
  const guard = 64;
  const whole = new Float32Array(count + 2 * guard).fill(7);
  const outside = (): Float32Array[] => [whole.subarray(0, guard), whole.subarray(guard + count)];
  return {
    array: whole.subarray(guard, guard + count),
    check: () => expect(outside().every((part) => part.every((value) => value === 7))).toBe(true),
  };
}

type Product = (typeof SIZES)[number] & { transposeA: boolean; transposeB: boolean };

/** Some elements of a · b; all would take longer than the products that are tested. */
function expectProduct(product: Product, a: Float32Array, b: Float32Array, out: Float32Array): void {
  const { rows, columns, inner, transposeA, transposeB } = product;
  const tolerance = 1e-6 * Math.sqrt(inner) + 1e-6;
  const step = Math.max(1, Math.floor((rows * columns) / 997));
  for (let at = rows * columns - 1; at >= 0; at -= step) {
    const [row, column] = [Math.floor(at / columns), at % columns];
    let sum = 0;
    for (let k = 0; k < inner; k++) {
      sum +=
        a[transposeA ? k * rows + row : row * inner + k]! * b[transposeB ? column * inner + k : k * columns + column]!;
    }
    const difference = Math.abs(out[at]! - sum) / Math.sqrt(inner);
    if (!(difference < tolerance)) expect.fail(`element (${row}, ${column}) is ${out[at]}, not ${sum}`);
  }
}

describeNative('products', () => {
  beforeAll(async () => {
    await openEngine('native', 2);
  });

  it('come in several instruction sets, the best of which is used', () => {
    expect(addon().instructions().length).toBeGreaterThan(0);
    expect(addon().describe()).toContain(addon().instructions()[0]);
    expect(() => addon().useInstructions('MMX')).toThrow('no instructions named MMX');
  });

  it.each(SIZES)('of $rows × $inner and $inner × $columns', (size) => {
    const a = values(size.rows * size.inner, 1);
    const b = values(size.inner * size.columns, 2);
    const { array: out, check } = guarded(size.rows * size.columns);
    for (const instructions of addon().instructions()) {
      addon().useInstructions(instructions);
      for (const transposeA of [false, true]) {
        for (const transposeB of [false, true]) {
          out.fill(Number.NaN);
          const { rows, columns, inner } = size;
          addon().matMul(a, b, rows, columns, inner, transposeA, transposeB, out);
          addon().wait();
          expectProduct({ ...size, transposeA, transposeB }, a, b, out);
          check();
        }
      }
    }
    addon().useInstructions(addon().instructions()[0]!);
  });

  it('are the same bits on any number of threads', async () => {
    const [rows, columns, inner] = [300, 200, 700];
    const a = values(rows * inner, 1);
    const b = values(inner * columns, 2);
    const results: Float32Array[] = [];
    for (const threads of [1, 2, 3, 4]) {
      addon().setThreads(threads);
      const out = new Float32Array(rows * columns);
      addon().matMul(a, b, rows, columns, inner, true, false, out);
      addon().wait();
      results.push(out);
    }
    addon().setThreads(2);
    for (const result of results) expect(result).toEqual(results[0]);
  });
});
