import { mkdirSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MediaAnswer, RunDetail, SeriesAnswer } from '../../src/dashboard/api.ts';
import { sha256 } from '../../src/io/files.ts';
import { linesOf, makeRun, rowsOf, type Served, serve, temporaryFolder } from './support.ts';

/** More bytes than are read without an index. */
const INDEXED_ROWS = 4000;

async function served(warmup: number, continual: number) {
  const runs = temporaryFolder();
  const rows = { warmup: rowsOf(warmup), continual: rowsOf(continual, { start: 9000, salt: 0.5 }) };
  const run = makeRun(runs, 'a', rows);
  const dashboard = await serve(runs);
  const series = (query: string) => dashboard.json<SeriesAnswer>(`/api/runs/a/series?${query}`);
  return { rows, run, dashboard, series, runs };
}

/** Steps of the whole run and losses, of both stages. */
function lossesOf({ warmup, continual }: Awaited<ReturnType<typeof served>>['rows']): [number, number][] {
  return [
    ...warmup.map((row) => [row.step, row['train/loss']]),
    ...continual.map((row) => [warmup.length + Number(row.step), row['train/loss']]),
  ] as [number, number][];
}

describe('curves', () => {
  it('are the rows themselves while they are few, both stages on one axis', async () => {
    const { rows, series, dashboard } = await served(30, 20);
    const answer = await series('keys=train/loss,validation/loss');
    const [loss, validation] = answer.series;
    const expected = lossesOf(rows);
    expect(answer).toMatchObject({ axis: 'step', extent: [1, 50], rowsPerPoint: 1, isSampled: false });
    expect(loss!.x).toEqual(expected.map(([step]) => step));
    for (const column of [loss!.min, loss!.max, loss!.mean]) expect(column).toEqual(expected.map(([, value]) => value));
    expect(validation!.mean.filter((value) => value !== null)).toHaveLength(5);
    const tokens = await series('keys=train/loss&x=tokens');
    expect(tokens.series[0]!.x.slice(28, 32)).toEqual([29 * 64, 30 * 64, 31 * 64, 32 * 64]);
    const time = await series('keys=train/loss&x=time');
    expect(time.series[0]!.x[0]).toBe(0);
    expect(time.extent).toEqual([0, 9000 + 10 + 0.0005 - 1000.5]);
    const detail = await dashboard.json<RunDetail>('/api/runs/a');
    expect(detail.switch).toEqual({ step: 31, tokens: 31 * 64, time: 9000.501 - 1000.5 - 0.0005 });
    expect(detail.keys).toEqual(['train/loss', 'train/tokens', 'train/tokens_per_s', 'validation/loss']);
  });

  it('hold the least, greatest and mean of every row, however far one zooms, indexed or not', async () => {
    const { rows, series, dashboard } = await served(INDEXED_ROWS, 700);
    await series('keys=train/loss');
    await dashboard.settled();
    const all = lossesOf(rows);
    const property = fc.asyncProperty(
      fc.integer({ min: 1, max: 4700 }),
      fc.integer({ min: 0, max: 4700 }),
      fc.integer({ min: 20, max: 800 }),
      async (from, width, points) => {
        const answer = await series(`keys=train/loss&from=${from}&to=${from + width}&points=${points}`);
        const [{ x, min, max, mean }] = answer.series as [SeriesAnswer['series'][0]];
        expect(x.length).toBeLessThanOrEqual(points);
        expect(x).toEqual([...x].sort((a, b) => a - b));
        const wanted = all.filter(([step]) => step >= from && step <= from + width);
        if (wanted.length === 0) return;
        const around = all.filter(([step]) => step >= (x[0] ?? 0) && step < (x.at(-1) ?? 0) + answer.rowsPerPoint);
        expect(around.length).toBeGreaterThanOrEqual(wanted.length);
        // A point holds the rows from its place to the next one; the last one may be cut by the end of the stage.
        x.slice(0, -1).forEach((place, i) => {
          const values = all.filter(([step]) => step >= place && step < x[i + 1]!).map(([, loss]) => loss);
          expect(min[i]).toBe(Math.min(...values));
          expect(max[i]).toBe(Math.max(...values));
          expect(mean[i]).toBeCloseTo(values.reduce((sum, value) => sum + value, 0) / values.length, 9);
        });
      },
    );
    await fc.assert(property, { numRuns: 40, examples: [[4025, 249, 20]] });
  });

  it('are drawn from a sample at once while a long file waits to be indexed', async () => {
    const runs = temporaryFolder();
    const rows = rowsOf(40_000);
    makeRun(runs, 'a', { warmup: rows });
    const dashboard = await serve(runs);
    const get = (query: string) =>
      dashboard.json<SeriesAnswer>(`/api/runs/a/series?keys=train/loss&points=400${query}`);
    const sampled = await get('');
    expect(sampled.isSampled).toBe(true);
    expect(sampled.extent).toEqual([1, 40_000]);
    expect(sampled.series[0]!.x.length).toBeGreaterThan(300);
    sampled.series[0]!.x.forEach((step, i) => {
      if (sampled.rowsPerPoint === 1) expect(sampled.series[0]!.mean[i]).toBe(rows[step - 1]!['train/loss']);
    });
    const zoomed = await get('&from=20000&to=20100');
    expect(zoomed.series[0]!.x[0]).toBeGreaterThanOrEqual(20_000);
    expect(zoomed.series[0]!.x.at(-1)).toBeLessThanOrEqual(20_100);
    await dashboard.settled();
    const exact = await get('');
    expect(exact.isSampled).toBe(false);
    expect((await dashboard.json<RunDetail>('/api/runs/a')).indexed).toBe(1);
    expect((await get('&from=20000&to=20100')).series[0]!.mean).toEqual(
      rows.slice(19_999, 20_100).map((row) => row['train/loss']),
    );
  });

  it('follow a run that grows, and one that was cut back and goes on otherwise', async () => {
    const { run, series, dashboard } = await served(INDEXED_ROWS, 0);
    await series('keys=train/loss');
    await dashboard.settled();
    run.append('warmup.jsonl', rowsOf(5, { first: INDEXED_ROWS + 1 }));
    expect((await series('keys=train/loss')).extent[1]).toBe(INDEXED_ROWS + 5);
    const anew = [...rowsOf(3000), ...rowsOf(2000, { first: 3001, salt: 7 })];
    writeFileSync(join(run.metrics, 'warmup.jsonl'), linesOf(anew));
    const answer = await series('keys=train/loss&from=2990&to=3020&points=100');
    expect(answer.series[0]!.mean).toEqual(anew.slice(2989, 3020).map((row) => row['train/loss']));
    await dashboard.settled();
    expect((await series('keys=train/loss&from=2990&to=3020&points=100')).series).toEqual(answer.series);
  });

  it('are there at once after a restart, from the index', async () => {
    const { runs, series, dashboard } = await served(40_000, 0);
    await series('keys=train/loss');
    await dashboard.settled();
    await dashboard.close();
    const cache = temporaryFolder();
    for (const isIndexed of [false, true]) {
      const again = await serve(runs, { cache });
      const answer = await again.json<SeriesAnswer>('/api/runs/a/series?keys=train/loss');
      expect(answer.isSampled).toBe(!isIndexed);
      await again.settled();
      await again.close();
    }
  });
});

