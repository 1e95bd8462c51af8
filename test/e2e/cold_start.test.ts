/** A run whose references are written when they are first found. */

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fail, Playground, succeed } from './support.ts';

let playground: Playground;
let args: string[];
beforeAll(async () => {
  playground = new Playground();
  args = playground.args('cold');
  await succeed('data', 'build', ...args);
  await succeed('warmup', ...args);
  await succeed('continual', ...args);
});
afterAll(() => playground.remove());

const stats = async (): Promise<{ memories: number; version: number }> =>
  JSON.parse((await succeed('bank', 'stats', ...args, '--json')).stdout);

describe('a cold start', () => {
  it('begins with an empty bank, which each answer fills with what it finds', async () => {
    const ready = await succeed('compile', ...args, '--cold');
    expect(ready.stderr).toMatch(/ready for `ask --cold`; the bank holds 0 memories, version \d+, and 120 references/);
    const { version } = await stats();
    expect((await succeed('ask', ...args, 'zuzu has color')).stdout).not.toContain('sources:');

    const first = await succeed('ask', ...args, 'zuzu has color', '--cold');
    const [, written = ''] = /cold start: (\d+) references written/.exec(first.stderr) ?? [];
    expect(Number(written)).toBeGreaterThan(0);
    expect(await stats()).toMatchObject({ memories: Number(written), version: version + 1 });
    const second = await succeed('ask', ...args, 'zuzu has color', '--cold');
    expect(second.stdout).toBe(first.stdout);
    expect(second.stderr).not.toContain('written');
    expect((await succeed('ask', ...args, 'zuzu has color')).stdout).toBe(first.stdout);
    const again = await succeed('compile', ...args, '--cold');
    expect(again.stderr).toContain(`the bank holds ${written} memories`);
    expect((await succeed('compile', ...args)).stderr).toContain(
      `kept, the bank holds what the continual checkpoint wrote, ${written} memories; --share 1`,
    );
    expect(await succeed('bank', 'verify', ...args)).toMatchObject({ code: 0 });
  });

  it('does not write again what was deleted', async () => {
    const found = /^ {2}([0-9a-f]{16}) /m.exec((await succeed('ask', ...args, 'zuzu has color', '--cold')).stdout);
    await succeed('bank', 'delete', ...args, found![1]!);
    expect((await succeed('ask', ...args, 'zuzu has color', '--cold')).stdout).not.toContain(found![1]);
    expect((await succeed('ask', ...args, 'zuzu has color')).stdout).not.toContain(found![1]);
  });

  it('refuses what contradicts it', async () => {
    await fail('usage_invalid', 2, 'ask', ...args, 'zuzu', '--cold', '--no-memory');
    await fail('usage_invalid', 2, 'compile', ...args, '--cold', '--share', '1');
    rmSync(join(playground.runs, 'cold', 'bank'), { recursive: true });
    const keys = ['--set', 'retrieval.encoder=keys', '--accept-changes'];
    const refused = await fail('config_invalid', 2, 'compile', ...args, '--cold', ...keys);
    expect(refused).toContain('keys searches what is inside memories');
  });
});
