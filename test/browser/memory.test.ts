/** The pages about memories, answers and costs; all pages for those who see little, use keys, or have a narrow screen. */

import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Image } from '../../src/tracking/values.ts';
import { Playground, rows, succeed } from '../e2e/support.ts';
import { describeInBrowser, eventually, figure, launch, numberOf, ServedDashboard, Watched } from './support.ts';

const HOSTILE = '<img src=x onerror=alert(1)>';
/** Elements that make the page wider than the screen. */
const TOO_WIDE = `document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('main *')]
  .filter((element) => element.getBoundingClientRect().right > innerWidth && element.closest('.scroll, pre') === null)
  .map((element) => element.outerHTML.slice(0, 200))`;

/** What axe finds. */
interface Violation {
  id: string;
  impact: string;
  nodes: { target: string[]; failureSummary: string }[];
}

const SOURCE = 'https://example.org/hostile';

describeInBrowser('the dashboard of memories, answers and costs', () => {
  let playground: Playground;
  let dashboard: ServedDashboard;
  let browser: Browser;
  let watched: Watched;

  beforeAll(async () => {
    playground = new Playground();
    const references = join(playground.folder, 'hostile.jsonl');
    const lines = [
      { id: SOURCE, title: HOSTILE, text: `The zebra says ${HOSTILE} and runs.` },
      { id: 'javascript:alert(1)', title: '', text: 'The okapi stands in the wood.', url: 'javascript:alert(2)' },
      { id: 'quagga', title: '', text: 'The quagga is gone.', url: 'https://example.org/quagga?a=1&b=2' },
      ...Array.from({ length: 20 }, (_, i) => ({ id: `plain${i}`, title: `Plain ${i}`, text: `A plain number ${i}.` })),
    ];
    writeFileSync(references, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const tracking = [
      'attentionEvery=1',
      'retrievalsEvery=1',
      'histogramsEvery=3',
      'samples={every: 3, prompts: [zebra]}',
    ];
    const changes = [
      `data.references=[{path: ${join(playground.folder, 'references.jsonl')}}, {path: ${references}}]`,
      ...tracking.map((change) => `tracking.${change}`),
    ];
    await succeed('run', ...playground.args('finished', ...changes));
    await succeed('ask', ...playground.args('finished', ...changes), `The zebra ${HOSTILE}`);
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

  const bank = async (...args: string[]): Promise<Record<string, never>> =>
    JSON.parse((await succeed('bank', ...args, ...playground.args('finished'), '--json')).stdout.split('\n')[0]!);
  const continual = () => rows(playground.path('finished'), 'continual');

  it('tells how large the bank is and how it grew', async () => {
    const { page } = watched;
    await watched.go('#/memory/finished?smooth=0');
    const section = page.locator('section', { has: page.getByRole('heading', { name: 'Bank', exact: true }) });
    const { memories, version } = (await bank('stats')) as unknown as { memories: number; version: number };
    await eventually(() => section.innerText()).toContain(`${memories}`);
    expect(await section.locator('dd').allInnerTexts()).toEqual(
      expect.arrayContaining([String(memories), String(version), '2 layers × 1 key-value heads × 4 tokens × 8']),
    );
    const last = figure(page, 'References in the bank').locator('.legend .value');
    await eventually(() => last.innerText()).toBe(String(continual().at(-1)!['bank/references']));
  });

  it('shows attention on memories by layer and head at each step', async () => {
    const { page } = watched;
    await watched.go('#/memory/finished');
    const media = figure(page, 'memory/attention');
    const cells = () => media.locator('tbody td').allInnerTexts();
    const pictures = continual().flatMap((row) => {
      const image = row['memory/attention'] as unknown as Image | undefined;
      return image === undefined ? [] : [{ step: row.step + 6, image }];
    });
    expect(pictures.length).toBeGreaterThan(2);
    const { step, image } = pictures.at(-1)!;
    await eventually(() => media.locator('.where').innerText()).toBe(`step ${step}, continual`);
    expect((await cells()).map(Number)).toEqual(image.values.map((value) => Number(value.toFixed(3))));
    await media.getByRole('slider').fill('0');
    expect(await media.locator('.where').innerText()).toBe(`step ${pictures[0]!.step}, continual`);
    expect((await cells()).map(Number)).toEqual(pictures[0]!.image.values.map((value) => Number(value.toFixed(3))));
    // Distributions, too.
    await page.locator('.bars').first().waitFor();
    expect(await page.locator('.bars rect').count()).toBe(64);
  });

  it('finds a memory and shows which of its tokens are kept, as text and nothing else', async () => {
    const { page } = watched;
    await watched.go('#/memory/finished');
    await page.getByLabel('Search the bank').fill('zebra');
    await page.keyboard.press('Enter');
    const found = page.locator('.found a').first();
    await eventually(() => found.innerText()).toContain(HOSTILE);
    await found.click();
    const memory = page.locator('.memory');
    await memory.locator('.tokens').waitFor();
    expect(page.url()).toContain('text=zebra');
    const id = new URLSearchParams(new URL(page.url()).hash.split('?')[1]).get('memory')!;
    const truth = (await bank('get', id)) as unknown as { text: string; kept: number[]; keptLength: number };
    const text = async () =>
      (
        await memory
          .locator('.tokens')
          .evaluate((p) => [...p.children].map((piece) => piece.firstChild?.textContent ?? ''))
      ).join('');
    expect((await text()).trim()).toBe(truth.text.trim());
    const marked = () =>
      memory
        .locator('.tokens')
        .evaluate((p) => [...p.children].flatMap((piece, i) => (piece.tagName === 'MARK' ? [i] : [])));
    const all = [...new Set(truth.kept)].sort((a, b) => a - b);
    expect(await marked()).toEqual(all);
    // Two layers with a head each.
    const ofLastLayer = truth.kept.slice(truth.keptLength);
    await memory.getByLabel('Layer').selectOption('1');
    await memory.getByLabel('Head').selectOption('0');
    expect(await marked()).toEqual(ofLastLayer.sort((a, b) => a - b));
    expect(await memory.getByRole('link', { name: SOURCE }).first().getAttribute('href')).toBe(SOURCE);

    const count = continual().flatMap(
      (row) => (row['memory/retrievals'] as unknown as { chunks: { memories: { id: string }[] }[] }).chunks,
    );
    const retrieved = count.filter(({ memories }) => memories.some((one) => one.id === id)).length;
    expect(await memory.getByRole('heading', { level: 4 }).innerText()).toBe(`Retrieved ${retrieved} times`);

    await page.goBack();
    await eventually(() => memory.innerText()).toContain('Choose a memory');
    await page.goForward();
    await memory.locator('.tokens').waitFor();
    await page.getByLabel('Search the bank').fill('okapi');
    await page.keyboard.press('Enter');
    await eventually(() => found.innerText()).toContain('okapi');
    await found.click();
    await eventually(() => memory.innerText()).toContain('javascript:alert(1)');
    expect(await memory.getByRole('link').count()).toBe(0);
    await page.getByLabel('Search the bank').fill('quagga');
    await page.keyboard.press('Enter');
    await eventually(() => found.innerText()).toContain('quagga');
    await found.click();
    const source = memory.getByRole('link', { name: 'https://example.org/quagga?a=1&b=2' });
    expect(await source.getAttribute('href')).toBe('https://example.org/quagga?a=1&b=2');
    expect(await page.locator('main img').count()).toBe(0);
  });

  it('shows the trace of an answer with links to its memories', async () => {
    const { page } = watched;
    await watched.go('#/answers/finished');
    const [line] = readFileSync(playground.path('finished', 'metrics/answers.jsonl'), 'utf8').split('\n');
    const answer = JSON.parse(line!) as {
      prompt: string;
      text: string;
      trace: { text: string; memories: { id: string; share: number; text: string }[] }[];
    };
    const trace = page.locator('.trace');
    await trace.locator('.steps').waitFor();
    expect(await page.locator('.found a').innerText()).toContain(HOSTILE);
    expect(await trace.locator('.prompt').textContent()).toBe(answer.prompt);
    const chunks = trace.locator('.steps > li');
    expect(await chunks.count()).toBe(answer.trace.length);
    for (const [i, chunk] of answer.trace.entries()) {
      expect(await chunks.nth(i).locator('.chunk').textContent()).toBe(chunk.text);
      const shares = await chunks.nth(i).locator('.share').allInnerTexts();
      expect(shares).toHaveLength(chunk.memories.length);
      for (const [j, { share }] of chunk.memories.entries()) expect(numberOf(shares[j]!)).toBeCloseTo(share, 2);
    }
    const used = answer.trace.flatMap(({ memories }) => memories);
    expect(used.length).toBeGreaterThan(0);
    await trace.locator('.used a').first().click();
    await page.locator('.memory .tokens').waitFor();
    expect(page.url()).toContain(`memory=${used[0]!.id}`);
  });

  it('shows samples of training and what knowledge costs', async () => {
    const { page } = watched;
    await watched.go('#/run/finished');
    await page.locator('.sample').waitFor();
    await watched.go('#/cost/finished');
    const table = page.getByRole('region', { name: 'Cost of the formats' });
    await table.waitFor();
    const { stdout } = await succeed('cost', ...playground.args('finished'), '--json');
    const cost = JSON.parse(stdout) as {
      formats: { name: string; write: number; read: number }[];
      cheapest: { from: number };
    };
    const cells = (await table.locator('tbody td').allInnerTexts()).map(numberOf);
    cost.formats.forEach(({ write, read }, i) => {
      for (const [j, value] of [write, read].entries())
        expect(Math.abs(cells[2 * i + j]! - value)).toBeLessThanOrEqual(value / 100);
    });
    await page.locator('figure canvas').waitFor();
    expect(await page.locator('figure .plot').getAttribute('aria-label')).toContain('explicit memory between');
  });

  const PAGES = [
    '#/',
    '#/run/finished',
    '#/memory/finished?text=zebra',
    '#/answers/finished',
    '#/cost/finished',
    '#/compare?runs=finished',
  ];

  it('is free of serious accessibility faults, in both themes', async () => {
    const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    // The policy of the pages admits no script from elsewhere, not even this one.
    const options = { bypassCSP: true, colorScheme: 'light', reducedMotion: 'reduce' } as const;
    const checked = await Watched.open(browser, dashboard.address, options);
    const faults = async (asked: string): Promise<string[]> => {
      const { violations } = await checked.page.evaluate<{ violations: Violation[] }>(`axe.run(${asked})`);
      return violations
        .filter(({ impact }) => ['serious', 'critical'].includes(impact))
        .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target}: ${node.failureSummary}`)}`);
    };
    for (const hash of PAGES) {
      await checked.page.emulateMedia({ colorScheme: 'light' });
      await checked.go(hash);
      await eventually(() => checked.page.locator('.loading').count()).toBe(0);
      if (hash.startsWith('#/memory')) {
        await checked.page.locator('.found a').first().click();
        await checked.page.locator('.memory .tokens').waitFor();
      }
      const first = checked.page.locator('main details summary').first();
      if ((await first.count()) > 0) await first.click();
      await checked.page.evaluate(axe);
      expect(await faults("{ resultTypes: ['violations'] }"), hash).toEqual([]);
      // A theme changes colours and nothing else.
      await checked.page.emulateMedia({ colorScheme: 'dark' });
      expect(await faults("{ runOnly: ['color-contrast'] }"), `${hash}, dark`).toEqual([]);
    }
    await checked.close();
  });

  it('can be used by keys alone', async () => {
    const { page } = watched;
    await watched.go('#/');
    await page.keyboard.press('Tab');
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Skip to the content');
    await page.keyboard.press('Enter');
    const focused = async () =>
      await page.evaluate<string>(
        "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent",
      );
    const tabTo = async (name: string) => {
      for (let i = 0; i < 60; i++) {
        if ((await focused()).startsWith(name)) return;
        await page.keyboard.press('Tab');
      }
      throw new Error(`no way to ${name} by Tab`);
    };
    await tabTo('Compare finished');
    await page.keyboard.press('Space');
    await eventually(() => page.url()).toContain('picked=finished');
    await tabTo('finished');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name: 'finished' }).waitFor();
    await figure(page, 'Loss').locator('canvas').waitFor();
    // The focus went to the new page, so that the next step leads into it.
    await tabTo('Loss, line chart');
    const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
    expect(outline).toBe('solid');
    await page.keyboard.press('End');
    await eventually(() => figure(page, 'Loss').locator('[aria-live]').innerText()).toContain('step 12: loss');
  });

  it('keeps a chosen theme, and fits a narrow screen', async () => {
    const { page } = watched;
    await page.setViewportSize({ width: 400, height: 800 });
    for (const hash of PAGES) {
      await watched.go(hash);
      await page.locator('main h1').waitFor();
      await eventually(() => page.locator('.loading').count()).toBe(0);
      expect(await page.evaluate(TOO_WIDE), hash).toEqual([]);
    }
    await page.getByLabel('Theme').selectOption('dark');
    const paper = () => page.evaluate('getComputedStyle(document.body).backgroundColor');
    expect(await paper()).toBe('rgb(19, 23, 27)');
    await watched.go('#/');
    expect(await paper()).toBe('rgb(19, 23, 27)');
  });
});
