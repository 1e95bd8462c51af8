/** The client against a server that refuses gaps and lines over lines, with everything that goes wrong on a network. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type OnlineOptions, OnlineSink } from '../../../src/tracking/wandb/online.ts';
import { trackedRow, trackedRows } from '../runs.ts';
import { FakeServer, type Fault, SIGNATURE } from './fake_server.ts';
import { configOf, ID, makeRun, STARTED } from './support.ts';

const KEY = 'planted-key-4c1d9e';
let root: string;
let server: FakeServer;
let sinks: OnlineSink[];
beforeEach(async () => {
  root = makeRun(mkdtempSync(join(tmpdir(), 'memory3-online-')));
  server = await FakeServer.start(KEY);
  sinks = [];
});
afterEach(async () => {
  for (const sink of sinks) await sink.close();
  await server.close();
  rmSync(root, { recursive: true, force: true });
});

function makeSink(options: OnlineOptions = {}, wandb = {}): OnlineSink {
  const env = { WANDB_API_KEY: KEY, WANDB_BASE_URL: server.url, ...options.env };
  const sink = new OnlineSink(
    { root, config: configOf({ mode: 'online', ...wandb }) },
    { timeoutMs: 2000, ...options, env },
  );
  sinks.push(sink);
  return sink;
}

const steps = (first: number, last: number): number[] => trackedRows(first, last).map(({ step }) => step);
const load = (second: number) => ({ time: STARTED + second, 'hardware/memory_percent': second });

/** Does it again until it succeeds, as the follower does. @returns the errors */
async function insist(work: () => Promise<void>): Promise<string[]> {
  const errors: string[] = [];
  for (;;) {
    try {
      await work();
      return errors;
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error));
      if (errors.length > 20) throw error;
    }
  }
}

/** Lets the next requests of a kind meet these faults, one each. */
function plan(faults: Fault[], matches = (path: string): boolean => path.endsWith('/file_stream')): void {
  server.fault = ({ path }) => (matches(path) ? faults.shift() : undefined);
}

describe('a run', () => {
  it('has its configuration in the form of the service, rows, load, log lines, summary and end', async () => {
    const sink = makeSink({}, { project: 'p', tags: ['a'] });
    expect(await sink.open()).toBe(-1);
    expect(sink.place).toBe(`${server.url}/somebody/p/runs/${ID}`);
    await sink.write([trackedRow(1, { 'train/loss': 0.5, 'train/norm': null }), trackedRow(2)]);
    await sink.hardware([load(3)]);
    await sink.lines(['a line']);
    await sink.summary({ 'evaluation/accuracy': 0.75 });
    await sink.finish('finished');
    const { run } = server;
    expect(run.displayName).toBe('tracked');
    expect(run.tags).toEqual(['a']);
    expect(run.config.model).toEqual({ value: configOf().model });
    expect(run.config._wandb).toEqual({ value: { t: { 13: `${process.platform}-${process.arch}` } } });
    expect(run.lines['wandb-history.jsonl']).toEqual([
      `{"train/loss":0.5,"train/norm":NaN,"_step":1,"_timestamp":${STARTED + 1},"_runtime":1}`,
      `{"train/loss":0.5,"_step":2,"_timestamp":${STARTED + 2},"_runtime":2}`,
    ]);
    expect(run.lines['wandb-events.jsonl']).toEqual([
      `{"_wandb":true,"_timestamp":${STARTED + 3},"_runtime":3,"system.memory_percent":3}`,
    ]);
    expect(run.lines['output.log']).toEqual([expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]{15} a line$/)]);
    expect(JSON.parse(run.lines['wandb-summary.json']![0]!.replace('NaN', 'null'))).toEqual({
      'train/loss': 0.5,
      'train/norm': null,
      _step: 2,
      _timestamp: STARTED + 2,
      _runtime: 2,
      'evaluation/accuracy': 0.75,
      _wandb: { runtime: 2 },
    });
    expect([run.complete, run.exitCode, server.refused]).toEqual([true, 0, []]);
  });

  it('lies where the environment says, then the configuration, then with the owner of the key', async () => {
    const env = { WANDB_ENTITY: 'env-team', WANDB_PROJECT: 'env-project' };
    await makeSink({ env }, { project: 'p', entity: 'team' }).open();
    await makeSink({}, { project: 'p', entity: 'team' }).open();
    await makeSink().open();
    expect([...server.runs.keys()]).toEqual([`env-team/env-project/${ID}`, `team/p/${ID}`, `somebody/memory3/${ID}`]);
  });

  it('has its pictures uploaded before the row that names them', async () => {
    const image = { width: 1, height: 1, values: [0], range: [0, 1], labels: ['x', 'y'] } as const;
    const sink = makeSink();
    await sink.open();
    const row = trackedRow(1, {
      picture: { type: 'image', ...image, values: [0], range: [0, 1], labels: ['x', 'y'] },
    });
    plan([{ kind: 'status', status: 403, body: `<Signature>${SIGNATURE}</Signature>${KEY}` }], (path) =>
      path.startsWith('/upload/'),
    );
    const [error] = await insist(() => sink.write([row]));
    expect(error).toContain('HTTP 403');
    expect(error).not.toMatch(/planted/);
    const { path, size } = server.history()[0]!.picture as { path: string; size: number };
    expect(server.run.uploads.get(path)?.length).toBe(size);
    expect(server.run.uploads.get(path)?.subarray(1, 4).toString()).toBe('PNG');
  });

  it('is split into requests of at most so many bytes', async () => {
    const sink = makeSink({ mostBytes: 4000 });
    await sink.open();
    const text = { type: 'text', text: '"quoted" '.repeat(50) } as const;
    await sink.write(Array.from({ length: 40 }, (_, i) => trackedRow(i + 1, { text })));
    await sink.lines(Array.from({ length: 300 }, (_, i) => `line ${i} ${'x'.repeat(80)}`));
    const sizes = server.seen.filter(({ path }) => path.endsWith('file_stream')).map(({ bytes }) => bytes);
    expect(sizes.length).toBeGreaterThan(15);
    expect(Math.max(...sizes)).toBeLessThan(4200);
    expect(server.steps()).toEqual(steps(1, 40));
    expect(server.run.lines['output.log']!.map((line) => /line \d+/.exec(line)?.[0])).toEqual(
      Array.from({ length: 300 }, (_, i) => `line ${i}`),
    );
  });
});

