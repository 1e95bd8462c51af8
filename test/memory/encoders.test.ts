import { describe, expect, it } from 'vitest';
import { KeysEncoder, LexicalEncoder, restoreEncoder, storedEncoder } from '../../src/memory/encoders.ts';
import { rowLength } from '../../src/memory/layout.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

const LAYOUT = { memoryLayers: 2, kvHeads: 3, keptTokens: 4, headDim: 5 };
const ids = (...values: number[]): Int32Array => Int32Array.from(values);
const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const noTexts = (): Promise<never> => Promise.reject(new Error('no text is to be written'));

describe('LexicalEncoder', () => {
  const references = [ids(1, 2, 3, 4), ids(1, 2, 5, 6), ids(1, 2, 7, 8), ids(1, 2, 9, 10)];

  it('gives vectors of length one that are nearest to the text they came from', async () => {
    const encoder = await LexicalEncoder.fit(references, 256);
    const vectors = encoder.encodeReferences({ tokens: references });
    const queries = await encoder.encodeQueries([ids(20, 7, 8, 21), ids(1, 2, 5, 6)]);
    const score = (query: number, reference: number): number =>
      dot(queries.subarray(query * 256, (query + 1) * 256), vectors.subarray(reference * 256, (reference + 1) * 256));
    expect(dot(vectors.subarray(0, 256), vectors.subarray(0, 256))).toBeCloseTo(1, 5);
    expect(score(1, 1)).toBeCloseTo(1, 5);
    for (const other of [0, 1, 3]) expect(score(0, 2)).toBeGreaterThan(score(0, other) + 0.2);
  });

  it('gives rare tokens more weight than common ones', async () => {
    const encoder = await LexicalEncoder.fit(references, 4096);
    const [text, common, rare] = [ids(1, 30, 9), ids(1), ids(9)].map((tokens) =>
      encoder.encodeReferences({ tokens: [tokens] }),
    );
    expect(dot(text!, rare!)).toBeGreaterThan(1.2 * dot(text!, common!));
  });

  it('knows the order of tokens through bigrams', async () => {
    const encoder = await LexicalEncoder.fit(references, 4096);
    const [forward, backward] = [ids(3, 4), ids(4, 3)].map((tokens) => encoder.encodeReferences({ tokens: [tokens] }));
    expect(dot(forward!, backward!)).toBeLessThan(0.9);
  });

  it('is restored from what a bank stores, and agrees with itself', async () => {
    const encoder = await LexicalEncoder.fit(references, 64);
    const restored = restoreEncoder(storedEncoder(encoder), LAYOUT, noTexts);
    expect(await restored.encodeQueries(references)).toEqual(await encoder.encodeQueries(references));
    expect(restored.describe()).toEqual({ kind: 'lexical', dimensions: 64, documents: 4 });
  });

  it('refuses an unknown kind and damaged frequencies', () => {
    const stored = { dimensions: 4, description: { kind: 'dense' }, state: new Uint8Array(0) };
    expect(() => restoreEncoder(stored, LAYOUT, noTexts)).toThrow(/"dense".*\n.*memory3 compile/);
    const damaged = { ...stored, description: { kind: 'lexical', documents: 3 } };
    expect(() => restoreEncoder(damaged, LAYOUT, noTexts)).toThrow(/0 bytes/);
  });
});

describe('KeysEncoder', () => {
  it('is the mean cosine over layers and heads of the mean kept keys', async () => {
    const width = rowLength(LAYOUT);
    const rows = randomNormals(4, PURPOSE.test, 0, 2 * width);
    const keptLengths = [4, 2];
    const encoder = new KeysEncoder(LAYOUT, async () => ({ rows: rows.subarray(width), keptLengths: [2] }));
    const references = encoder.encodeReferences({ rows, keptLengths });
    const query = await encoder.encodeQueries([ids(1)]);

    const mean = (memory: number, layer: number, head: number): Float32Array => {
      const out = new Float32Array(LAYOUT.headDim);
      for (let s = 0; s < keptLengths[memory]!; s++) {
        for (let i = 0; i < LAYOUT.headDim; i++) {
          out[i]! += rows[memory * width + ((layer * 2 * 3 + head) * 4 + s) * 5 + i]! / keptLengths[memory]!;
        }
      }
      return out;
    };
    let expected = 0;
    for (let layer = 0; layer < 2; layer++) {
      for (let head = 0; head < 3; head++) {
        const [a, b] = [mean(0, layer, head), mean(1, layer, head)];
        expected += dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) / 6;
      }
    }
    expect(encoder.dimensions).toBe(30);
    expect(dot(query, references.subarray(0, 30))).toBeCloseTo(expected, 5);
    expect(dot(query, references.subarray(30))).toBeCloseTo(1, 5);
  });
});
