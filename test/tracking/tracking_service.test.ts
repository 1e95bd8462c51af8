import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, closeSync, constants, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type RunConfig, runSchema } from '../../src/config/schema.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import type { SinkName } from '../../src/tracking/sink.ts';
import { type RunStatus, readStatus } from '../../src/tracking/status.ts';
import { TrackingService } from '../../src/tracking/tracking_service.ts';

vi.setConfig({ testTimeout: 60_000 });

let folder: RunFolder;
let said: string[];
beforeEach(async () => {
  folder = new RunFolder(await mkdtemp(join(tmpdir(), 'memory3-service-')));
  mkdirSync(folder.metrics);
  said = [];
});
afterEach(() => rm(folder.root, { recursive: true }));

function start(sinks: SinkName[], hardwareEvery = 0): TrackingService {
  const tracking = { sinks, hardwareEvery };
  const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {}, tracking });
  return startWith(config);
}

function startWith(config: RunConfig, patience?: number): TrackingService {
  const say = (text: string): void => void said.push(text);
  return new TrackingService(folder, config, { command: 'warmup', say, onStop: () => {}, patience });
}

function write(first: number, last: number): void {
  for (let step = first; step <= last; step++) {
    appendFileSync(folder.metricsFile('warmup'), `{"step":${step},"time/unix_s":${step},"train/loss":1}\n`);
  }
}

async function until(isSo: (status: RunStatus) => boolean): Promise<RunStatus> {
  for (;;) {
    const status = await readStatus(folder.status);
    if (status !== undefined && isSo(status)) return status;
    await sleep(50);
  }
}

const table = () =>
  readFileSync(join(folder.root, 'csv', 'metrics.csv'), 'utf8')
    .trimEnd()
    .split('\n').length - 1;

test('beats, watches the machine and feeds the sinks; at its end all rows are there at once', async () => {
  const service = start(['csv'], 0.2);
  write(1, 2);
  service.beginStage('warmup', 0);
  const status = await until(() => true);
  expect(status).toMatchObject({ state: 'running', command: 'warmup', pid: process.pid });
  expect(status.sinks.map(({ name }) => name)).toEqual(['csv']);
  await sleep(600);
  write(3, 50);
  const started = performance.now();
  await service.end('stopped');
  expect(performance.now() - started).toBeLessThan(5000);
  expect(table()).toBe(50);
  expect(await readStatus(folder.status)).toMatchObject({ state: 'stopped', sinks: [{ step: 50, waiting: 0 }] });
  const load = readFileSync(folder.hardware, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(load.length).toBeGreaterThan(0);
  expect(load[0]).toHaveProperty('hardware/cpu_percent');
  expect(said).toEqual([]);
});

test('a sink that fails is told of once, and when it takes rows again', async () => {
  const blocked = join(folder.root, 'csv');
  writeFileSync(blocked, '');
  const service = start(['csv', 'tensorboard']);
  write(1, 3);
  service.beginStage('warmup', 0);
  while (said.length === 0) await sleep(50);
  expect(said[0]).toMatch(/^csv: .*; it is tried again, the run goes on$/);
  await rm(blocked);
  while (said.length === 1) await sleep(50);
  expect(said[1]).toBe('csv: it takes rows again');
  await service.end('finished');
  expect(said).toHaveLength(2);
  expect(table()).toBe(3);
});

test('a sink that does not answer holds up neither the heartbeat nor other sinks', async () => {
  const pipe = join(folder.root, 'csv', 'metrics.csv');
  mkdirSync(join(folder.root, 'csv'));
  // Whoever opens it waits until somebody writes.
  execFileSync('mkfifo', [pipe]);
  const service = start(['csv', 'tensorboard']);
  write(1, 3);
  service.beginStage('warmup', 0);
  const { beatAt } = await until(() => true);
  const later = await until((status) => status.beatAt > beatAt && status.sinks[1]!.step === 3);
  expect(later.sinks[0]).toMatchObject({ step: -1, waiting: 3 });
  closeSync(openSync(pipe, constants.O_WRONLY));
  await rm(pipe, { force: true });
  await service.end('finished');
  expect((await readStatus(folder.status))!.state).toBe('finished');
});

test('at the end a service that does not answer is waited for so long, and what waits is told', async () => {
  const server = createServer(() => {}).listen(0, '127.0.0.1');
  await once(server, 'listening');
  vi.stubEnv('WANDB_BASE_URL', `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  vi.stubEnv('WANDB_API_KEY', 'key');
  try {
    const tracking = { sinks: ['wandb', 'csv'], hardwareEvery: 0, wandb: { mode: 'online' } };
    const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {}, tracking });
    const service = startWith(config, 2);
    write(1, 3);
    service.beginStage('warmup', 0);
    await until(({ sinks }) => sinks[1]!.step === 3);
    const started = performance.now();
    await service.end('finished');
    expect(performance.now() - started).toBeGreaterThan(1900);
    expect(performance.now() - started).toBeLessThan(6000);
    expect(said).toEqual([
      expect.stringMatching(/^wandb: 3 rows are still to be sent \(not taken within 2 s\); they /),
    ]);
    expect((await readStatus(folder.status))!.state).toBe('finished');
  } finally {
    vi.unstubAllEnvs();
    server.closeAllConnections();
    server.close();
  }
});

test('a status that cannot be written ends nothing', async () => {
  mkdirSync(folder.status);
  const service = start(['csv'], 0.2);
  mkdirSync(folder.hardware);
  write(1, 3);
  service.beginStage('warmup', 0);
  await sleep(1500);
  await service.end('finished');
  expect(table()).toBe(3);
  expect(said).toEqual([]);
});

test('a thread that dies is told of and leaves a status that says how the command ended', async () => {
  const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {} });
  const service = start([]);
  await until(() => true);
  await service.end('finished');
  writeFileSync(folder.status, readFileSync(folder.status, 'utf8').replace('finished', 'running'));
  // A configuration that no schema has seen.
  const broken = startWith({ ...config, tracking: undefined as never });
  while (said.length === 0) await sleep(50);
  expect(said[0]).toMatch(/^tracking has ended, the run goes on: /);
  broken.beginStage('warmup', 0);
  // Its command beats itself, so that the run does not count as crashed.
  const { beatAt } = (await readStatus(folder.status))!;
  expect((await until((status) => status.beatAt > beatAt)).state).toBe('running');
  await broken.end('failed');
  expect((await readStatus(folder.status))!.state).toBe('failed');
});
