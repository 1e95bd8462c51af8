/** Memories of made-up numbers, the same for the same seed. */

import {
  type BankIdentity,
  keptCount,
  type MemoryBatch,
  type MemoryLayout,
  rowLength,
} from '../../src/memory/layout.ts';
import { PURPOSE, philox, randomNormals } from '../../src/random.ts';

const VOCABULARY = 8192;
const SEED = 1;

/** Token ids of made-up reference number `number`: frequent ones more often, as in text. */
export function randomTokens(number: number): Int32Array {
  const [length = 0] = philox([number, 0, 0, 0], [SEED, PURPOSE.test]);
  return Int32Array.from({ length: 16 + (length % 48) }, (_, i) => {
    const [bits = 0] = philox([number, 1 + i, 0, 0], [SEED, PURPOSE.test]);
    return Math.floor((bits / 2 ** 32) ** 3 * VOCABULARY);
  });
}

/** Batches of `batchSize` memories [0, count), ids beginning with `prefix`. */
export async function* randomMemories(
  identity: Pick<BankIdentity, 'layout'>,
  count: number,
  encode: (tokens: readonly Int32Array[]) => Promise<Float32Array>,
  prefix: string,
  batchSize = 64,
): AsyncGenerator<MemoryBatch> {
  const { layout } = identity;
  for (let first = 0; first < count; first += batchSize) {
    const numbers = Array.from({ length: Math.min(batchSize, count - first) }, (_, i) => first + i);
    const tokens = numbers.map(randomTokens);
    yield {
      records: numbers.map((number, i) =>
        record(`${prefix}${number.toString(16).padStart(12, '0')}`, tokens[i]!, layout),
      ),
      rows: randomNormals(SEED, PURPOSE.test, first, numbers.length * rowLength(layout)),
      vectors: await encode(tokens),
    };
  }
}

function record(id: string, tokens: Int32Array, layout: MemoryLayout): MemoryBatch['records'][number] {
  const text = Array.from(tokens, (token) => token.toString(36)).join(' ');
  const keptLength = Math.min(layout.keptTokens, tokens.length);
  const kept = Int32Array.from({ length: keptCount(layout) }, (_, i) => i % keptLength);
  return { id, document: `document-${id}`, title: id, text, span: [0, text.length], tokens, kept, keptLength };
}
