import { describe, expect, it } from 'vitest';
import { LexicalEncoder } from '../../../src/memory/encoders/lexical.ts';

const ids = (...values: number[]): Int32Array => Int32Array.from(values);
const dot = (a: Float32Array, b: Float32Array): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

describe('LexicalEncoder', () => {
  const references = [ids(1, 2, 3, 4), ids(1, 2, 5, 6), ids(1, 2, 7, 8), ids(1, 2, 9, 10)];

  it('gives vectors of length one that are nearest to the text they came from', async () => {
    const encoder = await LexicalEncoder.fit(references, 256);
    const vectors = await encoder.encodeReferences({ tokens: references });
    const queries = await encoder.encodeQueries([ids(20, 7, 8, 21), ids(1, 2, 5, 6)]);
    const score = (query: number, reference: number): number =>
      dot(queries.subarray(query * 256, (query + 1) * 256), vectors.subarray(reference * 256, (reference + 1) * 256));
    expect(dot(vectors.subarray(0, 256), vectors.subarray(0, 256))).toBeCloseTo(1, 5);
    expect(score(1, 1)).toBeCloseTo(1, 5);
    for (const other of [0, 1, 3]) expect(score(0, 2)).toBeGreaterThan(score(0, other) + 0.2);
  });

  it('gives rare tokens more weight than common ones', async () => {
    const encoder = await LexicalEncoder.fit(references, 4096);
    const [text, common, rare] = await Promise.all(
      [ids(1, 30, 9), ids(1), ids(9)].map((tokens) => encoder.encodeReferences({ tokens: [tokens] })),
    );
    expect(dot(text!, rare!)).toBeGreaterThan(1.2 * dot(text!, common!));
  });

  it('knows the order of tokens through bigrams', async () => {
    const encoder = await LexicalEncoder.fit(references, 4096);
    const [forward, backward] = await Promise.all(
      [ids(3, 4), ids(4, 3)].map((tokens) => encoder.encodeReferences({ tokens: [tokens] })),
    );
    expect(dot(forward!, backward!)).toBeLessThan(0.9);
  });
});