describe('a fault', () => {
  const FAULTS: [string, Fault, RegExp][] = [
    ['an error of the server', { kind: 'status', status: 500 }, /^http:\S+: HTTP 500$/],
    ['too many requests', { kind: 'status', status: 429 }, /HTTP 429$/],
    ['a connection dropped before anything is stored', { kind: 'drop-before' }, /: the connection broke off \(/],
    ['a connection dropped after the lines are stored', { kind: 'drop-after' }, /: the connection broke off \(/],
    ['no answer, nothing stored', { kind: 'silent-before' }, /no answer in time$/],
    ['no answer, the lines stored', { kind: 'silent-after' }, /no answer in time$/],
  ];

  it.each(FAULTS)('%s loses nothing and stores nothing twice', async (_name, fault, message) => {
    const sink = makeSink({ timeoutMs: 300, mostBytes: 1500 });
    await sink.open();
    await sink.write(trackedRows(1, 5));
    // In the midst of a batch of several requests.
    for (const [work, at] of [
      [() => sink.write(trackedRows(6, 60)), 1],
      [() => sink.hardware(steps(1, 40).map(load)), 1],
      [() => sink.lines(steps(1, 40).map((step) => `line ${step} ${'-'.repeat(50)}`)), 0],
    ] as const) {
      let count = 0;
      server.fault = ({ path }) => (path.endsWith('/file_stream') && count++ === at ? fault : undefined);
      expect(await insist(work)).toEqual([expect.stringMatching(message)]);
    }
    expect(server.steps()).toEqual(steps(1, 60));
    expect(
      server.run.lines['wandb-events.jsonl']!.map((line) => (JSON.parse(line) as { _runtime: number })._runtime),
    ).toEqual(steps(1, 40));
    expect(server.run.lines['output.log']!.map((line) => Number(/line (\d+)/.exec(line)?.[1]))).toEqual(steps(1, 40));
    expect(server.refused).toEqual([]);
  });

  it('of a server that counts its lines late: what it has acknowledged is not sent over', async () => {
    const sink = makeSink({ mostBytes: 1500 });
    await sink.open();
    await sink.write(trackedRows(1, 10));
    await sink.lines(['one', 'two', 'three']);
    server.lag = 2;
    plan([{ kind: 'status', status: 500 }]);
    await insist(() => sink.beat());
    await sink.lines(['four', 'five', 'six']);
    for (const work of [() => sink.write(trackedRows(11, 40)), () => sink.hardware(steps(1, 30).map(load))]) {
      // In the midst of a batch of several requests.
      let count = 0;
      const isSecond = (path: string): boolean => path.endsWith('/file_stream') && ++count === 2;
      server.fault = ({ path }) => (isSecond(path) ? { kind: 'status', status: 500 } : undefined);
      expect(await insist(work)).toHaveLength(1);
    }
    expect(server.steps()).toEqual(steps(1, 40));
    const output = server.run.lines['output.log']!.map((line) => line.split(' ').at(-1));
    expect(output).toEqual(['one', 'two', 'three', 'four', 'five', 'six']);
    expect(server.run.lines['wandb-events.jsonl']!.length).toBe(30);
    expect(server.refused).toEqual([]);
  });

  it('a request that arrives when its lines were sent again is refused, and the run stays whole', async () => {
    const sink = makeSink({ timeoutMs: 300 });
    await sink.open();
    let letIn = (): void => {};
    const after = new Promise<void>((done) => {
      letIn = done;
    });
    plan([{ kind: 'store-late', after }]);
    await insist(() => sink.write(trackedRows(1, 5)));
    letIn();
    await insist(() => sink.write(trackedRows(6, 9)));
    await expect.poll(() => server.refused).toEqual(['wandb-history.jsonl: lines from 0 on, but there are 5']);
    expect(server.steps()).toEqual(steps(1, 9));
  });

  it('a request that arrives between the question and the second try ends in one copy of its lines', async () => {
    const sink = makeSink({ timeoutMs: 300 });
    await sink.open();
    let letIn = (): void => {};
    const after = new Promise<void>((done) => {
      letIn = done;
    });
    const faults: Fault[] = [{ kind: 'store-late', after }];
    let streams = 0;
    server.fault = ({ path }) => {
      if (!path.endsWith('/file_stream')) return undefined;
      streams += 1;
      // The second try waits until the first has been stored.
      if (streams === 2) {
        letIn();
        return { kind: 'store-late', after: new Promise((done) => setTimeout(done, 50)) };
      }
      return faults.shift();
    };
    await insist(() => sink.write(trackedRows(1, 5)));
    expect(server.steps()).toEqual(steps(1, 5));
  });

  it('whichever, in whatever order: each row, load and line is there once, in order', async () => {
    const fault = fc.constantFrom<Fault | undefined>(
      undefined,
      undefined,
      { kind: 'status', status: 500 },
      { kind: 'drop-before' },
      { kind: 'drop-after' },
      { kind: 'silent-after' },
    );
    const property = fc.asyncProperty(
      fc.array(fault, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 9 })),
      async (faults, sizes) => {
        server.runs.clear();
        server.fault = () => faults.shift();
        const sink = makeSink({ timeoutMs: 100, mostBytes: 900 });
        await insist(async () => void (await sink.open()));
        let at = 0;
        for (const size of sizes) {
          const given = steps(at + 1, at + size);
          await insist(() => sink.write(trackedRows(at + 1, at + size)));
          await insist(() => sink.hardware(given.map(load)));
          await insist(() => sink.lines(given.map((step) => `line ${step}`)));
          at += size;
        }
        await insist(() => sink.finish('finished'));
        expect(server.steps()).toEqual(steps(1, at));
        const events = server.run.lines['wandb-events.jsonl'] ?? [];
        expect(events.map((line) => (JSON.parse(line) as { _runtime: number })._runtime)).toEqual(steps(1, at));
        const output = server.run.lines['output.log'] ?? [];
        expect(output.map((line) => Number(/line (\d+)/.exec(line)?.[1]))).toEqual(steps(1, at));
        expect([server.run.complete, server.refused]).toEqual([true, []]);
        await sink.close();
      },
    );
    await fc.assert(property, { numRuns: 25 });
  }, 60_000);

  it('that lasts ends with the request that is under way when the sink is closed', async () => {
    const sink = makeSink({ timeoutMs: 60_000 });
    await sink.open();
    plan([{ kind: 'silent-before' }]);
    const writing = sink.write(trackedRows(1, 2));
    setTimeout(() => void sink.close(), 50);
    await expect(writing).rejects.toThrow(/the request was given up/);
  });
});

