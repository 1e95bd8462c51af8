/** The pages about the numbers of runs: the list, the curves of one, several compared; finished and live. */

import { appendFileSync, cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, onTestFinished } from 'vitest';
import { time } from '../../src/dashboard/page/format.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import { RunTracker } from '../../src/tracking/run_tracker.ts';
import { type RunStatus, writeStatus } from '../../src/tracking/status.ts';
import { Playground, Running, rows, succeed } from '../e2e/support.ts';
import {
  chartTable,
  describeInBrowser,
  eventually,
  figure,
  launch,
  numberOf,
  ServedDashboard,
  Watched,
} from './support.ts';

const HOSTILE = '<img src=x onerror=alert(1)>';

describeInBrowser('the dashboard of finished and live runs', () => {
  let playground: Playground;
  let dashboard: ServedDashboard;
  let browser: Browser;
  let watched: Watched;

  beforeAll(async () => {
    playground = new Playground();
    await Promise.all([
      succeed('run', ...playground.args('finished', 'tracking.wandb.tags=[paper, small]')),
      succeed('run', ...playground.args('other', 'seed=7', 'warmup.steps=8')),
    ]);
    // A run with nothing in it yet but how it is configured.
    await mkdir(playground.path('waiting'));
    cpSync(playground.path('finished', 'config.yaml'), playground.path('waiting', 'config.yaml'));
    dashboard = await ServedDashboard.start(playground.runs);
    browser = await launch();
  });
  afterAll(async () => {
    await browser.close();
    await dashboard.stop();
    playground.remove();
  });
  beforeEach(async () => {
    watched = await Watched.open(browser, dashboard.address);
  });
  afterEach(async () => await watched.close());

  const finished = () => [
    ...rows(playground.path('finished'), 'warmup'),
    ...rows(playground.path('finished'), 'continual'),
  ];
  const losses = () => finished().map((row) => row['train/loss']!);

  it('lists runs with the values of their files; filters, sorts, and keeps that in the address', async () => {
    const { page } = watched;
    await watched.go('#/');
    const row = page.locator('tr', { has: page.getByRole('link', { name: 'finished', exact: true }) });
    const last = finished().at(-1)!;
    await eventually(() => row.innerText()).toContain('✓ finished');
    const text = await row.innerText();
    expect(text).toContain('12 / 12');
    expect(text).toContain(last['train/loss']!.toPrecision(4));
    expect(text).toContain(last['validation/loss']!.toPrecision(4));
    expect(text).toContain('paper');
    const names = () => page.locator('.runs tbody th a').allInnerTexts();
    expect((await names()).sort()).toEqual(['finished', 'other', 'waiting']);

    await page.getByRole('button', { name: 'Run', exact: true }).click();
    expect(await names()).toEqual(['finished', 'other', 'waiting']);
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    expect(await names()).toEqual(['waiting', 'other', 'finished']);
    await page.getByLabel('Find').fill('small');
    expect(await names()).toEqual(['waiting', 'finished']);
    await page.getByLabel('Find').fill('');
    await page.getByLabel('State').selectOption('finished');
    expect(await names()).toEqual(['other', 'finished']);
    await page.getByRole('combobox', { name: 'Tag' }).selectOption('paper');
    expect(await names()).toEqual(['finished']);

    await watched.go(new URL(page.url()).hash);
    expect(await names()).toEqual(['finished']);
    expect(page.url()).toContain('sort=-run');
  });

  it('lays the curves of ticked runs over each other', async () => {
    const { page } = watched;
    await watched.go('#/');
    await page.getByLabel('Compare finished').check();
    await page.getByLabel('Compare other').check();
    await page.getByRole('link', { name: 'Compare 2' }).click();
    await page.locator('.smoothing, input[type=range]').first().fill('0');
    const chart = figure(page, 'train/loss');
    await chart.locator('canvas').waitFor();
    expect(await chart.locator('.legend button').allInnerTexts()).toEqual(['finished', 'other']);
    const table = await chartTable(page, 'train/loss');
    expect(table).toHaveLength(14);
    const others = [...rows(playground.path('other'), 'warmup'), ...rows(playground.path('other'), 'continual')];
    expect(table.slice(0, 12).map(([, mine]) => mine)).toEqual(losses().map((loss) => loss.toPrecision(4)));
    expect(table.map(([, , theirs]) => theirs)).toEqual(others.map((row) => row['train/loss']!.toPrecision(4)));

    await page.getByText('Which curves').click();
    await page.getByRole('checkbox', { name: 'train/gradient_norm' }).check();
    await figure(page, 'train/gradient_norm').locator('canvas').waitFor();
    await page.getByRole('checkbox', { name: 'train/loss' }).uncheck();
    await eventually(() => chart.count()).toBe(0);
    await page.getByLabel('x axis').selectOption('tokens');
    await eventually(async () => (await chartTable(page, 'train/gradient_norm'))[0]?.[0]).toBe('64');
    expect(page.url()).toContain('keys=validation/loss,train/gradient_norm');
  });

  it('follows the runs that it compares, whatever they are called', async () => {
    const { page } = watched;
    const name = 'größe #1, 100%';
    const from = playground.path('other', 'metrics/warmup.jsonl');
    await mkdir(playground.path(name, 'metrics'), { recursive: true });
    cpSync(playground.path('finished', 'config.yaml'), playground.path(name, 'config.yaml'));
    cpSync(from, playground.path(name, 'metrics/warmup.jsonl'));
    await watched.go('#/');
    await page.getByLabel(`Compare ${name}`, { exact: true }).check();
    await page.getByLabel('Compare finished').check();
    await page.getByRole('link', { name: 'Compare 2' }).click();
    const legend = () => figure(page, 'train/loss').locator('.legend').allInnerTexts();
    await eventually(legend).toEqual([expect.stringContaining(name)]);
    await eventually(() => page.locator('#connection').innerText()).toBe('live');
    const row = { step: 9, 'time/unix_s': 1, 'train/loss': 77.5, 'train/tokens': 1 };
    appendFileSync(playground.path(name, 'metrics/warmup.jsonl'), `${JSON.stringify(row)}\n`);
    await eventually(() => page.getByRole('region', { name: 'Last values' }).innerText()).toContain('77.50');
    await page.locator('input[type=range]').first().fill('0');
    await eventually(legend).toEqual([expect.stringContaining('77.50')]);
    await page.getByRole('link', { name, exact: true }).click();
    await page.getByRole('heading', { level: 1, name }).waitFor();
    await figure(page, 'Loss').locator('canvas').waitFor();
    rmSync(playground.path(name), { recursive: true });
    await watched.go('#/');
    await eventually(() => page.getByRole('link', { name, exact: true }).count()).toBe(0);
  });

  it('asks for each curve once, and lets go of its stream while it is hidden', async () => {
    const { page } = watched;
    const asked: string[] = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    const count = (path: string) => asked.filter((one) => one.endsWith(path)).length;
    await watched.go('#/run/finished');
    await figure(page, 'Loss').locator('canvas').waitFor();
    await eventually(() => page.locator('#connection').innerText()).toBe('live');
    await new Promise((next) => setTimeout(next, 1500));
    expect([count('/series'), count('/live')]).toEqual([1, 1]);
    const hide = async (isHidden: boolean) =>
      await page.evaluate(
        `Object.defineProperty(document, 'hidden', { value: ${isHidden}, configurable: true }); document.dispatchEvent(new Event('visibilitychange'))`,
      );
    const gone = page.waitForEvent('requestfailed', (request) => request.url().endsWith('/live'));
    await hide(true);
    await gone;
    await hide(false);
    await eventually(() => count('/live')).toBe(2);
    // What came in between was not told.
    await eventually(() => count('/series')).toBe(2);
  });

  it('shows the load of days without asking again and again', async () => {
    const { page } = watched;
    const folder = new RunFolder(playground.path('days'));
    cpSync(playground.path('finished'), folder.root, { recursive: true });
    const load = Array.from({ length: 40_000 }, (_, i) => ({
      ...{ time: 1.7e9 + 10 * i, 'hardware/cpu_percent': i % 100, 'hardware/process_rss_bytes': 1e9 + i },
    }));
    writeFileSync(folder.hardware, load.map((row) => `${JSON.stringify(row)}\n`).join(''));
    let asked = 0;
    page.on('request', (request) => {
      asked += Number(new URL(request.url()).pathname.endsWith('/hardware'));
    });
    await watched.go('#/run/days');
    await page.getByText('Drawn from samples').waitFor();
    await new Promise((next) => setTimeout(next, 4500));
    expect(asked).toBe(1);
    const table = await chartTable(page, 'Load');
    expect([table[0]![0], table.at(-1)![0]]).toEqual([time(1.7e9), expect.stringMatching(/^2023-11-19 /)]);
    rmSync(folder.root, { recursive: true });
  });

  it('opens to others by the printed link alone, which leads to what was linked', async () => {
    const shared = await ServedDashboard.start(playground.runs, '--host', '0.0.0.0');
    onTestFinished(async () => await shared.stop());
    const link = shared.links[0]!;
    expect(link).toMatch(/^http:\/\/[\d.]+:\d+\/\?token=[\w-]{32}$/);
    const { origin } = new URL(link);
    for (const path of ['/', '/api/runs', '/assets/main.js', '/?token=wrong'])
      expect([path, (await fetch(`${origin}${path}`)).status]).toEqual([path, 403]);
    const guest = await Watched.open(browser, origin);
    await guest.page.goto(`${link}#/run/finished?smooth=0`);
    await figure(guest.page, 'Loss').locator('canvas').waitFor();
    expect(guest.page.url()).toBe(`${origin}/#/run/finished?smooth=0`);
    await eventually(() => guest.page.locator('#connection').innerText()).toBe('live');
    expect(await guest.page.evaluate('document.cookie')).toBe('');
    // The browser keeps it: from now on addresses without a token do.
    await guest.go('#/run/other');
    await figure(guest.page, 'Loss').locator('canvas').waitFor();
    await guest.close();
    const stranger = await Watched.open(browser, origin);
    await stranger.page.goto(`${origin}/#/run/finished`);
    expect(await stranger.page.locator('body').innerText()).toContain('token_missing');
    await stranger.page.context().close();
  });

  it('draws the curves of both stages with the values of the files', async () => {
    const { page } = watched;
    await watched.go('#/run/finished?smooth=0');
    const expected = losses().map((loss) => loss.toPrecision(4));
    const table = await chartTable(page, 'Loss');
    expect(table).toEqual(expected.map((loss, i) => [String(i + 1), loss]));
    expect(await figure(page, 'Loss').locator('.plot').getAttribute('aria-label')).toContain('continual from 7');

    const validation = await chartTable(page, 'Validation loss');
    const validated = finished().flatMap((row, i) =>
      row['validation/loss'] === undefined
        ? []
        : [
            [
              String(i + 1),
              row['validation/loss'].toPrecision(4),
              row['validation/loss_without_memory']?.toPrecision(4) ?? '',
            ],
          ],
    );
    expect(validation).toEqual(validated);
    const rates = await chartTable(page, 'Learning rate');
    expect(rates.map(([, rate]) => Number(rate))).toEqual(
      finished().map((row) => Number(row['train/learning_rate']!.toPrecision(4))),
    );
    const shares = await chartTable(page, 'Share of time');
    const parts = ['data', 'retrieval', 'prepare', 'compute'];
    finished().forEach((row, i) => {
      const times = parts.map((part) => Math.max(0, row[`time/${part}_ms`]!));
      const total = times.reduce((sum, time) => sum + time);
      for (const [j, time] of times.entries()) expect(numberOf(shares[i]![j + 1]!)).toBeCloseTo(time / total, 2);
    });

    // Smoothed, the line is no longer the rows.
    await page.getByLabel('Smoothing').fill('0.9');
    await eventually(async () => (await chartTable(page, 'Loss')).at(-1)?.[1]).not.toBe(expected.at(-1));
    await page.getByLabel('log y').check();
    await page.getByLabel('x axis').selectOption('time');
    await eventually(async () => (await chartTable(page, 'Loss'))[0]?.[0]).toBe('0 s');
    expect(page.url()).toContain('x=time');
  });

  it('zooms into what is dragged over, and out again', async () => {
    const { page } = watched;
    await watched.go('#/run/finished?smooth=0');
    await chartTable(page, 'Loss');
    const over = figure(page, 'Loss').locator('.u-over');
    const box = (await over.boundingBox())!;
    const drag = async (from: number, to: number) => {
      await page.mouse.move(box.x + from * box.width, box.y + 40);
      await page.mouse.down();
      await page.mouse.move(box.x + to * box.width, box.y + 60, { steps: 4 });
      await page.mouse.up();
    };
    await drag(0.3, 0.7);
    await eventually(() => page.url()).toMatch(/from=4\.[23]\d*&to=8\.[67]/);
    const steps = async (title: string) => (await chartTable(page, title)).map(([step]) => Number(step));
    await eventually(() => steps('Loss')).toEqual([5, 6, 7, 8]);
    // The charts of a page show one range.
    expect(await steps('Gradient norm')).toEqual([5, 6, 7, 8]);
    await watched.go(new URL(page.url()).hash);
    await eventually(() => steps('Loss')).toEqual([5, 6, 7, 8]);
    await over.dblclick();
    await eventually(() => steps('Loss')).toHaveLength(12);
    expect(page.url()).not.toContain('from=');
    await page.getByRole('spinbutton', { name: 'from' }).fill('11');
    await page.keyboard.press('Tab');
    await eventually(() => steps('Loss')).toEqual([11, 12]);
    await page.getByRole('button', { name: 'Show all' }).click();
    await eventually(() => steps('Loss')).toHaveLength(12);
  });

  it('moves one cursor over all charts, by mouse and by keys', async () => {
    const { page } = watched;
    await watched.go('#/run/finished?smooth=0');
    await chartTable(page, 'Loss');
    const value = (title: string) => figure(page, title).locator('.legend .value').first().innerText();
    const over = figure(page, 'Loss').locator('.u-over');
    const box = (await over.boundingBox())!;
    await page.mouse.move(box.x + box.width * (3 / 11), box.y + 50);
    await eventually(() => value('Loss')).toBe(losses()[3]!.toPrecision(4));
    expect(Number(await value('Learning rate'))).toBe(Number(finished()[3]!['train/learning_rate']!.toPrecision(4)));
    await page.mouse.move(5, 5);
    await eventually(() => value('Loss')).toBe(losses()[11]!.toPrecision(4));

    await figure(page, 'Gradient norm').locator('.plot').focus();
    await page.keyboard.press('Home');
    await page.keyboard.press('ArrowRight');
    expect(await value('Loss')).toBe(losses()[1]!.toPrecision(4));
    const spoken = figure(page, 'Gradient norm').locator('[aria-live]');
    expect(await spoken.innerText()).toContain(
      `step 2: train/gradient_norm ${finished()[1]!['train/gradient_norm']!.toPrecision(4)}`,
    );
    await page.keyboard.press('+');
    await eventually(() => page.url()).toContain('from=');
    await page.keyboard.press('Escape');
    await eventually(() => page.url()).not.toContain('from=');
  });

  it('exports what it shows', async () => {
    const { page } = watched;
    await watched.go('#/run/finished');
    const chart = figure(page, 'Loss');
    await chart.locator('canvas').waitFor();
    const [csv] = await Promise.all([page.waitForEvent('download'), chart.getByRole('link', { name: 'CSV' }).click()]);
    const lines = (await readFile(await csv.path(), 'utf8')).trimEnd().split('\n');
    const at = lines[0]!.split(',').indexOf('train/loss');
    expect(lines.slice(1).map((line) => Number(line.split(',')[at]))).toEqual(losses());
    const [png] = await Promise.all([
      page.waitForEvent('download'),
      chart.getByRole('button', { name: 'PNG' }).click(),
    ]);
    expect(png.suggestedFilename()).toBe('Loss.png');
    const picture = await readFile(await png.path());
    expect(picture.subarray(1, 4).toString()).toBe('PNG');
    expect(picture.readUInt32BE(16)).toBeGreaterThan(800);
  });

  it('shows configuration with what differs, events, log, sinks and final values', async () => {
    const { page } = watched;
    await watched.go('#/run/finished');
    const config = page.locator('section', { has: page.getByRole('heading', { name: 'Configuration' }) });
    await config.getByLabel('Find').fill('warmup.steps');
    await eventually(() => config.locator('tbody tr').first().innerText()).toContain('6');
    await config.getByLabel('Find').fill('');
    await config.getByLabel('Compare with').selectOption('other');
    const differing = () =>
      config
        .locator('tbody tr')
        .evaluateAll((all) => all.map((row) => [...row.children].map((cell) => cell.textContent)));
    await eventually(differing).toContainEqual(['warmup.steps', '6', '≠ 8']);
    const found = await differing();
    expect(found).toContainEqual(['seed', expect.any(String), '≠ 7']);
    expect(found.map(([path]) => path)).not.toContain('model.numLayers');

    const events = page.locator('.events');
    const written = readFileSync(playground.path('finished', 'metrics/events.jsonl'), 'utf8').trimEnd().split('\n');
    await eventually(() => events.locator('li').count()).toBe(written.length);
    await page.getByLabel('Kind').selectOption('checkpoint');
    const visible = events.locator('li:visible');
    expect(await visible.count()).toBe(written.filter((line) => line.includes('"checkpoint"')).length);
    const log = readFileSync(playground.path('finished', 'metrics/log.txt'), 'utf8').trimEnd().split('\n');
    await eventually(() => page.locator('.log').innerText()).toContain(log.at(-1));
    expect(await page.getByText('The run is recorded in its own files alone.').count()).toBe(1);
    const summary = JSON.parse(readFileSync(playground.path('finished', 'metrics/summary.json'), 'utf8')) as object;
    const final = page.locator('section', { has: page.getByRole('heading', { name: 'Final values' }) });
    expect(await final.locator('tbody th').allInnerTexts()).toEqual(Object.keys(summary));
  });

  it('follows a run while rows, events and lines come, also over a dashboard that was away', async () => {
    const { page } = watched;
    const folder = new RunFolder(playground.path('live'));
    await mkdir(folder.root);
    cpSync(playground.path('finished', 'config.yaml'), folder.config);
    const tracker = await RunTracker.open(folder);
    await tracker.beginStage('warmup', 0);
    const now = Date.now() / 1000;
    const status: RunStatus = {
      version: 1,
      state: 'running',
      command: 'run',
      pid: 1,
      host: 'here',
      startedAt: now,
      beatAt: now,
      sinks: [],
    };
    await writeStatus(folder.status, status);
    const step = (at: number, loss: number) => {
      tracker.log({ 'train/loss': loss, 'train/tokens': at * 64, 'train/tokens_per_s': 1000 }, at);
      tracker.commit();
    };
    step(1, 5.5);
    await watched.go('#/run/live?smooth=0');
    const last = () => figure(page, 'Loss').locator('.legend .value').innerText();
    await eventually(last).toBe('5.500');
    await eventually(() => page.locator('#connection').innerText()).toBe('live');
    expect(await page.locator('.head').innerText()).toContain('running');

    step(2, 4.25);
    tracker.event('warning', HOSTILE, 2);
    tracker.line(`line one ${HOSTILE}`);
    await eventually(last).toBe('4.250');
    expect(await page.locator('.events li').first().innerText()).toContain(HOSTILE);
    await eventually(() => page.locator('.log').innerText()).toContain(`line one ${HOSTILE}`);
    await page.getByLabel('Follow').uncheck();
    tracker.line('line two');

    await dashboard.stop();
    await eventually(() => page.locator('#connection').innerText()).toContain('connection lost');
    step(3, 3.125);
    tracker.event('growth', 'grown while it was away', 3);
    await dashboard.startAgain();
    await eventually(() => page.locator('#connection').innerText()).toBe('live');
    await eventually(last).toBe('3.125');
    expect(await page.locator('.log').innerText()).not.toContain('line two');
    await eventually(() => page.locator('.events li').first().innerText()).toContain('grown while it was away');
    await page.getByLabel('Follow').check();
    await eventually(() => page.locator('.log').innerText()).toContain('line two');
    // What the browser says about the server that was away is no fault of the page.
    watched.problems.splice(
      0,
      watched.problems.length,
      ...watched.problems.filter((text) => !/ERR_|Failed to load/.test(text)),
    );

    await writeStatus(folder.status, { ...status, state: 'stopped' });
    step(4, 3);
    await eventually(() => page.locator('.head').innerText()).toContain('stopped');
    await tracker.close();
  });

  it('shows a real run from its start to its end', async () => {
    const { page } = watched;
    await watched.go('#/');
    const run = new Running(['run', ...playground.args('real', 'warmup.steps=60', 'evaluation.maxQuestions=1')]);
    const row = page.locator('tr', { has: page.getByRole('link', { name: 'real', exact: true }) });
    await eventually(() => row.count(), { timeout: 30_000 }).toBe(1);
    await eventually(() => row.innerText(), { timeout: 30_000 }).toContain('running');
    await row.getByRole('link').click();
    await figure(page, 'Loss').locator('canvas').waitFor({ timeout: 30_000 });
    const { code, stderr } = await run.outcome;
    expect(code, stderr).toBe(0);
    await eventually(() => page.locator('.head').innerText()).toContain('finished');
    await page.locator('input[type=range]').first().fill('0');
    const loss = rows(playground.path('real'), 'continual').at(-1)!['train/loss']!;
    await eventually(() => figure(page, 'Loss').locator('.legend .value').innerText()).toBe(loss.toPrecision(4));
    // Keys of the second stage came while it was looked at.
    await figure(page, 'Validation loss').getByRole('button', { name: 'without memory' }).waitFor();
  });

  it('says what is wrong: no such run, a damaged file, no rows', async () => {
    const { page } = watched;
    await page.goto(`${dashboard.address}/#/run/nowhere`);
    await page.getByRole('alert').waitFor();
    expect(await page.getByRole('alert').innerText()).toContain('run_unknown');
    watched.problems.length = 0;
    await watched.go('#/run/waiting');
    await eventually(() => page.locator('main').innerText()).toContain('No rows yet');
    appendFileSync(join(playground.path('other'), 'metrics/warmup.jsonl'), 'no row\n');
    await watched.go('#/');
    const row = page.locator('tr', { has: page.getByRole('link', { name: 'other', exact: true }) });
    await eventually(() => row.innerText()).toMatch(/warmup\.jsonl/);
  });
});
