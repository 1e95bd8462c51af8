import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { RunSummary } from '../../src/dashboard/api.ts';
import { linesOf, makeRun, rowsOf, type Served, serve, temporaryFolder } from './support.ts';

/** Every address of a run. */
const ADDRESSES = [
  '',
  '/series?keys=train/loss',
  '/media?key=a',
  '/hardware?keys=a',
  '/events',
  '/log',
  '/config',
  '/bank',
  '/memories?text=a',
  '/memories/a',
  '/answers',
  '/answers/0',
  '/cost',
  '/export.csv?keys=a',
];

/** Sends a path as it is, which `fetch` would tidy. */
function raw(
  dashboard: Served,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<{ status: number; body: string; headers: Record<string, unknown> }> {
  const { hostname, port } = new URL(dashboard.address);
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, path, headers, method }, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += String(chunk);
      });
      response.on('end', () => resolve({ status: response.statusCode!, body, headers: response.headers }));
    });
    sent.on('error', reject);
    sent.end();
  });
}

async function isAlive(dashboard: Served): Promise<void> {
  expect((await dashboard.get('/api/runs')).status).toBe(200);
}

describe('paths', () => {
  it('never leave the runs folder', async () => {
    const outside = temporaryFolder();
    makeRun(outside, 'secret', { warmup: rowsOf(3), config: 'planted: SECRET\n' });
    const runs = temporaryFolder();
    const { root, metrics } = makeRun(runs, 'a', { warmup: rowsOf(3) });
    symlinkSync(join(outside, 'secret'), join(runs, 'linked'));
    writeFileSync(join(outside, 'file'), 'SECRET\n');
    rmSync(join(root, 'config.yaml'));
    symlinkSync(join(outside, 'file'), join(root, 'config.yaml'));
    for (const name of [
      'log.txt',
      'events.jsonl',
      'hardware.jsonl',
      'answers.jsonl',
      'summary.json',
      'continual.jsonl',
    ])
      symlinkSync(join(outside, 'file'), join(metrics, name));
    symlinkSync(outside, join(root, 'bank'));
    const dashboard = await serve(runs);
    const { basename } = { basename: outside.split('/').at(-1)! };
    const names = [
      '..',
      '.',
      '%2e%2e',
      `..%2f${basename}%2fsecret`,
      `../${basename}/secret`,
      'linked',
      '%2fetc',
      `${encodeURIComponent(join(outside, 'secret'))}`,
      'a%00',
      'a%2f..%2fa',
      '%5c..',
      'a%2fmetrics',
      '__proto__',
      '',
      '.hidden',
      'x'.repeat(300),
    ];
    for (const name of names) {
      for (const address of ADDRESSES) {
        const { status, body } = await raw(dashboard, `/api/runs/${name}${address}`);
        expect([name, address, status < 500]).toEqual([name, address, true]);
        expect(body).not.toContain('SECRET');
        if (name !== '.' && name !== '') expect([name, address, status]).toEqual([name, address, 404]);
      }
    }
    for (const address of ADDRESSES) {
      const { body } = await raw(dashboard, `/api/runs/a${address}`).catch(() => ({ body: '' }));
      expect(body).not.toContain('SECRET');
      expect(body).not.toContain(outside);
    }
    expect((await raw(dashboard, '/api/runs/a/config')).status).toBe(403);
    for (const path of [
      '/assets/../../package.json',
      '/assets/%2e%2e/%2e%2e/package.json',
      '/assets//etc/passwd',
      '/assets/..%2f..%2fpackage.json',
    ]) {
      expect((await raw(dashboard, path)).body).not.toContain('"dependencies"');
    }
    await isAlive(dashboard);
  });

  it('that are no regular files are refused without waiting for them', async () => {
    const runs = temporaryFolder();
    for (const file of [
      'warmup.jsonl',
      'events.jsonl',
      'status.json',
      'hardware.jsonl',
      'log.txt',
      'answers.jsonl',
      'summary.json',
    ]) {
      const { metrics } = makeRun(runs, `pipe-${file}`);
      execFileSync('mkfifo', [join(metrics, file)]);
      const folder = makeRun(runs, `folder-${file}`);
      mkdirSync(join(folder.metrics, file));
    }
    const { root } = makeRun(runs, 'pipe-config');
    rmSync(join(root, 'config.yaml'));
    execFileSync('mkfifo', [join(root, 'config.yaml')]);
    mkdirSync(join(root, 'bank'));
    execFileSync('mkfifo', [join(root, 'bank', 'CURRENT')]);
    const dashboard = await serve(runs);
    const list = await dashboard.json<RunSummary[]>('/api/runs');
    expect(list.find(({ run }) => run === 'pipe-warmup.jsonl')?.problem).toBe('warmup.jsonl is no regular file');
    for (const { run } of list) {
      for (const address of ADDRESSES) {
        const response = await dashboard.get(`/api/runs/${run}${address}`).catch(() => undefined);
        expect([run, address, response === undefined || response.status < 500]).toEqual([run, address, true]);
        await response?.text().catch(() => '');
      }
    }
    await isAlive(dashboard);
  }, 20_000);
});

