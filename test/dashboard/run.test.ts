import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { memoryIsCheapest } from '../../src/analysis/costs.ts';
import { runSchema } from '../../src/config/schema.ts';
import type {
  AnswerDetail,
  AnswerSummary,
  ConfigAnswer,
  CostAnswer,
  RunDetail,
  RunSummary,
  SeriesAnswer,
} from '../../src/dashboard/api.ts';
import type { RunEvent } from '../../src/tracking/events.ts';
import { linesOf, makeRun, rowsOf, serve, temporaryFolder } from './support.ts';

const status = (fields: object) =>
  JSON.stringify({
    version: 1,
    state: 'running',
    command: 'run',
    pid: 1,
    host: 'h',
    startedAt: 900,
    beatAt: Date.now() / 1000,
    sinks: [],
    ...fields,
  });

describe('the list of runs', () => {
  it('tells state, progress, time left, losses, speed and tags of each', async () => {
    const runs = temporaryFolder();
    const going = makeRun(runs, 'going', { warmup: rowsOf(100), continual: rowsOf(20, { start: 2000 }) });
    writeFileSync(join(going.metrics, 'status.json'), status({}));
    const dead = makeRun(runs, 'dead', { warmup: rowsOf(10) });
    writeFileSync(join(dead.metrics, 'status.json'), status({ beatAt: 5 }));
    makeRun(runs, 'empty');
    writeFileSync(join(runs, 'a file'), '');
    const list = await (await serve(runs)).json<RunSummary[]>('/api/runs');
    expect(list.map(({ run, state }) => [run, state])).toEqual([
      ['dead', 'crashed'],
      ['empty', 'unknown'],
      ['going', 'running'],
    ]);
    const last = rowsOf(20).at(-1)!;
    expect(list[2]).toMatchObject({
      ...{
        stage: 'continual',
        step: 120,
        steps: 150,
        tokens: 120 * 64,
        loss: last['train/loss'],
        tokensPerSecond: 128,
      },
      ...{ validationLoss: last['validation/loss'], tags: ['small', 'true'], notes: 'a note', startedAt: 1000.5 },
    });
    expect(list[2]!.timeLeft).toBeCloseTo(15);
    expect(list[2]!.sparkline.length).toBeGreaterThan(30);
    expect(list[0]!.timeLeft).toBeUndefined();
    expect(list.some(({ problem }) => problem !== undefined)).toBe(false);
  });

  it('tells the last validation, however many rows ago', async () => {
    const runs = temporaryFolder();
    const warmup = rowsOf(5000).map(({ 'validation/loss': loss, ...row }) =>
      row.step === 500 ? { ...row, 'validation/loss': loss! } : row,
    );
    makeRun(runs, 'a', { warmup, continual: [] });
    const [summary] = await (await serve(runs)).json<RunSummary[]>('/api/runs');
    expect(summary!.validationLoss).toBe(warmup[499]!['validation/loss']);
  });

  it('names runs whatever their folders are called', async () => {
    const runs = temporaryFolder();
    const names = ['100%', 'a b', 'a#b?c&d', 'a%2Fb', 'größe 記憶', 'x,y', '%E0%A4%A'];
    for (const name of names) makeRun(runs, name, { warmup: rowsOf(3) });
    const dashboard = await serve(runs);
    expect((await dashboard.json<RunSummary[]>('/api/runs')).map(({ run }) => run)).toEqual([...names].sort());
    for (const name of names) {
      const { series } = await dashboard.json<SeriesAnswer>(
        `/api/runs/${encodeURIComponent(name)}/series?keys=train/loss`,
      );
      expect([name, series[0]!.x]).toEqual([name, [1, 2, 3]]);
    }
    expect((await dashboard.get('/api/runs/%E0%A4%A/series')).status).toBeLessThan(500);
  });
});

