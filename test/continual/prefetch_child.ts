/** Reads one micro-batch, reads on ahead, and comes to its end without closing anything. */

import { Prefetcher, type PrefetchSetup } from '../../src/continual/prefetch.ts';

const { setup, version } = JSON.parse(process.argv[2] ?? '') as {
  setup: Omit<PrefetchSetup, 'prefix'> & { prefix: number[] };
  version: number;
};
const prefetcher = new Prefetcher({ ...setup, prefix: Int32Array.from(setup.prefix) }, 2);
await prefetcher.open(version);
const [first, ...next] = [1, 2, 3].map((step) => ({ kind: 'training' as const, step, micro: 0 }));
await prefetcher.read(first!, next);
console.log('read');
