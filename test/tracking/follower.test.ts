import { appendFileSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { runSchema } from '../../src/config/schema.ts';
import { RunFolder, type StageName } from '../../src/io/run_folder.ts';
import { Follower } from '../../src/tracking/follower.ts';
import type { Ending, Sink, SinkName, TrackedRow } from '../../src/tracking/sink.ts';
import { makeSink } from '../../src/tracking/sinks.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';
import { readFolder } from './tensorboard/reader.ts';
import { historyOf, readFile } from './wandb/reader.ts';

let folder: RunFolder;
beforeEach(async () => {
  folder = new RunFolder(await mkdtemp(join(tmpdir(), 'memory3-follower-')));
  mkdirSync(folder.metrics);
});
afterEach(() => rm(folder.root, { recursive: true }));

function write(stage: StageName, first: number, last: number, text = ''): void {
  for (let step = first; step <= last; step++) {
    appendFileSync(folder.metricsFile(stage), `${JSON.stringify({ step, 'time/unix_s': step, text })}\n`);
  }
}

/** A sink in memory that fails when told to, before or after it has taken what it was given. */
class MemorySink implements Sink {
  readonly name = 'csv';
  readonly place = 'memory';
  steps: number[] = [];
  loads: MetricsRow[] = [];
  said: string[] = [];
  finals: unknown[] = [];
  beats = 0;
  opened: number[] = [];
  ending: Ending | undefined;
  isClosed = false;
  largest = 0;
  fails: (what: string) => boolean = () => false;

  async open(lastStep: number): Promise<number> {
    this.#may('open');
    this.opened.push(lastStep);
    this.steps = this.steps.filter((step) => step <= lastStep);
    return this.steps.at(-1) ?? -1;
  }
  async write(rows: readonly TrackedRow[]): Promise<void> {
    this.#may('write');
    this.largest = Math.max(this.largest, rows.length);
    this.steps.push(...rows.map(({ step }) => step));
  }
  async hardware(rows: readonly MetricsRow[]): Promise<void> {
    this.#may('hardware');
    this.loads.push(...rows);
  }
  async lines(lines: readonly string[]): Promise<void> {
    this.#may('lines');
    this.said.push(...lines);
  }
  async summary(values: Readonly<Record<string, unknown>>): Promise<void> {
    this.#may('summary');
    this.finals.push(values);
  }
  async beat(): Promise<void> {
    this.beats += 1;
  }
  async finish(ending: Ending): Promise<void> {
    this.#may('finish');
    this.ending = ending;
  }
  async close(): Promise<void> {
    this.isClosed = true;
  }
  #may(what: string): void {
    if (this.fails(what)) throw new Error(`${what} failed`);
  }
}

const steps = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** The losses that a sink in the run folder shows. */
function lossesIn(name: SinkName): number[] {
  if (name === 'csv') {
    const lines = readFileSync(join(folder.root, 'csv', 'metrics.csv'), 'utf8')
      .trimEnd()
      .split('\n')
      .slice(1);
    return lines.map((line) => Number(line.split(',').at(-1)));
  }
  if (name === 'tensorboard') {
    return readFolder(join(folder.root, 'tensorboard')).flatMap(({ values }) =>
      values.flatMap(({ tag, number }) => (tag === 'train/loss' ? [number!] : [])),
    );
  }
  const parent = join(folder.root, 'wandb');
  const [run] = readdirSync(parent);
  const records = readFile(join(parent, run!, `run-${run!.split('-').at(-1)}.wandb`));
  return historyOf(records).map(({ values }) => Number(values['train/loss']));
}

/** A follower whose clock stands still until it is set. */
function follow(sink: Sink, options: { fromStart?: boolean } = {}) {
  const clock = { now: 1000 };
  return { follower: new Follower(sink, folder, { ...options, now: () => clock.now }), clock };
}

test('rows of both stages as they come, none before a stage has begun', async () => {
  const sink = new MemorySink();
  const { follower } = follow(sink);
  write('warmup', 1, 3);
  expect(await follower.pump()).toBe(true);
  expect(sink.opened).toEqual([]);
  follower.begin(['warmup'], 3);
  await follower.pump();
  write('warmup', 4, 5);
  await follower.pump();
  follower.begin(['warmup', 'continual'], 0);
  write('continual', 1, 2);
  await follower.pump();
  expect(sink.steps).toEqual(steps(1, 7));
  expect(sink.opened).toEqual([3]);
  expect(await follower.finish('finished')).toBe(true);
  expect([sink.ending, sink.isClosed]).toEqual(['finished', true]);
  expect(await follower.state()).toMatchObject({ step: 7, waiting: 0, failures: 0, error: undefined });
});