describe('a run', () => {
  it('has events, log, load, final values and answers as its files hold them', async () => {
    const runs = temporaryFolder();
    const { metrics, root } = makeRun(runs, 'a', { warmup: rowsOf(3) });
    const events: RunEvent[] = [
      { time: 1, kind: 'start', text: '<b>' },
      { time: 2, kind: 'checkpoint', stage: 'warmup', step: 3, text: 'saved' },
    ];
    writeFileSync(join(metrics, 'events.jsonl'), linesOf(events));
    writeFileSync(join(metrics, 'log.txt'), 'one\ntwo\nthree\n');
    writeFileSync(
      join(metrics, 'hardware.jsonl'),
      linesOf([1, 2, 3].map((time) => ({ time, 'hardware/cpu_percent': time * 10 }))),
    );
    writeFileSync(join(metrics, 'summary.json'), '{"evaluation/accuracy":0.5}');
    const memory = { id: 'm1', document: 'd', title: 't', text: 'x', score: 0.5, share: 0.1, keptTokens: ['a'] };
    const answers = ['p', 'q'].map((prompt, i) => ({
      time: i,
      prompt,
      text: 'answer',
      trace: [
        { text: 'c', memories: [memory, { ...memory, id: 'm2' }] },
        { text: 'd', memories: [memory] },
      ],
    }));
    writeFileSync(
      join(metrics, 'answers.jsonl'),
      `${linesOf(answers.slice(0, 1))}broken\n${linesOf(answers.slice(1))}`,
    );
    const before = filesIn(root);
    const dashboard = await serve(runs);
    expect(await dashboard.json('/api/runs/a/events?limit=1')).toEqual(events.slice(1));
    expect(await dashboard.json('/api/runs/a/log?lines=2')).toEqual({ lines: ['two', 'three'] });
    const hardware = await dashboard.json<SeriesAnswer>('/api/runs/a/hardware?keys=hardware/cpu_percent&from=2');
    expect(hardware.series[0]).toMatchObject({ x: [2, 3], mean: [20, 30] });
    const detail = await dashboard.json<RunDetail>('/api/runs/a');
    expect(detail).toMatchObject({
      summary: { 'evaluation/accuracy': 0.5 },
      hardwareKeys: ['hardware/cpu_percent'],
      hasAnswers: true,
      hasBank: false,
    });
    const list = await dashboard.json<AnswerSummary[]>('/api/runs/a/answers');
    expect(list).toEqual([
      { number: 2, time: 1, prompt: 'q', text: 'answer', memories: 2 },
      { number: 0, time: 0, prompt: 'p', text: 'answer', memories: 2 },
    ]);
    expect((await dashboard.json<AnswerDetail>('/api/runs/a/answers/2')).trace).toEqual(answers[1]!.trace);
    expect((await dashboard.get('/api/runs/a/answers/1')).status).toBe(404);
    const csv = await (await dashboard.get('/api/runs/a/export.csv?keys=train/tokens,validation/loss')).text();
    expect(csv).toBe(
      'step,stage,time,train/tokens,validation/loss\n1,warmup,1000.5,64,\n2,warmup,1001,128,\n3,warmup,1001.5,192,\n',
    );
    // Reading has changed nothing.
    expect(filesIn(root)).toEqual(before);
  });

  it('shows its configuration by paths, what differs from another one, and no secrets', async () => {
    const runs = temporaryFolder();
    makeRun(runs, 'a', {
      config:
        'warmup: { steps: 1 }\nlist: [1, 2]\nsources: [{ path: x }]\napiKey: PLANTED\nnested: { access_token: PLANTED }\nurl: https://user:PLANTED@host/path\n',
    });
    makeRun(runs, 'b', { config: 'warmup: { steps: 2 }\nlist: [1, 2]\nmore: 1\n' });
    const dashboard = await serve(runs);
    const answer = await dashboard.json<ConfigAnswer>('/api/runs/a/config?against=b');
    expect(answer.values).toEqual({
      'warmup.steps': 1,
      list: [1, 2],
      'sources[0].path': 'x',
      url: 'https://host/path',
    });
    expect(answer.differences).toEqual({ 'warmup.steps': 2, more: 1, 'sources[0].path': null, url: null });
    process.env.PLANTED_KEY = 'PLANTED-IN-ENVIRONMENT';
    for (const path of ['', '/config', '/cost', '/events', '/log'])
      expect(await (await dashboard.get(`/api/runs/a${path}`)).text()).not.toContain('PLANTED');
    delete process.env.PLANTED_KEY;
    expect((await dashboard.get('/api/runs/a/config?against=../a')).status).toBe(404);
  });

  it('has the cost of its own shape', async () => {
    const runs = temporaryFolder();
    const config = runSchema.parse({
      name: 'a',
      data: { sources: [{ path: 'x' }], references: [{ path: 'x' }], sequenceLength: 64 },
      model: { vocabSize: 500 },
    });
    makeRun(runs, 'a', { config: stringify(config) });
    const answer = await (await serve(runs)).json<CostAnswer>('/api/runs/a/cost');
    const { from, to } = memoryIsCheapest({ ...config.model, ...config.memory, vocabSize: 500, sequenceLength: 64 });
    expect(answer.cheapest).toEqual({ from, to });
    expect(answer.formats.map(({ name }) => name)).toEqual(['parameters', 'memory', 'text']);
    const cheapest = answer.uses.map(
      (uses, i) =>
        answer.totals.memory[i]! <= Math.min(answer.totals.text[i]!, answer.totals.parameters[i]!) ===
        (uses >= from && uses <= to),
    );
    expect(cheapest.every((isRight) => isRight)).toBe(true);
  });
});

