import { describe, expect, it } from 'vitest';
import { KeysEncoder, KeysMultiEncoder } from '../../../src/memory/encoders/keys.ts';
import { rowLength } from '../../../src/memory/layout.ts';
import { PURPOSE, randomNormals } from '../../../src/random.ts';

const LAYOUT = { memoryLayers: 2, kvHeads: 3, keptTokens: 4, headDim: 5 };
const HEADS = 6;
const WIDTH = rowLength(LAYOUT);
const ROWS = randomNormals(4, PURPOSE.test, 0, 2 * WIDTH);
const KEPT = [4, 2];
const QUERY = randomNormals(4, PURPOSE.test, 1, HEADS * 5);
const chunk = Int32Array.of(1);

const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const cosine = (a: Float32Array, b: Float32Array): number => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
const queryOf = (head: number): Float32Array => QUERY.subarray(head * 5, (head + 1) * 5);
/** Kept keys of a memory; heads counted through the layers. */
const keysOf = (memory: number, head: number): Float32Array[] =>
  Array.from({ length: KEPT[memory]! }, (_, s) => {
    const [layer, inLayer] = [Math.floor(head / 3), head % 3];
    const at = memory * WIDTH + ((layer * 2 * 3 + inLayer) * 4 + s) * 5;
    return ROWS.subarray(at, at + 5);
  });
const heads = Array.from({ length: HEADS }, (_, head) => head);
const mean = (numbers: number[]): number => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
const meanKey = (keys: Float32Array[]): Float32Array =>
  Float32Array.from({ length: 5 }, (_, i) => mean(keys.map((key) => key[i]!)));

describe('KeysEncoder', () => {
  it('compares the query of each head with the mean kept key of that head', async () => {
    const encoder = new KeysEncoder(LAYOUT, async () => QUERY);
    const references = await encoder.encodeReferences({ rows: ROWS, keptLengths: KEPT });
    const query = await encoder.encodeQueries([chunk]);
    expect(encoder.dimensions).toBe(30);
    expect(references).toHaveLength(60);
    for (const memory of [0, 1]) {
      const vector = references.subarray(memory * 30, (memory + 1) * 30);
      const expected = mean(heads.map((head) => cosine(queryOf(head), meanKey(keysOf(memory, head)))));
      expect(dot(vector, vector)).toBeCloseTo(1, 5);
      expect(dot(query, vector)).toBeCloseTo(expected, 5);
    }
  });
});

describe('KeysMultiEncoder', () => {
  it('scores a memory by the best kept key of each head', async () => {
    const encoder = new KeysMultiEncoder(LAYOUT, async () => QUERY);
    const scores = encoder.rescore(await encoder.encodeQueries([chunk]), { rows: ROWS, keptLengths: KEPT });
    for (const memory of [0, 1]) {
      const best = heads.map((head) => Math.max(...keysOf(memory, head).map((key) => cosine(queryOf(head), key))));
      expect(scores[memory]).toBeCloseTo(mean(best), 5);
    }
  });
});
