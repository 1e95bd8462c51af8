/** The command as a user starts and ends it. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { resolve } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { makeRun, rowsOf, temporaryFolder } from './support.ts';

const ROOT = resolve(import.meta.dirname, '../..');

function start(...args: string[]) {
  const env = { ...process.env, XDG_CACHE_HOME: temporaryFolder() };
  const program = "import('./src/cli/main.ts').then(({ main }) => main(process.argv.slice(1)))";
  const command = spawn(process.execPath, ['--import', 'tsx', '-e', program, 'dashboard', ...args], { cwd: ROOT, env });
  onTestFinished(() => {
    command.kill('SIGKILL');
  });
  let text = '';
  for (const stream of [command.stdout, command.stderr]) {
    stream.on('data', (chunk) => {
      text += String(chunk);
    });
  }
  return { command, text: () => text };
}

describe('memory3 dashboard', () => {
  it('prints its address, answers there, and ends cleanly at Ctrl-C', async () => {
    const runs = temporaryFolder();
    makeRun(runs, 'a', { warmup: rowsOf(3) });
    const { command, text } = start(runs, '--port', '0');
    while (!text().includes('Ctrl-C')) await once(command.stdout, 'data');
    const address = /http:\/\/127\.0\.0\.1:\d+\//.exec(text())![0];
    expect(((await (await fetch(`${address}api/runs`)).json()) as unknown[]).length).toBe(1);
    const live = await fetch(`${address}api/live`);
    const ended = once(command, 'exit');
    command.kill('SIGINT');
    expect((await ended)[0]).toBe(0);
    await live.text().catch(() => undefined);
    expect(text()).not.toContain('rror');
  }, 30_000);

  it('says what to do when the port is in use, or there is no such folder', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    onTestFinished(() => {
      taken.close();
    });
    const { port } = taken.address() as { port: number };
    const busy = start(temporaryFolder(), '--port', String(port));
    expect((await once(busy.command, 'exit'))[0]).toBe(2);
    expect(busy.text()).toContain(`port ${port} is in use`);
    expect(busy.text()).toContain('--port');
    const missing = start('/nowhere/runs', '--port', '0');
    expect((await once(missing.command, 'exit'))[0]).toBe(3);
    expect(missing.text()).toContain('/nowhere/runs: there is no such folder');
    const runs = temporaryFolder();
    const { root } = makeRun(runs, 'a', { warmup: rowsOf(3) });
    const one = start(root, '--port', '0');
    expect((await once(one.command, 'exit'))[0]).toBe(3);
    expect(one.text()).toContain(`give the folder around it: ${runs}`);
  }, 30_000);
});
