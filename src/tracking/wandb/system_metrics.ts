/** Load of the machine under the names that Weights & Biases draws; in its history they stand behind `system.`. */

import type { MetricsRow } from '../values.ts';

const MEBIBYTE = 2 ** 20;

/** Our name → theirs and the factor. Names that are not here go as they are. */
const NAMES: Record<string, [name: string, factor: number]> = {
  process_rss_bytes: ['proc.memory.rssMB', 1 / MEBIBYTE],
  cpu_percent: ['machine.cpu', 1],
  memory_percent: ['memory_percent', 1],
  disk_free_bytes: ['disk.freeGB', 2 ** -30],
};
const CARD_NAMES: Record<string, string> = {
  percent: 'gpu',
  memory_bytes: 'memoryAllocatedBytes',
  power_w: 'powerWatts',
  temperature_c: 'temp',
};

/** The values of a row of load, without their `hardware/`. */
export function systemMetrics(row: MetricsRow): Record<string, number> {
  const values: Record<string, number> = {};
  for (const [key, value] of Object.entries(row)) {
    if (!key.startsWith('hardware/') || typeof value !== 'number') continue;
    const name = key.slice('hardware/'.length);
    const [, card, what] = /^gpu(\d+)_(.+)$/.exec(name) ?? [];
    if (name === 'process_cpu_percent') {
      // Theirs is the share of all processors, ours counts 100 for each.
      values.cpu = value / Math.max(1, Number(row['hardware/cpus'] ?? 1));
    } else if (card !== undefined && what !== undefined) {
      values[`gpu.${card}.${CARD_NAMES[what] ?? what}`] = value;
    } else if (name !== 'cpus') {
      const [theirs, factor] = NAMES[name] ?? [name, 1];
      values[theirs] = value * factor;
    }
  }
  return values;
}
