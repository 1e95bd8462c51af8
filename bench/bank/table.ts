/** Prints the figures of a memory bank for people. */

import { median, quantile } from '../cpu/cpu.ts';
import type { Fetching, Report } from './bank.ts';

const MIB = 2 ** 20;
const ms = (seconds: number): string => `${(1000 * seconds).toFixed(2)} ms`;
const spread = (seconds: readonly number[]): string =>
  `${ms(median(seconds))} [${ms(quantile(seconds, 0.25))}, ${ms(quantile(seconds, 0.75))}]`;

export function printBankReport(report: Report): void {
  const { adding, bytes, editing, search } = report;
  const { memoryLayers, kvHeads, keptTokens, headDim } = report.layout;
  const metadata = bytes.records - bytes.text + bytes.descriptions;
  console.log(`${report.date.slice(0, 10)}, ${report.machine}, Node ${report.node}, engine ${report.engine}\n`);
  const rows: [string, string][] = [
    ['memories', `${report.memories} in ${report.segments} segments (${report.bank})`],
    [
      'bytes of a memory',
      `${bytes.rows} (2 · ${memoryLayers} · ${kvHeads} · ${keptTokens} · ${headDim} numbers of ${report.storage}: ${bytes.formula})`,
    ],
    ['its retrieval vector', `${bytes.vectors} bytes`],
    ['its text, title, ids and token ids', `${bytes.text.toFixed(0)} bytes`],
    [
      'its other metadata',
      `${metadata.toFixed(0)} bytes, ${((100 * metadata) / bytes.rows).toFixed(1)} % of the memory`,
    ],
    [
      'adding',
      `${(adding.memories / adding.seconds).toFixed(0)} memories/s, resident memory ${(adding.before / MIB).toFixed(0)} to ${(adding.peak / MIB).toFixed(0)} MiB`,
    ],
    ['opening', `${spread(report.opening)}, ${(report.openBytes / MIB).toFixed(0)} MiB`],
    ['loading the index', `${ms(search.loading)}, ${(search.indexBytes / MIB).toFixed(0)} MiB`],
    ['search of one query', spread(search.alone)],
    [`search in batches of ${search.batch}`, `${spread(search.batched)} a query`],
    [`recall@${search.k}`, search.recall.toFixed(4)],
    ...report.fetching.map(fetchingRow),
    ['opening to edit', ms(editing.openSeconds)],
    ['edit of one memory', ms(editing.editSeconds)],
    [`deletion of ${editing.deleted} memories`, ms(editing.deleteSeconds)],
    ['compaction', ms(editing.compactSeconds)],
    ['check of every byte', ms(editing.verifySeconds)],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`);
}

function fetchingRow({ cache, retrievals, perRetrieval, bytes, seconds, processor }: Fetching): [string, string] {
  const rate = (of: number): string => `${(bytes / of / 1e9).toFixed(2)} GB/s`;
  const what = `${retrievals} × ${perRetrieval} memories in one call, cache ${cache}`;
  return [
    what,
    `${rate(seconds)}, ${rate(processor)} a core, ${((seconds / retrievals / perRetrieval) * 1e6).toFixed(0)} µs a memory`,
  ];
}