describe('a sink that holds rows of a process that was killed', () => {
  test.each([
    [3, 0, ['warmup']],
    [3, 3, ['warmup']],
    [12, 2, ['warmup', 'continual']],
    [12, 0, ['warmup', 'continual']],
  ] as const)('up to %i of the run is cut to what counted when the stage began at %i', async (held, step, stages) => {
    const sink = new MemorySink();
    sink.steps = steps(1, held);
    const { follower } = follow(sink);
    if (stages.length === 2) write('warmup', 1, 10);
    write(stages.at(-1)!, 1, step);
    follower.begin(stages, step);
    // The resumed process is ahead before the sink is looked at.
    write(stages.at(-1)!, step + 1, 8);
    await follower.pump();
    const before = stages.length === 2 ? 10 : 0;
    expect(sink.opened).toEqual([before + step || -1]);
    expect(sink.steps).toEqual(steps(1, before + 8));
  });

  test.each(['csv', 'tensorboard', 'wandb'] as const)(
    'and %s was not fed while they were made again: it holds the new ones',
    async (name) => {
      const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {} });
      const feed = async (last: number): Promise<void> => {
        const follower = new Follower(await makeSink(name, { root: folder.root, config }), folder);
        follower.begin(['warmup'], last);
        expect(await follower.finish('finished')).toBe(true);
      };
      const writeAt = (first: number, last: number, hour: number): void => {
        for (let step = first; step <= last; step++) {
          const row = { step, 'time/unix_s': hour * 3600 + step + 0.125, 'train/loss': hour };
          appendFileSync(folder.metricsFile('warmup'), `${JSON.stringify(row)}\n`);
        }
      };
      writeAt(1, 6, 1);
      await feed(6);
      // Steps 5 and 6 are made again, and more, without the sink.
      writeFileSync(folder.metricsFile('warmup'), '');
      writeAt(1, 4, 1);
      writeAt(5, 9, 2);
      await feed(9);
      expect(lossesIn(name)).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 2]);
      writeAt(10, 11, 3);
      await feed(11);
      expect(lossesIn(name)).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]);
    },
  );

  test('that cannot be cut keeps them and gets what is after them', async () => {
    const sink = new MemorySink();
    const open = async () => 6;
    Object.assign(sink, { open, steps: steps(1, 6) });
    write('warmup', 1, 8);
    const { follower } = follow(sink);
    follower.begin(['warmup'], 4);
    await follower.pump();
    expect(sink.steps).toEqual(steps(1, 8));
  });
});

describe('a sink that fails', () => {
  test('is left alone for longer and longer, and misses nothing', async () => {
    const sink = new MemorySink();
    const { follower, clock } = follow(sink);
    let tries = 0;
    sink.fails = (what) => what === 'write' && ++tries > 0;
    follower.begin(['warmup'], 0);
    const seconds: number[] = [];
    for (; clock.now < 1300; clock.now += 1) {
      write('warmup', clock.now - 999, clock.now - 999);
      const before = tries;
      expect(await follower.pump()).toBe(false);
      if (tries > before) seconds.push(clock.now - 1000);
    }
    expect(seconds).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
    expect(await follower.state()).toMatchObject({ step: -1, waiting: 300, failures: 10, error: 'write failed' });
    sink.fails = () => false;
    follower.hurry();
    expect(await follower.pump()).toBe(true);
    expect(sink.steps).toEqual(steps(1, 300));
    expect(await follower.state()).toMatchObject({ step: 300, waiting: 0, failures: 0, error: undefined });
  });

  test.each(['open', 'write', 'hardware', 'lines', 'summary'])(
    'now and then in %s gets everything once',
    async (what) => {
      const sink = new MemorySink();
      let calls = 0;
      sink.fails = (name) => name === what && calls++ % 3 !== 2;
      const { follower, clock } = follow(sink);
      follower.begin(['warmup'], 0);
      await follower.pump();
      for (let step = 1; step <= 30; step++) {
        write('warmup', step, step);
        appendFileSync(folder.hardware, `{"time":${step}}\n`);
        appendFileSync(folder.log, `2026-01-01T00:00:00.000Z line ${step}\n`);
        writeFileSync(folder.summary, JSON.stringify({ step }));
        clock.now += 100;
        await follower.pump();
      }
      sink.fails = () => false;
      expect(await follower.finish('stopped')).toBe(true);
      expect(sink.steps).toEqual(steps(1, 30));
      expect(sink.loads).toEqual(steps(1, 30).map((time) => ({ time })));
      expect(sink.said).toEqual(steps(1, 30).map((step) => `line ${step}`));
      expect(sink.finals.at(-1)).toEqual({ step: 30 });
      expect(new Set(sink.finals.map((values) => JSON.stringify(values))).size).toBe(sink.finals.length);
    },
  );

  test('at the end is closed all the same, and what waits is told', async () => {
    const sink = new MemorySink();
    sink.fails = (what) => what === 'open';
    write('warmup', 1, 4);
    const { follower } = follow(sink);
    follower.begin(['warmup'], 0);
    expect(await follower.finish('finished')).toBe(false);
    expect(sink.isClosed).toBe(true);
    expect(await follower.state()).toMatchObject({ waiting: 4, error: 'open failed' });
  });

  test('only in its end is told', async () => {
    const sink = new MemorySink();
    sink.fails = (what) => what === 'finish';
    const { follower } = follow(sink);
    write('warmup', 1, 1);
    follower.begin(['warmup'], 0);
    expect(await follower.finish('finished')).toBe(false);
    expect(follower.trouble).toEqual({ failures: 1, error: 'finish failed' });
  });

  test('because a row is damaged says which, and goes on where it is mended', async () => {
    const sink = new MemorySink();
    const { follower } = follow(sink);
    write('warmup', 1, 2);
    appendFileSync(folder.metricsFile('warmup'), 'x\n');
    write('warmup', 3, 3);
    follower.begin(['warmup'], 0);
    expect(await follower.pump()).toBe(false);
    expect(follower.trouble.error).toContain('warmup.jsonl:3');
    writeFileSync(folder.metricsFile('warmup'), '');
    write('warmup', 1, 4);
    follower.hurry();
    expect(await follower.pump()).toBe(true);
    expect(sink.steps).toEqual(steps(1, 4));
  });
});

