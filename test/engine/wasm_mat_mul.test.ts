import { beforeAll, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';

beforeAll(async () => {
  await openEngine('wasm', 0);
});

/** out[b, m, n] = Σ a[b, m, i] · b[b, i, n] in float64, operands given as stored. */
function reference(a: tf.Tensor, b: tf.Tensor, transposeA: boolean, transposeB: boolean): number[] {
  const [x, y] = [a.dataSync(), b.dataSync()];
  const [rowsA, columnsA] = a.shape.slice(-2) as [number, number];
  const [rowsB, columnsB] = b.shape.slice(-2) as [number, number];
  const [rows, inner] = transposeA ? [columnsA, rowsA] : [rowsA, columnsA];
  const columns = transposeB ? rowsB : columnsB;
  const out: number[] = [];
  for (let batch = 0; batch < a.size / (rowsA * columnsA); batch++) {
    for (let m = 0; m < rows; m++) {
      for (let n = 0; n < columns; n++) {
        let sum = 0;
        for (let i = 0; i < inner; i++) {
          const left = transposeA ? i * columnsA + m : m * columnsA + i;
          const right = transposeB ? n * columnsB + i : i * columnsB + n;
          sum += x[batch * rowsA * columnsA + left]! * y[batch * rowsB * columnsB + right]!;
        }
        out.push(sum);
      }
    }
  }
  return out;
}

const SHAPES = [
  { batch: [], rows: 1, inner: 1, columns: 1 },
  { batch: [], rows: 7, inner: 33, columns: 5 },
  { batch: [], rows: 40, inner: 3, columns: 2 },
  { batch: [3], rows: 1, inner: 16, columns: 9 },
  { batch: [2, 3], rows: 5, inner: 4, columns: 17 },
];
const FLAGS = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
] as const;

it.each(SHAPES.flatMap((shape) => FLAGS.map(([transposeA, transposeB]) => ({ ...shape, transposeA, transposeB }))))(
  'multiplies $batch × [$rows, $inner] · [$inner, $columns], transposed $transposeA $transposeB',
  ({ batch, rows, inner, columns, transposeA, transposeB }) => {
    const a = tf.randomNormal([...batch, ...(transposeA ? [inner, rows] : [rows, inner])]);
    const b = tf.randomNormal([...batch, ...(transposeB ? [columns, inner] : [inner, columns])]);
    const before = tf.memory();
    const out = tf.matMul(a, b, transposeA, transposeB);
    expect(tf.memory().numTensors).toBe(before.numTensors + 1);
    expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers + 1);
    expect(out.shape).toEqual([...batch, rows, columns]);
    const expected = reference(a, b, transposeA, transposeB);
    for (const [i, value] of out.dataSync().entries()) expect(value).toBeCloseTo(expected[i]!, 4);
    tf.dispose([a, b, out]);
  },
);

it('leaves a product with a repeated operand to tfjs', () => {
  const out = tf.tidy(() => tf.matMul(tf.ones([2, 3, 4]), tf.ones([1, 4, 5])));
  expect([...out.dataSync()]).toEqual(new Array(30).fill(4));
});

it('opens twice without harm', async () => {
  await openEngine('wasm', 0);
  expect(tf.tidy(() => tf.matMul(tf.ones([2, 3]), tf.ones([2, 3]), false, true)).dataSync()[3]).toBe(3);
});