describe('live events', () => {
  it('tell new rows, events and lines as they are written, and nothing twice to who has seen it', async () => {
    const runs = temporaryFolder();
    const run = makeRun(runs, 'a', { warmup: rowsOf(3) });
    writeFileSync(join(run.metrics, 'events.jsonl'), '');
    writeFileSync(join(run.metrics, 'log.txt'), 'old\n');
    const dashboard = await serve(runs);
    const first = await listen(await dashboard.get('/api/runs/a/live'));
    expect(await first.next()).toMatchObject({ id: '3', event: 'rows', data: { rows: 3, summary: { step: 3 } } });
    const seen = await listen(await dashboard.get('/api/runs/a/live', { 'last-event-id': '3' }));
    const list = await listen(await dashboard.get('/api/live'));
    run.append('warmup.jsonl', rowsOf(2, { first: 4 }));
    for (const events of [first, seen])
      expect(await events.next()).toMatchObject({ id: '5', event: 'rows', data: { rows: 5 } });
    expect(await list.next()).toMatchObject({ event: 'runs', data: { changed: ['a'] } });
    run.append('events.jsonl', [{ time: 1, kind: 'growth', text: 'grown' }]);
    expect(await nextOf(first, 'happened')).toMatchObject({ data: { kind: 'growth', text: 'grown' } });
    writeFileSync(join(run.metrics, 'log.txt'), 'old\nnew\n');
    expect(await nextOf(first, 'log')).toMatchObject({ data: { lines: ['new'] } });
    // A resumed run has cut rows back.
    writeFileSync(join(run.metrics, 'warmup.jsonl'), linesOf(rowsOf(2)));
    expect(await nextOf(first, 'rows')).toMatchObject({ id: '2', data: { rows: 2 } });
    for (const events of [first, seen, list]) await events.end();
  });

  it('are refused to more pages than a few', async () => {
    const runs = temporaryFolder();
    makeRun(runs, 'a', { warmup: rowsOf(3) });
    const dashboard = await serve(runs);
    const open = await Promise.all(Array.from({ length: 64 }, () => dashboard.get('/api/runs/a/live')));
    expect((await dashboard.get('/api/live')).status).toBe(503);
    await Promise.all(open.map((response) => response.body!.cancel()));
    for (let i = 0; i < 70; i++) await fetch(new URL('/api/live', dashboard.address), { method: 'HEAD' });
    for (let left = 100; left > 0 && (await dashboard.get('/api/runs')).ok; left--) {
      const again = await dashboard.get('/api/live');
      await again.body!.cancel();
      if (again.ok) return;
    }
    expect.unreachable('the places of those who left are not given back');
  });
});

interface Heard {
  id?: string;
  event: string;
  data: Record<string, unknown>;
}

async function listen(response: Response) {
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  const next = async (): Promise<Heard> => {
    for (;;) {
      const end = text.indexOf('\n\n');
      if (end >= 0) {
        const fields = Object.fromEntries(
          text
            .slice(0, end)
            .split('\n')
            .map((line) => line.split(/: (.*)/s).slice(0, 2)),
        );
        text = text.slice(end + 2);
        if (fields.event !== undefined) return { ...fields, data: JSON.parse(fields.data) };
        continue;
      }
      const { value, done } = await reader.read();
      if (done) throw new Error('the stream has ended');
      text += value;
    }
  };
  return { next, end: () => reader.cancel() };
}

async function nextOf(events: Awaited<ReturnType<typeof listen>>, name: string): Promise<Heard> {
  for (;;) {
    const heard = await events.next();
    if (heard.event === name) return heard;
  }
}

function filesIn(folder: string): [string, number, number][] {
  return readdirSync(folder, { recursive: true, withFileTypes: true }).map(({ parentPath, name }) => {
    const { size, mtimeMs } = statSync(join(parentPath, name));
    return [join(parentPath, name), size, mtimeMs];
  });
}
