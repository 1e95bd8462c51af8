import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, vi } from 'vitest';
import { type RecordedAnswer, recordAnswer } from '../../src/infer/answer_record.ts';
import { RunFolder } from '../../src/io/run_folder.ts';
import { temporaryFolder } from '../data/support.ts';

vi.setConfig({ testTimeout: 120_000 });

const linesOf = (folder: RunFolder) => readFileSync(folder.answers, 'utf8').trimEnd().split('\n');
const answer = (prompt: string) => ({ prompt, text: 'it\nis', trace: [{ text: 'it', memories: [] }] });

it('keeps prompt, text and trace of each answer, one a line, and nothing else', async () => {
  const folder = new RunFolder(temporaryFolder());
  const before = Date.now() / 1000;
  const more = { promptTokens: 1, generatedTokens: 2, stored: ['x'] };
  expect(await recordAnswer(folder, { ...answer('one'), ...more })).toBe(true);
  expect(await recordAnswer(folder, answer('two'))).toBe(true);
  const records = linesOf(folder).map((line) => JSON.parse(line) as RecordedAnswer);
  expect(records).toEqual(['one', 'two'].map((prompt) => ({ time: expect.any(Number), ...answer(prompt) })));
  for (const { time } of records) expect(time).toBeGreaterThanOrEqual(before);
});

it('does not mix the lines of processes that answer at once', async () => {
  const root = temporaryFolder();
  const child = fileURLToPath(new URL('./answer_child.ts', import.meta.url));
  const names = ['a', 'b', 'c'];
  const ended = names.map(async (name) => {
    const process_ = spawn(process.execPath, ['--import', 'tsx', child, root, name, '40'], { stdio: 'inherit' });
    expect(await once(process_, 'close')).toEqual([0, null]);
  });
  await Promise.all(ended);
  const records = linesOf(new RunFolder(root)).map((line) => JSON.parse(line) as RecordedAnswer);
  const prompts = names.flatMap((name) => Array.from({ length: 40 }, (_, i) => `${name} ${i}`));
  expect(records.map(({ prompt }) => prompt).sort()).toEqual(prompts.sort());
  for (const { prompt, text } of records) expect(text).toBe(prompt[0]!.repeat(2000));
});

it('stands on a line of its own behind one that was cut short', async () => {
  const folder = new RunFolder(temporaryFolder());
  await recordAnswer(folder, answer('one'));
  appendFileSync(folder.answers, '{"time": 1, "pro');
  await recordAnswer(folder, answer('two'));
  const [, broken, last] = linesOf(folder);
  expect(broken).toBe('{"time": 1, "pro');
  expect(JSON.parse(last!)).toMatchObject({ prompt: 'two' });
});

it('is left out, without an error, where the run cannot be written to', async () => {
  const root = temporaryFolder();
  writeFileSync(join(root, 'metrics'), 'a file where the folder would be');
  const folder = new RunFolder(root);
  expect(await recordAnswer(folder, answer('one'))).toBe(false);
  expect(existsSync(folder.answers)).toBe(false);
});
