/** The dashboard's addresses. */

import { type Context, Hono } from 'hono';
import { answerDetail, newestAnswers } from './answers.ts';
import type { Axis } from './api.ts';
import { Assets } from './assets.ts';
import { costAnswer } from './cost.ts';
import { csvOf } from './csv.ts';
import { logTail, newestEvents, runDetail } from './detail.ts';
import { harden, onlyLocal, onlyWithToken } from './guard.ts';
import type { Indexes } from './indexes.ts';
import type { Live } from './live.ts';
import { mediaAnswer } from './media.ts';
import type { Memories } from './memories.ts';
import { choiceParameter, countParameter, keysParameter, rangeParameters, textParameter } from './query.ts';
import { Refused, refusalOf } from './refused.ts';
import { configAnswer } from './run_config.ts';
import { withFile } from './run_file.ts';
import type { Run, Runs } from './runs.ts';
import { hardwareSeries, MOST_POINTS, type SeriesQuery, series } from './series.ts';
import { StageRows } from './stage_rows.ts';
import type { Summaries } from './summary.ts';

const AXES: readonly Axis[] = ['step', 'tokens', 'time'];
const MOST_EXPORTS = 4;
const LONGEST_TEXT = 1000;

export interface Parts {
  runs: Runs;
  summaries: Summaries;
  indexes: Indexes;
  live: Live;
  memories: Memories;
  /** Whoever asks must have it; without one only this machine is answered. */
  token: string | undefined;
  /** The port that is listened on. */
  port: () => number;
  /** Told of defects of our own. */
  onDefect: (error: unknown) => void;
}

export function makeApp(parts: Parts): Hono {
  const app = new Hono();
  app.use(harden());
  app.use(parts.token === undefined ? onlyLocal() : onlyWithToken(parts.token, parts.port));
  app.onError((error, c) => {
    const refusal = refusalOf(error, parts.runs.root);
    if (refusal.status === 500) parts.onDefect(error);
    return c.json({ error: { code: refusal.code, message: refusal.message } }, refusal.status);
  });
  app.route('/api', makeApi(parts));
  addPage(app);
  return app;
}

function makeApi(parts: Parts): Hono {
  const api = new Hono();
  const { runs, summaries, indexes, live } = parts;
  const runOf = (name: string | undefined): Run => runs.get(name ?? '');

  api.get('/runs', (c) => c.json(runs.list().map((run) => summaries.summary(run))));
  api.get('/live', (c) => events(c, () => live.listenToList()));
  api.get('/runs/:run', (c) => c.json(runDetail(runOf(c.req.param('run')), summaries, indexes)));
  api.get('/runs/:run/series', (c) => {
    const query = seriesQuery(c.req.query());
    return c.json(StageRows.with(runOf(c.req.param('run')), indexes, (stages) => series(stages, query)));
  });
  api.get('/runs/:run/hardware', (c) => {
    const run = runOf(c.req.param('run'));
    const query = seriesQuery(c.req.query());
    const answer = withFile(run.folder.hardware, run.within, (file) => hardwareSeries(file, query));
    return c.json(answer ?? { axis: 'time', extent: [0, 0], rowsPerPoint: 1, isSampled: false, series: [] });
  });
  api.get('/runs/:run/media', (c) => {
    const query = c.req.query();
    const limit = countParameter(query, 'limit', [1, 200, 1000]);
    const key = textParameter(query, 'key', 200);
    return c.json(mediaAnswer(runOf(c.req.param('run')), indexes, { key, limit, ...rangeParameters(query) }));
  });
  api.get('/runs/:run/events', (c) =>
    c.json(newestEvents(runOf(c.req.param('run')), countParameter(c.req.query(), 'limit', [1, 500, 5000]))),
  );
  api.get('/runs/:run/log', (c) =>
    c.json({ lines: logTail(runOf(c.req.param('run')), countParameter(c.req.query(), 'lines', [1, 200, 5000])) }),
  );
  api.get('/runs/:run/config', (c) => {
    const against = c.req.query('against');
    return c.json(configAnswer(runOf(c.req.param('run')), against === undefined ? undefined : runOf(against)));
  });
  api.get('/runs/:run/live', (c) => {
    const run = runOf(c.req.param('run'));
    return events(c, () => live.listenToRun(run, c.req.header('last-event-id')));
  });
  addMemories(api, parts, runOf);
  addExport(api, runOf);
  api.all('*', () => {
    throw new Refused(404, 'address_unknown', 'there is no such address');
  });
  return api;
}