test('what waits is told without reading the run', async () => {
  const file = folder.metricsFile('warmup');
  write('warmup', 1, 2);
  // A hole as long as the rows of weeks.
  truncateSync(file, 2 ** 36);
  appendFileSync(file, '\n');
  write('warmup', 9_999_999, 10_000_000);
  const { follower } = follow(new MemorySink());
  follower.begin(['warmup'], 10_000_000);
  expect((await follower.state()).waiting).toBe(10_000_000);
});

test('a long run is handed over in parts of bounded size', async () => {
  const sink = new MemorySink();
  write('warmup', 1, 3000, 'x'.repeat(1000));
  const { follower } = follow(sink);
  follower.begin(['warmup'], 0);
  await follower.pump();
  expect(sink.steps).toEqual(steps(1, 3000));
  expect(sink.largest).toBeLessThan(300);
});

describe('load and log', () => {
  const written = () => {
    writeFileSync(folder.hardware, '{"time":1}\nnonsense\n[]\n{"time":2}\n');
    writeFileSync(folder.log, '2026 early\n2026 \n2026 half');
    write('warmup', 1, 1);
  };

  test('of the time before are not handed over again, from the first look on they are', async () => {
    written();
    const sink = new MemorySink();
    const { follower, clock } = follow(sink);
    sink.fails = (what) => what === 'open';
    await follower.pump();
    // Said while no stage has begun, and while the sink cannot be opened.
    appendFileSync(folder.log, ' a line\n2026 second\n');
    appendFileSync(folder.hardware, '{"time":3}\n');
    follower.begin(['warmup'], 1);
    await follower.pump();
    sink.fails = () => false;
    clock.now += 10;
    await follower.pump();
    expect(sink.said).toEqual(['half a line', 'second']);
    expect(sink.loads).toEqual([{ time: 3 }]);
  });

  test('in an export are those from the beginning, without damaged rows', async () => {
    written();
    const sink = new MemorySink();
    const { follower } = follow(sink, { fromStart: true });
    follower.begin(['warmup']);
    await follower.pump();
    expect(sink.said).toEqual(['early', '']);
    expect(sink.loads).toEqual([{ time: 1 }, { time: 2 }]);
  });
});

test('beats come every 15 seconds, also without rows; final values once until they change', async () => {
  const sink = new MemorySink();
  const { follower, clock } = follow(sink);
  follower.begin(['warmup'], 0);
  writeFileSync(folder.summary, '{"a":1}');
  for (; clock.now < 1060; clock.now += 1) await follower.pump();
  expect(sink.beats).toBe(4);
  expect(sink.finals).toEqual([{ a: 1 }]);
});

test('a sink that must not be asked often is given its rows at its own pace, the last ones at once', async () => {
  const sink = Object.assign(new MemorySink(), { every: 10 });
  const { follower, clock } = follow(sink);
  follower.begin(['warmup'], 0);
  const taken: number[] = [];
  for (let step = 1; step <= 25; step++, clock.now += 1) {
    write('warmup', step, step);
    await follower.pump();
    taken.push(sink.steps.length);
  }
  expect(taken).toEqual([...Array(10).fill(1), ...Array(10).fill(11), ...Array(5).fill(21)]);
  expect(await follower.finish('finished')).toBe(true);
  expect(sink.steps).toEqual(steps(1, 25));
});

test('at the end what has just failed is tried again, what has failed for long is not', async () => {
  for (const [failuresBefore, tries] of [
    [0, 2],
    [5, 1],
  ] as const) {
    const sink = new MemorySink();
    const { follower, clock } = follow(sink);
    follower.begin(['warmup'], 0);
    sink.fails = (what) => what === 'open';
    for (let i = 0; i < failuresBefore; i++, clock.now += 100) await follower.pump();
    let asked = 0;
    sink.fails = (what) => what === 'finish' && ++asked === 1;
    expect(await follower.finish('stopped')).toBe(tries > 1);
    expect([asked, sink.ending, sink.isClosed]).toEqual([tries, tries > 1 ? 'stopped' : undefined, true]);
  }
});
