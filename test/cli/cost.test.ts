/** `memory3 cost`: the paper's numbers as the command prints them. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type CostReport, costReport, costText } from '../../src/analysis/cost_report.ts';
import { costShape, PUBLISHED_SHAPE } from '../../src/analysis/costs.ts';
import { main } from '../../src/cli/main.ts';
import { loadConfig } from '../../src/config/load.ts';
import { temporaryFolder } from '../data/support.ts';

const QUICKSTART = join(import.meta.dirname, '../../configs/quickstart.yaml');
const PAPER = join(import.meta.dirname, '../../configs/paper/2.4b.yaml');

let [output, errors] = ['', ''];
beforeEach(() => {
  [output, errors] = ['', ''];
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    output += String(text);
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    errors += String(text);
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  process.exitCode = undefined;
});

async function cost(...args: string[]): Promise<string> {
  output = '';
  await main(['cost', ...args]);
  return output;
}

describe('memory3 cost', () => {
  it("prints the paper's numbers for the paper's model (appendix A)", async () => {
    const text = await cost();
    expect(text).toMatch(/parameters +2\.24 +0\n/);
    expect(text).toMatch(/explicit memory +0\.308 +1\.44e-4\n/);
    expect(text).toMatch(/text in context +0 +0\.624\n/);
    expect(text).toContain('Explicit memory is the cheapest format for 0.494 < uses < 13,400.');
    expect(process.exitCode).toBeUndefined();
  });

  it('knows the shape that the configuration of the paper has', async () => {
    expect(costShape((await loadConfig(PAPER, {})).config)).toEqual(PUBLISHED_SHAPE);
    const [named, built] = [await cost('-c', PAPER), await cost()];
    expect(named.replace('memory3-2.4b', "the paper's model")).toBe(built);
  });

  it('tells the memory of a GPU that training takes', async () => {
    expect(await cost()).toMatch(/estimated \(engine: cuda, bfloat16\), by tokens of a micro-batch:\n/);
    expect(await cost()).toMatch(/warmup, recompute: false +8,192( +[\d.]+){5} +68\.9\n/);
    const run = await cost('-c', QUICKSTART, '--set', 'precision=float32', '--set', 'engine=native');
    expect(run).toMatch(/float32\), by tokens/);
    expect(run).toMatch(/continual, recompute: true +[\d,]+( +[\d.]+){6}/);
  });

  it('draws the curves, in plain ASCII where the terminal is dumb', async () => {
    vi.stubEnv('TERM', 'xterm');
    for (const name of ['LC_ALL', 'LC_CTYPE', 'LANG']) vi.stubEnv(name, 'en_US.UTF-8');
    expect(await cost()).toMatch(/┤.*▲/);
    vi.stubEnv('TERM', 'dumb');
    const text = await cost();
    expect(text).toMatch(/^[\x20-\x7e\n]*$/);
    expect(text).toMatch(/\+.*\^/);
  });

  it('compares the formats for a number of uses', async () => {
    const order = async (uses: string): Promise<string[]> => {
      const line = (await cost('--uses', uses)).split('\n').find((one) => one.startsWith('Used'))!;
      return [...line.matchAll(/parameters|explicit memory|text in context/g)].map(([name]) => name);
    };
    expect((await order('0.4'))[0]).toBe('text in context');
    expect((await order('0.6'))[0]).toBe('explicit memory');
    expect((await order('13000'))[0]).toBe('explicit memory');
    expect((await order('14000'))[0]).toBe('parameters');
  });

  it('gives all figures as JSON, of a run with what is changed in it', async () => {
    const report = JSON.parse(
      await cost('-c', QUICKSTART, '--set', 'memory.keptTokens=16', '--json', '--uses', '10'),
    ) as CostReport;
    expect(report.name).toBe('quickstart');
    expect(report.shape).toMatchObject({ numLayers: 4, keptTokens: 16, vocabSize: 768 });
    const [parameters, memory, text] = report.formats;
    expect(report.at).toEqual({
      uses: 10,
      parameters: parameters!.write,
      memory: memory!.write + 10 * memory!.read,
      text: 10 * text!.read,
    });
    // The curves cross where the command says.
    const { uses, totals, cheapest } = report;
    for (const [i, count] of uses.entries()) {
      const isCheapest = totals.memory[i]! < Math.min(totals.parameters[i]!, totals.text[i]!);
      expect(isCheapest, `${count} uses`).toBe(count > cheapest.from && count < cheapest.to!);
    }
    expect(uses.some((count) => count < cheapest.from) && uses.some((count) => count > cheapest.to!)).toBe(true);
  });

  it('says so where explicit memory is never the cheapest', () => {
    // Everything is kept in every layer, and long chunks read it.
    const shape = { ...PUBLISHED_SHAPE, memoryLayers: 44, keptTokens: 128, chunkLength: 100_000 };
    const text = costText(costReport('wasteful', shape, {}), { width: 80, ascii: true });
    expect(text).toContain('Explicit memory is the cheapest format for no number of uses.');
    expect(text).not.toContain(':   ');
  });

  it('draws a picture', async () => {
    const path = join(temporaryFolder(), 'cost.svg');
    await cost('--svg', path);
    const svg = readFileSync(path, 'utf8');
    for (const word of ['explicit memory', 'text in context', 'parameters', '0.494 uses', '13,400 uses']) {
      expect(svg, word).toContain(word);
    }
    expect(errors).toContain(path);
  });

  it.each([
    ['--uses', '0'],
    ['--uses', '-3'],
    ['--uses', 'many'],
    ['--set', 'memory.keptTokens=16'],
    ['--svg', join(QUICKSTART, 'cost.svg')],
  ])('refuses %s %s', async (...args) => {
    await cost(...args);
    expect(errors).toContain('error [usage_invalid]');
    expect(process.exitCode).toBe(2);
  });
});
