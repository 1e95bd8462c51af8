/** Runs that tests make up, and a dashboard over them. */

import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Dashboard, startDashboard } from '../../src/dashboard/server.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'dashboard-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export const CONFIG = `name: a
warmup:
  steps: 100
continual:
  steps: 50
tracking:
  wandb:
    tags: [small, "true"]
    notes: a note
`;

/** Rows as training writes them. @param first step of the first */
export function rowsOf(count: number, { first = 1, start = 1000, salt = 0 } = {}): MetricsRow[] {
  return Array.from({ length: count }, (_, i) => {
    const step = first + i;
    const row: MetricsRow = {
      step,
      'time/unix_s': start + step * 0.5 + salt / 1000,
      'train/loss': 5 / Math.sqrt(step) + ((step * 7919) % 13) / 100 + salt,
      'train/tokens': step * 64,
      'train/tokens_per_s': 128,
    };
    if (step % 10 === 0) row['validation/loss'] = 6 / Math.sqrt(step);
    return row;
  });
}

export function linesOf(rows: readonly unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

export interface MadeRun {
  root: string;
  metrics: string;
  append(file: string, rows: readonly unknown[]): void;
}

/** A run folder with the rows of both stages. */
export function makeRun(
  runs: string,
  name: string,
  { warmup = [], continual = [], config = CONFIG }: { warmup?: unknown[]; continual?: unknown[]; config?: string } = {},
): MadeRun {
  const root = join(runs, name);
  const metrics = join(root, 'metrics');
  mkdirSync(metrics, { recursive: true });
  writeFileSync(join(root, 'config.yaml'), config);
  if (warmup.length > 0) writeFileSync(join(metrics, 'warmup.jsonl'), linesOf(warmup));
  if (continual.length > 0) writeFileSync(join(metrics, 'continual.jsonl'), linesOf(continual));
  return { root, metrics, append: (file, rows) => appendFileSync(join(metrics, file), linesOf(rows)) };
}

export interface Served extends Dashboard {
  address: string;
  get(path: string, headers?: Record<string, string>): Promise<Response>;
  json<T>(path: string): Promise<T>;
}

/** A dashboard that ends with the test. */
export async function serve(runsFolder: string, options: { host?: string; cache?: string } = {}): Promise<Served> {
  const cache = { root: options.cache ?? temporaryFolder() };
  const dashboard = await startDashboard({ runsFolder, port: 0, host: options.host, cache, live: { every: 20 } });
  onTestFinished(() => dashboard.close());
  const address = dashboard.addresses[0]!;
  const get = (path: string, headers = {}) => fetch(new URL(path, address), { headers, redirect: 'manual' });
  const json = async <T>(path: string): Promise<T> => {
    const response = await get(path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  };
  return { ...dashboard, address, get, json };
}