/** Who asks for headers alone does not listen. */
function events(c: Context, listen: () => ReadableStream<Uint8Array>): Response {
  const headers = { 'Content-Type': 'text/event-stream; charset=utf-8', 'X-Accel-Buffering': 'no' };
  return c.req.method === 'HEAD' ? c.body(null, 200, headers) : c.body(listen(), 200, headers);
}

function addMemories(api: Hono, { memories }: Parts, runOf: (name: string | undefined) => Run): void {
  api.get('/runs/:run/bank', async (c) => c.json(await memories.bank(runOf(c.req.param('run')))));
  api.get('/runs/:run/memories', async (c) => {
    const query = c.req.query();
    const text = textParameter(query, 'text', LONGEST_TEXT);
    const limit = countParameter(query, 'limit', [1, 50, 500]);
    return c.json(await memories.find(runOf(c.req.param('run')), text, limit));
  });
  api.get('/runs/:run/memories/:id', async (c) =>
    c.json(await memories.get(runOf(c.req.param('run')), c.req.param('id'))),
  );
  api.get('/runs/:run/answers', async (c) =>
    c.json(await newestAnswers(runOf(c.req.param('run')), countParameter(c.req.query(), 'limit', [1, 50, 500]))),
  );
  api.get('/runs/:run/answers/:number', async (c) => {
    const number = countParameter(c.req.param(), 'number', [0, 0, Number.MAX_SAFE_INTEGER]);
    return c.json(await answerDetail(runOf(c.req.param('run')), number));
  });
  api.get('/runs/:run/cost', (c) => c.json(costAnswer(runOf(c.req.param('run')))));
}

/** Each export reads a whole run, so few go on at a time. */
function addExport(api: Hono, runOf: (name: string | undefined) => Run): void {
  let exports = 0;
  api.get('/runs/:run/export.csv', async (c) => {
    const run = runOf(c.req.param('run'));
    const keys = keysParameter(c.req.query());
    if (c.req.method === 'HEAD') return c.body(null);
    if (exports >= MOST_EXPORTS) throw new Refused(429, 'too_many_exports', 'other exports are going on; try again');
    async function* counted(): AsyncGenerator<Uint8Array> {
      exports += 1;
      try {
        yield* csvOf(run, keys);
      } finally {
        exports -= 1;
      }
    }
    return c.body(await streamOf(counted()), 200, {
      'Content-Type': 'text/csv; charset=utf-8',
      'Content-Disposition': `attachment; filename="${run.name.replaceAll(/[^\w.-]/g, '_')}.csv"`,
    });
  });
}

/**
 * A part is made when the one before has been taken.
 * @throws what making the first two parts throws: the names of the columns, and the first rows
 */
async function streamOf(parts: AsyncGenerator<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const ready = [await parts.next(), await parts.next()];
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const { value, done } = ready.shift() ?? (await parts.next());
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async () => {
        await parts.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

function seriesQuery(query: Record<string, string>): SeriesQuery {
  return {
    keys: keysParameter(query),
    axis: choiceParameter(query, 'x', AXES),
    points: countParameter(query, 'points', [2, 2000, MOST_POINTS]),
    ...rangeParameters(query),
  };
}

/** The page, under every address that is none of a file: it reads the address itself. */
function addPage(app: Hono): void {
  const assets = new Assets();
  app.get('/assets/*', (c) => {
    const asset = assets.get(c.req.path.slice('/assets/'.length));
    if (asset === undefined) throw new Refused(404, 'file_unknown', 'there is no such file');
    c.header('Cache-Control', 'no-cache');
    return c.body(asset.body, 200, { 'Content-Type': asset.type });
  });
  app.get('*', (c) => {
    const page = assets.get('index.html');
    if (page === undefined) throw new Refused(404, 'page_missing', 'the page is not built: run `npm run build`');
    return c.body(page.body, 200, { 'Content-Type': page.type });
  });
}
