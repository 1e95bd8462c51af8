/** The lint rule that keeps imports going down the house. */

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let source: string;
beforeEach(() => {
  source = mkdtempSync(join(tmpdir(), 'memory3-imports-'));
});
afterEach(() => rmSync(source, { recursive: true }));

function check(files: Record<string, string>): { status: number | null; stderr: string } {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(source, path)), { recursive: true });
    writeFileSync(join(source, path), text);
  }
  return spawnSync('node', [resolve('scripts/check_imports.mjs'), source], { encoding: 'utf8' });
}

it('accepts imports that go down', () => {
  expect(check({ 'model/a.ts': "import { b } from '../ops/b.ts';", 'ops/b.ts': 'export const b = 1;' }).status).toBe(0);
});

it('refuses an upward import, a type of it, and a dynamic one', () => {
  for (const line of [
    "import { a } from '../model/a.ts';",
    "import type { A } from '../model/a.ts';",
    "const a = await import('../model/a.ts');",
  ]) {
    const { status, stderr } = check({ 'ops/b.ts': line });
    expect(status).toBe(1);
    expect(stderr).toContain('ops must not import model');
  }
});

it('refuses a room that the house does not have', () => {
  const { status, stderr } = check({ 'attic/a.ts': '' });
  expect(status).toBe(1);
  expect(stderr).toContain('attic is not a room');
});