describe('the cache', () => {
  const LONG = 60_000;
  const curve = async (dashboard: Served) =>
    await dashboard.json<SeriesAnswer>('/api/runs/a/series?keys=train/loss&points=300');

  it('may be emptied at any time', async () => {
    const [runs, cache] = [temporaryFolder(), temporaryFolder()];
    makeRun(runs, 'a', { warmup: rowsOf(LONG) });
    const dashboard = await serve(runs, { cache });
    await curve(dashboard);
    await dashboard.settled();
    const before = await curve(dashboard);
    expect(before.isSampled).toBe(false);
    for (const name of readdirSync(join(cache, '0'))) rmSync(join(cache, '0', name), { recursive: true });
    const sampled = await curve(dashboard);
    expect(sampled.series[0]!.mean.some((value) => value !== null)).toBe(true);
    await dashboard.settled();
    expect(await curve(dashboard)).toEqual(before);
    rmSync(cache, { recursive: true });
    await curve(dashboard);
    await dashboard.settled();
    expect(await curve(dashboard)).toEqual(before);
  });

  it('that cannot be written costs nothing but exactness', async () => {
    const [runs, cache] = [temporaryFolder(), temporaryFolder()];
    const run = makeRun(runs, 'a', { warmup: rowsOf(LONG) });
    const place = sha256(join(realpathSync(run.metrics), 'warmup.jsonl')).slice(0, 32);
    mkdirSync(join(cache, '0'));
    writeFileSync(join(cache, '0', place), 'no folder');
    const dashboard = await serve(runs, { cache });
    await curve(dashboard);
    await dashboard.settled();
    expect((await curve(dashboard)).series[0]!.x.length).toBeGreaterThan(100);
    expect((await dashboard.json<RunDetail>('/api/runs/a')).problem).toBeUndefined();
    // Such as in a home that is read-only.
    const file = join(temporaryFolder(), 'file');
    writeFileSync(file, '');
    const without = await serve(runs, { cache: join(file, 'cache') });
    await curve(without);
    await without.settled();
    expect((await curve(without)).isSampled).toBe(false);
  });

  it('is never shared: a second dashboard takes another folder', async () => {
    const [runs, cache] = [temporaryFolder(), temporaryFolder()];
    makeRun(runs, 'a', { warmup: rowsOf(3) });
    const first = await serve(runs, { cache });
    await serve(runs, { cache });
    expect(readdirSync(cache).sort()).toEqual(['0', '1']);
    await first.close();
    await serve(runs, { cache });
    expect(readdirSync(cache).sort()).toEqual(['0', '1']);
  });

  it('forgets a damaged row once the file has been mended', async () => {
    const runs = temporaryFolder();
    const rows = rowsOf(6000);
    const run = makeRun(runs, 'a', { warmup: rows });
    const path = join(run.metrics, 'warmup.jsonl');
    const lines = linesOf(rows).split('\n');
    lines[5500] = 'damaged';
    writeFileSync(path, lines.join('\n'));
    const dashboard = await serve(runs);
    await dashboard.get('/api/runs/a/series?keys=train/loss');
    await dashboard.settled();
    expect((await dashboard.get('/api/runs/a/series?keys=train/loss')).status).toBe(409);
    writeFileSync(path, linesOf(rows));
    await dashboard.get('/api/runs/a');
    await dashboard.settled();
    expect((await curve(dashboard)).series[0]!.x.at(-1)).toBeGreaterThan(5900);
    expect((await dashboard.json<RunDetail>('/api/runs/a')).problem).toBeUndefined();
  });
});

