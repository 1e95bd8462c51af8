/** Every command explains itself; a wrong command line gives one error and what to do. */

import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { memory3 } from './support.ts';

const ROOT = resolve(import.meta.dirname, '../..');

const COMMANDS = [
  ...[
    'run',
    'data build',
    'data report',
    'data inspect',
    'data verify',
    'warmup',
    'compile',
    'continual',
    'eval',
    'generate',
    'ask',
  ],
  ...['bank ls', 'bank get', 'bank search', 'bank stats', 'bank export'],
  ...['bank add', 'bank edit', 'bank delete', 'bank compact', 'bank verify', 'bank tune', 'bank codecs'],
];

describe.concurrent('--help', () => {
  it('of every command shows purpose, options with defaults, and an example', async () => {
    const commands = [...COMMANDS, 'data fetch', 'dashboard', 'doctor', 'data', 'bank', ''];
    const help = (command: string) => memory3(...command.split(' ').filter((part) => part !== ''), '--help');
    const shown = await Promise.all(commands.map(help));
    for (const [i, command] of commands.entries()) {
      const { stdout, code } = shown[i]!;
      expect(code, command).toBe(0);
      const name = `memory3 ${command}`.trim();
      expect(stdout.startsWith(name), stdout).toBe(true);
      expect(stdout, command).toMatch(/\n\n[A-Z].{10,}\n/);
      expect(stdout, command).toContain(`Examples:\n  ${name}`);
      if (!COMMANDS.includes(command)) continue;
      expect(stdout).toMatch(/-c, --config .*\[required\]/s);
      expect(stdout).toMatch(/--set .*\[default: \[\]\]/s);
    }
  });

  it('shows the defaults of choices', async () => {
    expect((await memory3('run', '--help')).stdout).toMatch(
      /--resume [^-]*choices: "auto", "never"\] \[default: "auto"\]/,
    );
    expect((await memory3('ask', '--help')).stdout).toMatch(/--memory .*\[default: true\]/s);
  });

  it('ends quietly when nobody reads further', () => {
    const command = `"${process.execPath}" bin/memory3.js data fetch --list | head -n 1`;
    const { stdout, stderr } = spawnSync('sh', ['-c', command], { cwd: ROOT, encoding: 'utf8' });
    expect(stdout).toMatch(/^wordnet .*\n$/);
    expect(stderr).toBe('');
  });

  it('lists every command', async () => {
    const { stdout } = await memory3('--help');
    for (const command of [...COMMANDS, 'dashboard', 'doctor'])
      expect(stdout).toContain(`memory3 ${command.split(' ')[0]} `);
  });
});

describe.concurrent('a wrong command line', () => {
  it.each([
    [['bogus'], 'Unknown command: bogus'],
    [['runn', '-c', 'x.yaml'], 'Did you mean run?'],
    [[], 'Name a command'],
    [['bank'], 'Name one of: ls, get'],
    [['bank', 'bogus'], 'Unknown command: bogus'],
    [['run'], 'Missing required argument: config'],
    [['run', '-c', 'x.yaml', '--bogus', '1'], 'Unknown argument: bogus'],
    [['run', '-c', 'x.yaml', '-c', 'y.yaml'], 'is given more than once'],
    [['ask', '-c', 'x.yaml'], 'got 0, need at least 1'],
    [['ask', '-c', 'x.yaml', 'question', '--seed', 'x'], '--seed is not a number'],
    [['run', '-c', 'x.yaml', '--resume', 'sometimes'], 'Invalid values'],
  ])('%j', async (args, message) => {
    const { code, stdout, stderr } = await memory3(...args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain('error [usage_invalid]');
    expect(stderr).toContain(message);
    expect(
      stderr
        .trimEnd()
        .split('\n')
        .filter((line) => !line.startsWith('  ')),
    ).toHaveLength(1);
  });
});

it.concurrent('doctor says which engine `auto` takes and why the others are not there', async () => {
  const { code, stdout } = await memory3('doctor');
  expect(code).toBe(0);
  for (const engine of ['cuda', 'native', 'tensorflow', 'wasm', 'cpu'])
    expect(stdout).toMatch(new RegExp(`^[*+ ] ${engine} +\\S.+$`, 'm'));
  expect(stdout.match(/^\* (?!what)/gm)).toHaveLength(1);
});

it.concurrent('--version says a version', async () => {
  expect((await memory3('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});