describe('broken files', () => {
  it.each([
    ['no JSON', 'warmup.jsonl', `${linesOf(rowsOf(3))}{oops\n${linesOf(rowsOf(3, { first: 5 }))}`],
    ['only half a row', 'warmup.jsonl', '{"step":1,'],
    ['rows of other types', 'warmup.jsonl', '[1]\n"a"\nnull\n3\n'],
    ['bytes', 'warmup.jsonl', Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256))],
    ['a huge line', 'warmup.jsonl', `{"step":1,"a":"${'x'.repeat(20 * 2 ** 20)}"}\n`],
    ['deep nesting', 'warmup.jsonl', `${'['.repeat(200_000)}\n`],
    ['no status', 'status.json', '{"version":7}'],
    ['no mapping', '../config.yaml', '- a\n- b\n'],
    ['no YAML', '../config.yaml', '{{{: ]'],
    [
      'aliases that unfold',
      '../config.yaml',
      `a: &a [1,1,1,1,1,1,1,1,1]\n${'bcdefghij'
        .split('')
        .map((n, i) => `${n}: &${n} [${Array(9).fill(`*${'abcdefghij'[i]}`)}]`)
        .join('\n')}\n`,
    ],
    ['no events', 'events.jsonl', '{"time":"x"}\nnot\n{"time":1,"kind":"start","text":"good"}\n'],
    ['no answers', 'answers.jsonl', 'not\n{"time":1}\n'],
  ])(
    'with %s give an error for that run alone',
    async (_, file, content) => {
      const runs = temporaryFolder();
      const { metrics } = makeRun(runs, 'broken', { warmup: rowsOf(3) });
      makeRun(runs, 'good', { warmup: rowsOf(3) });
      writeFileSync(join(metrics, file), content);
      const dashboard = await serve(runs);
      const list = await dashboard.json<RunSummary[]>('/api/runs');
      expect(list.find(({ run }) => run === 'good')).toMatchObject({
        step: 3,
        steps: 150,
        tags: ['small', 'true'],
        notes: 'a note',
      });
      for (const address of ADDRESSES) {
        const response = await dashboard.get(`/api/runs/broken${address}`).catch(() => undefined);
        const body = await response?.text().catch(() => '');
        expect([address, response === undefined || response.status < 500, body]).toEqual([address, true, body]);
        expect(body).not.toContain(runs);
      }
      const isShown = ['events.jsonl', 'answers.jsonl'].includes(file) || content === '{"step":1,';
      if (!isShown) expect((await dashboard.json<RunSummary>('/api/runs/broken')).problem).toBeTypeOf('string');
      await isAlive(dashboard);
    },
    20_000,
  );
});

