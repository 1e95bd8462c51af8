import { describe, expect, it } from 'vitest';
import { runSchema } from '../../../src/config/schema.ts';
import { storedEncoder } from '../../../src/memory/encoders/encoder.ts';
import { newEncoder, restoreEncoder } from '../../../src/memory/encoders/registry.ts';

const LAYOUT = { memoryLayers: 2, kvHeads: 1, keptTokens: 4, headDim: 2 };
const CHUNKS = [Int32Array.of(1, 2, 3), Int32Array.of(4)];
const CONTEXT = {
  config: runSchema.parse({ name: 'test' }),
  decode: async () => 'text',
  layout: LAYOUT,
  queries: async (chunks: readonly Int32Array[]) =>
    Float32Array.from(chunks.flatMap((chunk) => [chunk.length, 1, chunk[0]!, 2])),
};
async function* references(): AsyncGenerator<Int32Array> {
  yield* CHUNKS;
}

describe('restoreEncoder', () => {
  it.each(['lexical', 'keys', 'keys-multi'] as const)('makes %s again from what a bank stores', async (encoder) => {
    const config = runSchema.parse({ name: 'test', retrieval: { encoder, dimensions: 64 } });
    const made = await newEncoder({ ...CONTEXT, config }, references());
    const restored = restoreEncoder(storedEncoder(made), CONTEXT);
    expect(made.describe()).toMatchObject({ kind: encoder, dimensions: encoder === 'lexical' ? 64 : 4 });
    expect(restored.describe()).toEqual(made.describe());
    expect(restored.rescore === undefined).toBe(encoder !== 'keys-multi');
    const vectors = await made.encodeQueries(CHUNKS);
    expect(vectors).toHaveLength(2 * made.dimensions);
    expect(await restored.encodeQueries(CHUNKS)).toEqual(vectors);
  });

  it('refuses an unknown kind and damaged frequencies', () => {
    const stored = { dimensions: 4, description: { kind: 'dense' }, state: new Uint8Array(0) };
    expect(() => restoreEncoder(stored, CONTEXT)).toThrow(/"dense".*\n.*memory3 compile/);
    const damaged = { ...stored, description: { kind: 'lexical', documents: 3 } };
    expect(() => restoreEncoder(damaged, CONTEXT)).toThrow(/0 bytes/);
  });
});