describe('media', () => {
  it('of many bytes are fewer, but of the whole range', async () => {
    const runs = temporaryFolder();
    const text = 'x'.repeat(2 ** 18);
    const warmup = rowsOf(200).map((row) => ({ ...row, 'sample/text': { type: 'text', text } }));
    makeRun(runs, 'a', { warmup });
    const dashboard = await serve(runs);
    await dashboard.get('/api/runs/a');
    await dashboard.settled();
    const { entries, total } = await dashboard.json<MediaAnswer>('/api/runs/a/media?key=sample/text&limit=200');
    expect(total).toBe(200);
    expect(entries.length).toBeGreaterThan(50);
    expect([entries[0]!.step, entries.at(-1)!.step]).toEqual([1, 200]);
  });

  it('are found in both stages, a few of many spread evenly', async () => {
    const runs = temporaryFolder();
    const withText = (stage: string) =>
      rowsOf(2000).map((row) =>
        Number(row.step) % 10 === 0 ? { ...row, 'sample/text': { type: 'text', text: `${stage} ${row.step}` } } : row,
      );
    makeRun(runs, 'a', { warmup: withText('w'), continual: withText('c') });
    const dashboard = await serve(runs);
    const get = (query: string) => dashboard.json<MediaAnswer>(`/api/runs/a/media?key=sample/text&${query}`);
    for (let attempt = 0; attempt < 2; attempt++) {
      const few = await get('limit=3');
      expect(few.total).toBe(400);
      expect(few.entries.map(({ step, stage }) => [step, stage])).toEqual([
        [10, 'warmup'],
        [2010, 'continual'],
        [4000, 'continual'],
      ]);
      const range = await get('from=2005&to=2020');
      expect(range.entries.map(({ value }) => value)).toEqual([
        { type: 'text', text: 'c 10' },
        { type: 'text', text: 'c 20' },
      ]);
      await dashboard.settled();
    }
    expect((await dashboard.json<RunDetail>('/api/runs/a')).media).toEqual([{ key: 'sample/text', type: 'text' }]);
  });
});
