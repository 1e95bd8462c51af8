/** Asking, generating, and changing what the bank knows. */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fail, Playground, succeed } from './support.ts';

let playground: Playground;
let args: string[];
beforeAll(async () => {
  playground = new Playground();
  args = playground.args('known');
  await succeed('run', ...args);
});
afterAll(() => playground.remove());

const output = async (...command: string[]): Promise<string> => (await succeed(...command)).stdout;
const ask = (...more: string[]): Promise<string> => output('ask', ...args, ...more);

describe.concurrent('ask', () => {
  it('names its sources, those looked at most first', async () => {
    const text = await ask('zuzu has color');
    const shares = [...text.matchAll(/attention ([\d.]+) %/g)].map(([, share]) => Number(share));
    expect(text).toContain('sources:');
    expect(shares.length).toBeGreaterThan(0);
    expect(shares).toEqual(shares.toSorted((a, b) => b - a));
  });

  it('--trace shows every chunk with its memories', async () => {
    const text = await ask('zuzu has color and zuzu has home and zuzu has color', '--trace');
    const chunks = [...text.matchAll(/^chunk (\d+): /gm)].map(([, number]) => Number(number));
    expect(chunks.length).toBeGreaterThan(2);
    expect(chunks).toEqual(chunks.map((_, i) => i));
    const perChunk = text.split(/^chunk \d+: /m).slice(1);
    for (const chunk of perChunk) {
      expect(chunk.match(/^ {2}[0-9a-f]{16} .*attention [\d.]+ %, similarity -?[\d.]+$/gm)).toHaveLength(2);
      expect(chunk.match(/^ {4}kept tokens: .+\|.+$/gm)).toHaveLength(2);
    }
  });

  it('--no-memory reads none, and needs no bank', async () => {
    const text = await ask('zuzu has color', '--no-memory');
    expect(text).not.toContain('sources:');
    expect(await ask('zuzu has color', '--no-memory', '--trace')).toContain('no memories');
  });

  it('stops at --stop and after --max-tokens', async () => {
    const three = await output('generate', ...args, 'zuzu has', '--max-tokens', '3', '--trace');
    const one = await output('generate', ...args, 'zuzu has', '--max-tokens', '1');
    expect(three.startsWith(one.trimEnd())).toBe(true);
    const continuation = one.trimEnd().slice('zuzu has'.length);
    const stopped = await output('generate', ...args, 'zuzu has', '--stop', continuation);
    expect(stopped.trimEnd()).toBe(`zuzu has${continuation}`);
  });
});

describe.concurrent('generate', () => {
  it('samples the same text from the same seed', async () => {
    const sample = (seed: number): Promise<string> =>
      output('generate', ...args, 'zuzu has', '--temperature', '1.5', '--top-p', '0.95', '--seed', String(seed));
    const [first, again, other] = [await sample(1), await sample(1), await sample(2)];
    expect(again).toBe(first);
    expect(other).not.toBe(first);
    expect(first).toMatch(/^zuzu has/);
  });
});