describe('resuming', () => {
  it('without rows to add leaves the time that the run took', async () => {
    const first = makeSink();
    await first.open();
    await first.write(trackedRows(1, 15));
    await first.finish('finished');
    const second = makeSink();
    await second.open();
    await second.finish('finished');
    expect(JSON.parse(server.run.lines['wandb-summary.json']![0]!)).toMatchObject({ _wandb: { runtime: 15 } });
  });

  it('goes on behind the rows that the server has; none is written over, also those after the checkpoint', async () => {
    const first = makeSink();
    await first.open();
    await first.write(trackedRows(1, 15));
    await first.lines(['before']);
    await first.summary({ 'evaluation/accuracy': 0.5 });
    await first.close();
    const before = [...server.run.lines['wandb-history.jsonl']!];
    const second = makeSink();
    expect(await second.open()).toBe(15);
    await second.write(trackedRows(10, 20));
    await second.lines(['after']);
    await second.finish('stopped');
    expect(server.run.lines['wandb-history.jsonl']!.slice(0, 15)).toEqual(before);
    expect(server.steps()).toEqual(steps(1, 20));
    expect(server.run.lines['output.log']!.length).toBe(2);
    expect(JSON.parse(server.run.lines['wandb-summary.json']![0]!)).toMatchObject({
      'evaluation/accuracy': 0.5,
      _step: 20,
    });
    expect([server.run.exitCode, server.refused]).toEqual([255, []]);
  });

  it('of a copy is another run; the folder keeps its own', async () => {
    await makeSink().open();
    const copy = makeSink({ anew: true });
    expect(await copy.open()).toBe(-1);
    expect(server.runs.size).toBe(2);
    expect(readFileSync(join(root, 'metrics/wandb.json'), 'utf8')).toContain(ID);
  });

  it('says so when the server has lost the run', async () => {
    const sink = makeSink();
    await sink.open();
    plan([{ kind: 'drop-before' }]);
    await expect(sink.write(trackedRows(1, 2))).rejects.toThrow();
    server.runs.clear();
    await expect(sink.write(trackedRows(1, 2))).rejects.toThrow(/the server has lost the run; start the command again/);
  });
});

