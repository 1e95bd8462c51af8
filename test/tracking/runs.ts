/** Rows of runs for tests of what reads them. */

import type { TrackedRow } from '../../src/tracking/sink.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';

export function trackedRow(step: number, values: MetricsRow = { 'train/loss': 1 / step }): TrackedRow {
  return { step, stage: 'warmup', time: 1_700_000_000 + step, values };
}

/** Rows of steps from `first` to `last`. */
export function trackedRows(first: number, last: number): TrackedRow[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => trackedRow(first + i));
}
