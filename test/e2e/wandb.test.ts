/** Runs that are killed, stopped and resumed: Weights & Biases has each step once, offline and online, and no secret is told. */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { FakeServer } from '../tracking/wandb/fake_server.ts';
import { historyOf, readFile } from '../tracking/wandb/reader.ts';
import { checkpoints, filesBelow, memory3, Playground, Running, rows, type Stage, steps, succeed } from './support.ts';

const STEPS = 500;
/** Long enough that no machine is through before a sink, which looks once a second, has one of them. */
const CONTINUAL_STEPS = 3 * STEPS;
const STAGE = { steps: STEPS, validateEvery: 100, checkpointEvery: 100, keepCheckpoints: 1 };
const SECRETS = {
  key: 'planted-key-77c0ffee',
  netrc: 'planted-netrc-5ec2e7',
  password: 'planted-password-b10b',
  other: 'planted-other-0ddba11',
};

let playground: Playground;
let server: FakeServer;
beforeAll(async () => {
  playground = new Playground({
    warmup: STAGE,
    continual: { ...STAGE, steps: CONTINUAL_STEPS },
    tracking: { sinks: ['wandb', 'tensorboard', 'csv'], hardwareEvery: 1, attentionEvery: 60, retrievalsEvery: 60 },
  });
  server = await FakeServer.start(SECRETS.key);
  const netrc = join(playground.folder, 'netrc');
  writeFileSync(netrc, `machine 127.0.0.1 login user password ${SECRETS.netrc}\n`);
  Object.assign(process.env, {
    WANDB_API_KEY: SECRETS.key,
    NETRC: netrc,
    // None of this program's business.
    HF_TOKEN: SECRETS.other,
    AWS_SECRET_ACCESS_KEY: SECRETS.other,
    WANDB_BASE_URL: server.url.replace('//', `//user:${SECRETS.password}@`),
    WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL: '0.5',
  });
});
afterAll(async () => {
  await server.close();
  playground.remove();
});

/** The file for `wandb sync`; empty as long as it is not there, or just being written. */
function offlineSteps(run: string): number[] {
  try {
    return historyOf(readFile(offlineFile(run))).map(({ step }) => step);
  } catch {
    return [];
  }
}

function offlineFile(run: string): string {
  const [name = 'none', ...others] = readdirSync(join(run, 'wandb'));
  expect(others).toEqual([]);
  return join(run, 'wandb', name, `run-${name.split('-').at(-1)}.wandb`);
}

/** Starts the run, waits until the sink has a step of the whole run that no checkpoint counts, and kills it. */
async function killedAt(step: number, run: string, args: string[], taken: () => number[]): Promise<string> {
  const counted = (): number => lastCheckpoint(run, 'warmup') + lastCheckpoint(run, 'continual');
  const process = new Running(['run', ...args]);
  let ended = false;
  void process.outcome.finally(() => {
    ended = true;
  });
  while ((taken().at(-1) ?? 0) < Math.max(step, counted() + 1)) {
    if (ended) throw new Error(`the run ended before step ${step} was shown:\n${process.stderr}`);
    await new Promise((next) => setTimeout(next, 20));
  }
  process.kill('SIGKILL');
  const { signal, stdout, stderr } = await process.outcome;
  expect(signal).toBe('SIGKILL');
  return stdout + stderr;
}

/** Losses of the run by its own files, in the steps of the whole run. */
function losses(run: string): (number | undefined)[] {
  return (['warmup', 'continual'] as const).flatMap((stage) => rows(run, stage).map((row) => row['train/loss']));
}

function lastCheckpoint(run: string, stage: Stage): number {
  return Number(/step-(\d+)$/.exec(checkpoints(run, stage).at(-1) ?? 'step-0')?.[1]);
}

function expectNoSecrets(run: string, output: string): void {
  const encoded = Buffer.from(`api:${SECRETS.key}`).toString('base64');
  const all = new RegExp(`${Object.values(SECRETS).join('|')}|${encoded}`);
  expect(output).not.toMatch(all);
  const files = filesBelow(run);
  expect(files.length).toBeGreaterThan(10);
  for (const path of files) expect(all.test(readFileSync(path, 'latin1')), path).toBe(false);
}

