/** The example of docs/data.md, run as it stands there. */

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const ROOT = resolve(import.meta.dirname, '../..');
const page = readFileSync(join(ROOT, 'docs/data.md'), 'utf8');
const example = page.split('## A complete example')[1]?.split('\n## ')[0] ?? '';
const blocks = [...example.matchAll(/```(\w+)\n(.*?)```/gs)].map(([, language = '', text = '']) => ({
  language,
  text,
}));

let folder: string;
let output: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'memory3-docs-'));
  // The command is found by its name, as where it is installed.
  writeFileSync(join(folder, 'memory3'), `#!/bin/sh\nexec ${process.execPath} ${join(ROOT, 'bin/memory3.js')} "$@"\n`);
  chmodSync(join(folder, 'memory3'), 0o755);
  const env = { ...process.env, PATH: `${folder}${delimiter}${process.env.PATH}`, COLUMNS: '80' };
  const outputs = blocks.map(({ language, text }) => {
    if (language === 'sh') return execFileSync('sh', ['-ec', text], { cwd: folder, env, encoding: 'utf8' });
    const name = /^# (\S+\.yaml)\n/.exec(text)?.[1];
    if (name) writeFileSync(join(folder, name), text);
    return '';
  });
  output = outputs.join('');
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the example of docs/data.md', () => {
  it('has files, a configuration, commands and what is shown', () => {
    expect(blocks.map(({ language }) => language)).toEqual(['sh', 'yaml', 'sh', 'text']);
  });

  it('shows what the page says, in its order', () => {
    const lines = output.split('\n');
    let at = 0;
    for (const line of blocks
      .at(-1)!
      .text.split('\n')
      .filter((shown) => shown !== '')) {
      const found = lines.indexOf(line, at);
      expect(found, `after line ${at} of\n${output}\nthere is no line\n${line}`).toBeGreaterThanOrEqual(at);
      at = found + 1;
    }
  });

  it('writes the page of the report and verifies', () => {
    expect(existsSync(join(folder, 'report.html'))).toBe(true);
    expect(output).toContain('every checksum is right');
  });
});

it('the table of docs/data.md names every corpus with its size', async () => {
  const { CORPORA } = await import('../../src/data/fetch/fetch.ts');
  const rows = page.split('\n').map((line) => line.split('|').map((cell) => cell.trim()));
  for (const { name, megabytes } of CORPORA) {
    const row = rows.find((cells) => cells[1] === `\`${name}\``);
    expect(Number(row?.[4]), name).toBe(megabytes);
  }
});
