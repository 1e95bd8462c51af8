/** Changes the bank in the folder of the first argument until it is killed; says so after the first change. */

import { Bank } from '../../src/memory/bank.ts';
import { type MemoryBatch, rowLength } from '../../src/memory/layout.ts';

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error('usage: endless_writer.ts FOLDER');
const writer = await Bank.openForWriting(folder, { segmentMemories: 4 });

function batchOf(prefix: string, count: number): MemoryBatch {
  const { layout, encoder } = writer.identity;
  const kept = new Int32Array(layout.memoryLayers * layout.kvHeads * layout.keptTokens);
  return {
    records: Array.from({ length: count }, (_, i) => ({
      id: `${prefix}-${i}`,
      document: prefix,
      title: '',
      text: prefix,
      span: [0, 1] as const,
      tokens: Int32Array.from([i]),
      kept,
      keptLength: 1,
    })),
    rows: new Float32Array(count * rowLength(layout)).fill(writer.version),
    vectors: new Float32Array(count * encoder.dimensions).fill(1),
  };
}

for (;;) {
  const { version } = writer;
  await writer.replaceAll([batchOf(`a${version}`, 9)], 'w1');
  await writer.append([batchOf(`b${version}`, 5)], 'w1');
  await writer.delete([`a${version}-3`, `b${version}-0`]);
  await writer.prune([version]);
  if (version === 0 || writer.version - version === 3) process.stdout.write('.');
}
