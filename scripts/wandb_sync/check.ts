/** See check_wandb_sync.sh. Argument: the Python that has the client. */

import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { runSchema } from '../../src/config/schema.ts';
import type { TrackedRow } from '../../src/tracking/sink.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';
import { OfflineSink } from '../../src/tracking/wandb/offline.ts';
import { FakeServer } from '../../test/tracking/wandb/fake_server.ts';

const ROWS = 500;
const CUT = 300;
const KEY = '0123456789abcdef'.repeat(3).slice(0, 40);
const LONG = 'long text, '.repeat(10_000);

const python = process.argv[2] ?? 'python3';
const root = await mkdtemp(join(tmpdir(), 'memory3-wandb-'));
const server = await FakeServer.start(KEY);
try {
  const path = await writeRun();
  await scan(path);
  await sync(path);
  checkServer();
} finally {
  await server.close();
  await rm(root, { recursive: true, force: true });
}

/** A run with everything that one can have, stopped, cut back to a step and gone on with. */
async function writeRun(): Promise<string> {
  const config = runSchema.parse({
    name: 'checked',
    data: { sources: [{ path: 'texts' }] },
    tracking: { sinks: ['wandb'], wandb: { project: 'check', tags: ['tag'], notes: 'A note.', group: 'g' } },
  });
  const parts = [
    { from: -1, to: CUT + 50 },
    { from: CUT, to: ROWS },
  ];
  let place = '';
  for (const { from, to } of parts) {
    const sink = new OfflineSink({ root, config });
    assert.equal(await sink.open(from), from);
    place = sink.place;
    for (let step = from + 1; step <= to; step += 50) {
      const size = Math.min(50, to - step + 1);
      await sink.write(Array.from({ length: size }, (_, i) => row(step + i)));
      await sink.hardware([{ time: 1_700_000_000 + step, 'hardware/cpus': 2, 'hardware/process_cpu_percent': 150 }]);
      await sink.lines([`step ${step}`]);
    }
    await sink.summary({ 'evaluation/accuracy': 0.75 });
    await sink.finish('finished');
    await sink.close();
  }
  const [file] = (await readdir(place)).filter((name) => name.endsWith('.wandb'));
  return join(place, file!);
}

function row(step: number): TrackedRow {
  const values: MetricsRow = { 'train/stage': 'warmup', 'train/loss': 1 / (1 + step), 'train/broken': null };
  if (step % 100 === 0) {
    values['histograms/weights'] = { type: 'histogram', edges: [0, 1, 2], counts: [3, 4] };
    values['samples/text'] = { type: 'text', text: LONG };
    values['memory/attention'] = {
      type: 'image',
      width: 2,
      height: 2,
      values: [0, 0.5, step, 1],
      range: [0, 1],
      labels: ['head', 'layer'],
    };
    const memories = [{ id: 'm', score: 0.5 }, { id: 'n' }];
    values['memory/retrievals'] = { type: 'retrievals', chunks: [{ text: 'a chunk', memories }] };
  }
  return { step, stage: 'warmup', time: 1_700_000_000 + step, values };
}

async function scan(path: string): Promise<void> {
  const script = join(import.meta.dirname, 'scan.py');
  const { stdout } = await promisify(execFile)(python, [script, path], { maxBuffer: 2 ** 28 });
  const lines = stdout.trim().split('\n');
  if (lines[0] === 'no reader') {
    console.log('scan: this client has no reader in Python; `wandb sync` reads the file');
    return;
  }
  const records = lines.map((line) => JSON.parse(line) as { num: string; history?: { step: { num?: string } } });
  assert.deepEqual(
    records.map(({ num }) => Number(num)),
    records.map((_, i) => i + 1),
  );
  const steps = records.flatMap(({ history }) => (history ? [Number(history.step.num ?? 0)] : []));
  assert.deepEqual(steps, expectedSteps());
  console.log(`scan: ${records.length} records, steps 0 to ${steps.at(-1)}, each once`);
}

async function sync(path: string): Promise<void> {
  const env = { ...process.env, WANDB_BASE_URL: server.url, WANDB_API_KEY: KEY, HOME: root };
  const started = performance.now();
  const { stdout, stderr } = await promisify(execFile)(python, ['-m', 'wandb', 'sync', '--yes', dirname(path)], {
    env,
    cwd: root,
    timeout: 120_000,
  });
  console.log(`${stdout}${stderr}`.trim());
  console.log(`sync: ${basename(path)} in ${Math.round(performance.now() - started)} ms`);
}

function checkServer(): void {
  const { run } = server;
  if (process.env.SHOW)
    console.log(
      server.seen.map((s) => s.path + ' ' + JSON.stringify(s.body).slice(0, 150)),
      [...run.uploads.keys()],
    );
  assert.deepEqual(server.refused, []);
  assert.deepEqual(server.steps(), expectedSteps());
  assert.equal(run.displayName, 'checked');
  assert.deepEqual(run.tags, ['tag']);
  assert.match(JSON.stringify(run.config.tracking), /^\{"value":\{.*"group":"g"/);
  assert.match(JSON.stringify(run.config._wandb), /^\{"value":\{.*"t":\{/);
  const history = server.history();
  assert.deepEqual(history[100]!['histograms/weights'], { _type: 'histogram', values: [3, 4], bins: [0, 1, 2] });
  assert.equal(history[200]!['samples/text'], LONG);
  assert.equal(history[7]!['train/loss'], 1 / 8);
  for (const at of [0, 100, 200, 300, 400, 500]) {
    for (const name of ['memory/attention', 'memory/retrievals']) {
      const medium = history[at]![name] as { path: string; size: number };
      assert.equal(run.uploads.get(medium.path)?.length, medium.size, `${name} of step ${at}`);
    }
  }
  const summary = JSON.parse((run.lines['wandb-summary.json']?.[0] ?? '{}').replace(/:NaN/g, ':null')) as object;
  assert.deepEqual(summary, { ...summary, _step: ROWS, 'train/loss': 1 / (ROWS + 1), 'evaluation/accuracy': 0.75 });
  const events = (run.lines['wandb-events.jsonl'] ?? []).map((line) => JSON.parse(line) as Record<string, number>);
  assert.ok(events.length > 0 && events.every((event) => event['system.cpu'] === 75));
  const output = run.lines['output.log'] ?? [];
  assert.ok(output.some((line) => line.endsWith('step 451')));
  assert.equal(run.complete, true);
  assert.equal(run.exitCode, 0);
  console.log(
    `server: ${history.length} rows, ${events.length} events, ${output.length} log lines, ${run.uploads.size} files, exit code 0`,
  );
}

function expectedSteps(): number[] {
  return Array.from({ length: ROWS + 1 }, (_, step) => step);
}
