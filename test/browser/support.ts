/** A real browser that looks at a real dashboard. */

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { describe, expect } from 'vitest';
import { Running } from '../e2e/support.ts';

const BROWSER = process.env.MEMORY3_BROWSER ?? '/usr/bin/chromium';
const hasBrowser = existsSync(BROWSER) && spawnSync(BROWSER, ['--version']).status === 0;
if (!hasBrowser) {
  process.stderr.write(`skipped: no browser at ${BROWSER}; bash scripts/setup_browser.sh installs one\n`);
}

/** Tests that need a browser; skipped where there is none. */
export const describeInBrowser = describe.skipIf(!hasBrowser);

/** `memory3 dashboard` on a folder of runs, on a port that stays the same when it is started again. */
export class ServedDashboard {
  readonly address: string;
  readonly #args: string[];
  #process: Running;

  private constructor(args: string[], port: number) {
    this.#args = args;
    this.address = `http://127.0.0.1:${port}`;
    this.#process = new Running(args);
  }

  static async start(runs: string, ...options: string[]): Promise<ServedDashboard> {
    const port = await freePort();
    const served = new ServedDashboard(['dashboard', runs, '--port', String(port), ...options], port);
    await served.#answers();
    return served;
  }

  /** The links that it printed. */
  get links(): string[] {
    return this.#process.stdout.match(/http:\S+/g) ?? [];
  }

  async stop(): Promise<void> {
    this.#process.kill('SIGTERM');
    const { code, stderr } = await this.#process.outcome;
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  }

  async startAgain(): Promise<void> {
    this.#process = new Running(this.#args);
    await this.#answers();
  }

  async #answers(): Promise<void> {
    let hasEnded = false;
    void this.#process.outcome.finally(() => {
      hasEnded = true;
    });
    while (!this.#process.stdout.includes(this.address)) {
      if (hasEnded) throw new Error(`the dashboard ended: ${this.#process.stderr}`);
      await new Promise((next) => setTimeout(next, 20));
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

export async function launch(): Promise<Browser> {
  // The sandbox needs rights that containers do not give.
  return await chromium.launch({ executablePath: BROWSER, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
}

/** A page that keeps what went wrong in it. */
export class Watched {
  readonly page: Page;
  /** Errors of scripts, of the content security policy, and of what was fetched. */
  readonly problems: string[] = [];
  readonly #base: string;

  private constructor(page: Page, base: string) {
    this.page = page;
    this.#base = base;
    page.setDefaultTimeout(15_000);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.problems.push(message.text());
    });
    page.on('pageerror', (error) => this.problems.push(error.stack ?? error.message));
    page.on('dialog', (dialog) => {
      this.problems.push(`a dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on('request', (request) => {
      const isOwn = request.url().startsWith(base) || /^(blob|data):/.test(request.url());
      if (!isOwn) this.problems.push(`asked elsewhere: ${request.url()}`);
    });
  }

  static async open(browser: Browser, base: string, options: BrowserContextOptions = {}): Promise<Watched> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    return new Watched(await context.newPage(), base);
  }

  /** Goes to a page of the dashboard by its address, such as `#/run/tiny`. */
  async go(hash: string): Promise<void> {
    await this.page.goto('about:blank');
    await this.page.goto(`${this.#base}/${hash}`);
    await this.page.locator('main h1').waitFor();
  }

  /** Closes the page; fails when something went wrong in it. */
  async close(): Promise<void> {
    await this.page.context().close();
    expect(this.problems).toEqual([]);
  }
}

/** Waits until what is read is what is expected; pages are slow on a machine that does other work too. */
export function eventually<T>(read: () => T | Promise<T>, { timeout = 15_000 } = {}) {
  return expect.poll(read, { timeout });
}

/** The figure of a chart or of media, by its title. */
export function figure(page: Page, title: string) {
  return page.locator(`figure[aria-label="${title}"]`);
}

/** What a chart shows, from its table: a row a point, cells as texts. */
export async function chartTable(page: Page, title: string): Promise<string[][]> {
  const details = figure(page, title).locator('details');
  if ((await details.getAttribute('open')) === null) await details.locator('summary').click();
  await details.locator('table').waitFor();
  return await details
    .locator('tbody tr')
    .evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
}

/** A number of a page: `1,234.5` and `12.5 %` and `1.2k` alike. */
export function numberOf(text: string): number {
  const [, digits = 'NaN', unit = ''] = /^≠? ?(-?[\d,.]+(?:e-?\d+)?)\s*([kMGT%]?)/.exec(text.trim()) ?? [];
  const scale = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, '%': 0.01 }[unit] ?? Number.NaN;
  return Number(digits.replaceAll(',', '')) * scale;
}