it('a stop asked for on the server is passed on once, by a heartbeat, too', async () => {
  const asked: string[] = [];
  const sink = makeSink({ onStop: (who) => asked.push(who) });
  await sink.open();
  await sink.write(trackedRows(1, 2));
  await sink.beat();
  expect(asked).toEqual([]);
  expect(server.seen.at(-1)).toMatchObject({ method: 'POST', body: {} });
  server.stopped = true;
  await sink.beat();
  await sink.write(trackedRows(3, 4));
  expect(asked).toEqual(['Weights & Biases']);
});

describe('an error', () => {
  it.each([
    [401, '', /HTTP 401: the server does not know the key; see WANDB_API_KEY/],
    [403, '', /HTTP 403: the key may not write there; see WANDB_ENTITY/],
    [409, '', /HTTP 409: a run of this id was deleted; delete metrics\/wandb.json/],
    [302, '', /HTTP 302: the server is elsewhere; see WANDB_BASE_URL/],
    [404, '<html>\n not here </html>', /HTTP 404: <html> not here <\/html>$/],
    [502, '<html>a long page</html>', /HTTP 502$/],
    [200, '<html>a page</html>', /the answer is not JSON; is this the address of an API\?$/],
    [200, '{"errors":[{"message":"no such project"}]}', /: Viewer: no such project$/],
    [200, '{}', /: Viewer: no answer$/],
  ])('%i %s is told in a short line', async (status, body, message) => {
    plan([{ kind: 'status', status, body }], () => true);
    await expect(makeSink().open()).rejects.toThrow(message);
  });

  it('never repeats the key, whatever the server says, nor a password in the address', async () => {
    const encoded = Buffer.from(`api:${KEY}`).toString('base64');
    const url = server.url.replace('//', '//user:planted-password@');
    const said = `the key ${KEY} or ${encoded} is bad`;
    for (const fault of [
      { kind: 'status', status: 400, body: said },
      { kind: 'status', status: 200, body: JSON.stringify({ errors: [{ message: said }] }) },
      { kind: 'drop-before' },
    ] as Fault[]) {
      plan([fault], () => true);
      const sink = makeSink({ env: { WANDB_BASE_URL: url } });
      const error: unknown = await sink.open().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(Error);
      expect(`${(error as Error).message}${(error as Error).stack}${String((error as Error).cause)}`).not.toMatch(
        new RegExp(`planted|${encoded}`),
      );
    }
    const sink = makeSink({ env: { WANDB_BASE_URL: url } });
    await sink.open();
    await sink.write(trackedRows(1, 2));
    expect(sink.place).not.toContain('planted');
    const written = readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'));
    expect(written.length).toBe(1);
    expect(written.join()).not.toMatch(/planted/);
    expect(JSON.stringify(server.seen)).not.toMatch(/planted-(key|password)/);
  });
});