it('offline: killed in both stages and resumed, the file has each step once', async () => {
  const args = playground.args('offline');
  const run = playground.path('offline');
  let output = await killedAt(60, run, args, () => offlineSteps(run));
  output += await killedAt(STEPS + 10, run, args, () => offlineSteps(run));
  const { stdout, stderr } = await succeed('run', ...args);

  const original = offlineFile(run);
  const records = readFile(original);
  const history = historyOf(records);
  expect(history.map(({ step }) => step)).toEqual(steps(STEPS + CONTINUAL_STEPS));
  expect(history.map(({ values }) => Number(values['train/loss']))).toEqual(losses(run));
  expect(records.at(-1)!.type).toBe('exit');
  expect(records.filter(({ type }) => type === 'stats').length).toBeGreaterThan(0);
  expectNoSecrets(run, output + stdout + stderr);

  const exported = await succeed('track', 'export', ...args, '--to', 'wandb');
  const place = exported.stdout.trim().split(': ')[1]!;
  const [file] = readdirSync(place).filter((name) => name.endsWith('.wandb'));
  expect(join(place, file!)).not.toBe(original);
  expect(historyOf(readFile(join(place, file!)))).toEqual(history);
});

it('online: killed in both stages, with a server that fails now and then, and resumed, it has each step once', async () => {
  const args = playground.args('online', 'tracking.wandb.mode=online');
  const run = playground.path('online');
  const taken = (): number[] => (server.runs.size === 0 ? [] : server.steps());
  let count = 0;
  server.fault = ({ path }) => {
    if (!path.endsWith('/file_stream')) return undefined;
    count += 1;
    if (count % 16 === 3) return { kind: 'drop-after' };
    return count % 16 === 10 ? { kind: 'status', status: 500 } : undefined;
  };
  let output = await killedAt(60, run, args, taken);
  const history = [...server.run.lines['wandb-history.jsonl']!];
  output += await killedAt(STEPS + 10, run, args, taken);
  const { stdout, stderr } = await succeed('run', ...args);
  expect(server.steps()).toEqual(steps(STEPS + CONTINUAL_STEPS));
  expect(server.run.lines['wandb-history.jsonl']!.slice(0, history.length)).toEqual(history);
  expect(server.history().map((row) => row['train/loss'])).toEqual(losses(run));
  expect([server.run.complete, server.run.exitCode, server.refused]).toEqual([true, 0, []]);
  expect(server.run.lines['wandb-events.jsonl']!.length).toBeGreaterThan(0);
  expectNoSecrets(run, output + stdout + stderr);
});

it('online: the stop button ends the run after a checkpoint; it goes on later', async () => {
  server.fault = () => undefined;
  server.runs.clear();
  const args = playground.args('stopped', 'tracking.wandb.mode=online', 'continual.steps=50');
  const run = playground.path('stopped');
  server.stopped = true;
  const { code, stderr } = await memory3('run', ...args);
  expect(code, stderr).toBe(143);
  expect(stderr).toContain('Weights & Biases asks to stop: stopping at the next safe point');
  const saved = lastCheckpoint(run, 'warmup');
  expect(saved).toBeGreaterThan(0);
  expect(server.steps()).toEqual(steps(saved));
  expect([server.run.complete, server.run.exitCode]).toEqual([true, 255]);
  server.stopped = false;
  await succeed('run', ...args);
  expect(server.steps()).toEqual(steps(STEPS + 50));
});

it('a service that cannot be used costs the run nothing, and the key is not told', async () => {
  const args = playground.args('refused', 'tracking.wandb.mode=online', 'warmup.steps=5', 'continual.steps=5');
  process.env.WANDB_API_KEY = 'planted-key-that-is-wrong';
  try {
    const { stderr } = await succeed('run', ...args);
    expect(stderr).toMatch(
      /wandb: \d+ rows are still to be sent \(http:\S+: HTTP 401: the server does not know the key/,
    );
    expect(stderr).not.toContain('planted');
    expect(readFileSync(playground.path('refused', 'metrics/status.json'), 'utf8')).toContain('HTTP 401');
    for (const path of filesBelow(playground.path('refused'))) {
      expect(readFileSync(path, 'latin1').includes('planted'), path).toBe(false);
    }
  } finally {
    process.env.WANDB_API_KEY = SECRETS.key;
  }
});
