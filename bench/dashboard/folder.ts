/** A runs folder of made-up runs: one that is very long, and many that are not. */

import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig, resolvedConfigYaml } from '../../src/config/load.ts';

export interface FolderOptions {
  folder: string;
  /** Rows of all runs, and how many of them the long one has. */
  rows: number;
  longRows: number;
  runs: number;
  say(line: string): void;
}

const CHUNK = 2000;
const START = 1_700_000_000;

export async function makeRuns({ folder, rows, longRows, runs, say }: FolderOptions): Promise<void> {
  const rest = Math.floor((rows - longRows) / (runs - 1));
  for (let i = 0; i < runs; i++) {
    const name = i === 0 ? 'long' : `run-${String(i).padStart(2, '0')}`;
    await makeRun(folder, name, i === 0 ? longRows : rest);
    if (i === 0) say(`${name}: ${longRows} rows`);
  }
  say(`${runs - 1} more of ${rest} rows each`);
}

async function makeRun(folder: string, name: string, rows: number): Promise<void> {
  const warmup = Math.floor(rows * 0.6);
  const root = join(folder, name);
  mkdirSync(join(root, 'metrics'), { recursive: true });
  const set = [`name=${name}`, `runsFolder=${folder}`, `warmup.steps=${warmup}`, `continual.steps=${rows - warmup}`];
  const { config } = await loadConfig('configs/quickstart.yaml', { set });
  writeFileSync(join(root, 'config.yaml'), resolvedConfigYaml(config));
  writeRows(join(root, 'metrics', 'warmup.jsonl'), warmup, START);
  writeRows(join(root, 'metrics', 'continual.jsonl'), rows - warmup, START + warmup * 0.5);
  const status = {
    version: 1,
    state: 'finished',
    command: 'run',
    pid: 1,
    host: 'bench',
    startedAt: START,
    beatAt: START,
    sinks: [],
  };
  writeFileSync(join(root, 'metrics', 'status.json'), `${JSON.stringify(status)}\n`);
}

/** Rows as training writes them, with a validation now and then. */
function writeRows(path: string, rows: number, start: number): void {
  const file = openSync(path, 'w');
  for (let first = 1; first <= rows; first += CHUNK) {
    const lines: string[] = [];
    for (let step = first; step < Math.min(rows + 1, first + CHUNK); step++) lines.push(rowText(step, rows, start));
    writeSync(file, `${lines.join('\n')}\n`);
  }
  closeSync(file);
}

function rowText(step: number, rows: number, start: number): string {
  const noise = ((step * 2654435761) % 2 ** 32) / 2 ** 32;
  const loss = 2 + 5 * Math.exp((-6 * step) / rows) + 0.4 * noise;
  const validation = step % 1000 === 0 ? `,"validation/loss":${loss + 0.1}` : '';
  return (
    `{"step":${step},"time/unix_s":${(start + step * 0.5 + noise * 0.01).toFixed(3)},"train/loss":${loss},"train/learning_rate":${3e-4 * (1 - step / rows)}` +
    `,"train/gradient_norm":${0.5 + noise},"train/tokens":${step * 3072},"train/tokens_per_s":${20_000 + 4000 * noise}` +
    `,"train/gflop_per_s":${40 + 10 * noise},"time/data_ms":${3 + noise},"time/retrieval_ms":0,"time/prepare_ms":${noise / 100},"time/compute_ms":${50 + 20 * noise}${validation}}`
  );
}