describe('requests', () => {
  it('beyond their limits are refused', async () => {
    const runs = temporaryFolder();
    makeRun(runs, 'a', { warmup: rowsOf(3) });
    const dashboard = await serve(runs);
    const queries = [
      'points=1e9',
      'points=4001',
      'points=-1',
      'points=x',
      'x=nothing',
      'from=x',
      'from=5&to=1',
      `keys=${Array.from({ length: 200 }, (_, i) => i)}`,
    ];
    for (const query of queries)
      expect([query, (await dashboard.get(`/api/runs/a/series?${query}`)).status]).toEqual([query, 400]);
    expect((await dashboard.get('/api/runs/a/series?keys=train/loss&from=-1e308&to=1e308')).status).toBe(200);
    for (const path of [
      'events?limit=1e9',
      'log?lines=0',
      'media?limit=1e6',
      'memories?limit=1e6',
      `memories?text=${'a'.repeat(1001)}`,
      'answers?limit=-1',
      'answers/x',
    ]) {
      expect([path, (await dashboard.get(`/api/runs/a/${path}`)).status]).toEqual([path, 400]);
    }
    expect((await dashboard.get(`/api/runs/a/series?keys=${'a'.repeat(9000)}`)).status).toBe(413);
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])
      expect((await raw(dashboard, '/api/runs', {}, method)).status).toBe(405);
    expect((await dashboard.get('/api/nothing')).status).toBe(404);
    await isAlive(dashboard);
  });

  it('get headers that let the browser do nothing else, and errors without insides', async () => {
    const dashboard = await serve(temporaryFolder());
    for (const path of ['/', '/api/runs', '/api/runs/none', '/assets/uPlot.esm.js', '/assets/none']) {
      const { headers } = await dashboard.get(path);
      expect(headers.get('content-security-policy')).toContain(
        "default-src 'none'; script-src 'self'; style-src 'self'",
      );
      expect(headers.get('content-security-policy')).not.toContain('unsafe');
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('referrer-policy')).toBe('no-referrer');
    }
    const error = await (await dashboard.get('/api/runs/none')).text();
    expect(JSON.parse(error)).toEqual({ error: { code: 'run_unknown', message: 'there is no such run' } });
  });

  it('for another host are refused, as a page from elsewhere would send them', async () => {
    const dashboard = await serve(temporaryFolder());
    const port = new URL(dashboard.address).port;
    for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1.evil.example'])
      expect([host, (await raw(dashboard, '/api/runs', { host })).status]).toEqual([host, 403]);
    for (const host of [`localhost:${port}`, `127.0.0.1:${port}`])
      expect((await raw(dashboard, '/api/runs', { host })).status).toBe(200);
  });

  it('need the token of the link on another host; it goes into a cookie', async () => {
    const dashboard = await serve(temporaryFolder(), { host: '0.0.0.0' });
    // Others cannot open an address that stands for all of them.
    expect(dashboard.addresses.filter((address) => /0\.0\.0\.0/.test(address))).toEqual([]);
    expect(dashboard.addresses.some((address) => address.startsWith('http://127.0.0.1:'))).toBe(true);
    const link = new URL(dashboard.address);
    link.hostname = '127.0.0.1';
    const get = (path: string, headers = {}) => fetch(new URL(path, link), { headers });
    expect((await get('/api/runs')).status).toBe(403);
    expect((await get('/?token=wrong')).status).toBe(403);
    expect((await get('/api/runs', { cookie: `memory3-${link.port}=wrong` })).status).toBe(403);
    const entered = await get(`/?token=${link.searchParams.get('token')}`);
    const cookie = entered.headers.get('set-cookie')!;
    expect(cookie).toMatch(/; Path=\/; HttpOnly; SameSite=Strict$/);
    expect(await entered.text()).toContain('<main');
    expect((await get('/api/runs', { cookie: cookie.split(';')[0]! })).status).toBe(200);
  });

  it('of clients that read nothing, half requests and many connections leave it answering', async () => {
    const runs = temporaryFolder();
    makeRun(runs, 'a', { warmup: rowsOf(40_000) });
    const dashboard = await serve(runs);
    const { port } = new URL(dashboard.address);
    const sockets = Array.from({ length: 120 }, (_, i) => {
      const socket = connect(Number(port), '127.0.0.1');
      socket.on('error', () => undefined);
      socket.pause();
      const path = [
        `/api/runs/a/export.csv?keys=train/loss,${Array.from({ length: 98 }, (_, key) => key)}`,
        '/api/runs/a/live',
        '/api/live',
      ][i % 3];
      socket.write(
        i % 4 === 3 ? 'GET /api/runs HTTP/1.1\r\nHost: 127' : `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`,
      );
      return socket;
    });
    await sleep(300);
    await isAlive(dashboard);
    expect((await dashboard.get('/api/runs/a/export.csv?keys=train/loss')).status).toBe(429);
    for (const socket of sockets) socket.destroy();
    await sleep(200);
    const whole = await (await dashboard.get('/api/runs/a/export.csv?keys=train/loss')).text();
    expect(whole.split('\n')).toHaveLength(40_002);
  });
});