describe('bank', () => {
  const list = (...more: string[]): Promise<string> => output('bank', 'list', ...args, ...more);

  it('adds, shows, finds, edits and deletes a fact without training', async () => {
    expect(await list('--limit', '1')).toMatch(/120 of 120 memories, 1 shown; bank version 4/);
    const id = (await output('bank', 'add', ...args, '--text', 'xyxo has color quva.', '--title', 'xyxo')).trim();
    expect(id).toMatch(/^[0-9a-f]{16}$/);
    const shown = JSON.parse(await output('bank', 'show', ...args, id));
    expect(shown).toMatchObject({ id, title: 'xyxo', text: 'xyxo has color quva.', writer: expect.any(String) });
    expect(shown.kept.every((position: number) => position < shown.tokens.length)).toBe(true);
    expect(await ask('xyxo has color')).toContain(`${id}  xyxo`);

    const edited = (await output('bank', 'edit', ...args, id, '--text', 'xyxo has color rulo.')).trim();
    expect(await list('--contains', 'XYXO')).toMatch(/^\w{16} .*rulo\.\n1 of 121 memories/);
    expect(await ask('xyxo has color')).toContain('xyxo has color rulo.');
    expect(await output('bank', 'verify', ...args)).toContain('121 memories, every checksum is right');

    expect(await output('bank', 'delete', ...args, edited)).toContain('1 deleted');
    expect(await list('--contains', 'xyxo')).toMatch(/^0 of 120 memories/);
    expect(await ask('xyxo has color')).not.toContain('rulo');
    await fail('memory_unknown', 10, 'bank', 'show', ...args, edited);
    await fail('usage_invalid', 2, 'bank', 'add', ...args);
    await fail('usage_invalid', 2, 'bank', 'add', ...args, '--file', playground.config, '--text', 'x');
  });

  it('searches, lists and counts for programs, exports, and forgets for good', async () => {
    const file = join(playground.folder, 'more.jsonl');
    writeFileSync(
      file,
      '{"id": "q1", "text": "quxy has color tuva."}\n{"id": "q2", "text": "quxy has home sola."}\nnot JSON\n',
    );
    const added = await succeed('bank', 'add', ...args, '--file', file);
    const ids = added.stdout.trimEnd().split('\n');
    expect(ids).toHaveLength(2);
    expect(added.stderr).toContain('1 documents skipped: invalid JSON');
    const lines = async (...command: string[]) =>
      (await output('bank', ...command, ...args, '--json'))
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
    const hits = await lines('search', 'quxy has color tuva.', '--limit', '2');
    expect(hits[0]).toMatchObject({
      id: ids[0],
      document: 'q1',
      text: 'quxy has color tuva.',
      score: expect.any(Number),
    });
    expect(await output('bank', 'search', ...args, 'quxy has color tuva.')).toMatch(
      new RegExp(`^\\d\\.\\d+  ${ids[0]}  q1  quxy`),
    );
    expect(await lines('ls', '--document', 'q2')).toMatchObject([{ id: ids[1], text: 'quxy has home sola.' }]);
    const [{ memories, memory }] = await lines('stats');
    expect(memories).toBe(122);
    expect(await output('bank', 'stats', ...args)).toContain(`bytes a memory    ${memory.bytes} = 2 · `);

    await succeed('bank', 'delete', ...args, ...ids);
    expect(await output('bank', 'compact', ...args)).toMatch(/120 memories; \d+ bytes became \d+/);
    expect(await lines('stats')).toMatchObject([{ memories: 120, tombstones: 0 }]);
    const exported = join(playground.folder, 'out.jsonl');
    await succeed('bank', 'export', ...args, exported);
    expect(readFileSync(exported, 'utf8').trimEnd().split('\n')).toHaveLength(120);
    expect(readFileSync(exported, 'utf8')).not.toContain('quxy');
  });

  it('is changed by the program in docs/knowledge.md', () => {
    const root = resolve(import.meta.dirname, '../..');
    const [, program = ''] = /```ts\n(.*?)```/s.exec(readFileSync(join(root, 'docs/knowledge.md'), 'utf8')) ?? [];
    // In words that this run's tokenizer knows, so that the text is one reference here as it is there.
    const here = program
      .replace('runs/quickstart/config.yaml', playground.path('known', 'config.yaml'))
      .replaceAll('Freedonia currency', 'xyxo has')
      .replaceAll(/Freedonia/gi, 'xyxo');
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', here], { cwd: root, encoding: 'utf8' });
    expect(said).toMatch(/^[0-9a-f]{16} \d\.\d{3} xyxo has mark\.\n(\w{16} \d\.\d{3} [\s\S]*\n){2}xyxo/);
    expect(said).toMatch(/\nxyxo has crown\.\n[0-9a-f]{16} xyxo has crown\.\n120 memories, version/);
    expect(said).toMatch(/ bytes\nmemory_unknown: .*holds no memory .*\n {2}→ list the ids/);
  });
});

it('compile writes what is asked for', async () => {
  const copyArgs = playground.args('compiled', 'continual.steps=0');
  await succeed('data', 'build', ...copyArgs);
  await fail('artefact_missing', 5, 'compile', ...copyArgs);
  await succeed('warmup', ...copyArgs);
  const { stderr } = await succeed('compile', ...copyArgs, '--stage', 'warmup', '--share', '1');
  expect(stderr).toContain('120 of 120 references written by the warmup checkpoint');
  expect((await succeed('compile', ...copyArgs, '--stage', 'warmup', '--share', '1')).stderr).toContain(
    'compile: kept',
  );
  await fail('usage_invalid', 2, 'compile', ...copyArgs, '--share', '1.5');
});

it('compile does not take the bank away from a stage two that has begun', async () => {
  const message = await fail('input_invalid', 3, 'compile', ...args, '--stage', 'warmup', '--share', '1');
  expect(message).toContain('the continual stage has begun with this bank');
  await succeed('bank', 'verify', ...args);
});
