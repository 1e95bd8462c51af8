/** Programs of the system that fetch and unpack packages. */

import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import { isSystemError, UserError } from '../../errors.ts';

export interface CommandOptions {
  /** Takes what the program prints; without it, the text is returned. */
  output?: string;
  /** What the user can do when the program fails or is not there. */
  action: string;
}

/** @throws UserError download_failed when the program is not there or fails, with the last it said */
export async function runCommand(command: string, args: readonly string[], options: CommandOptions): Promise<string> {
  const file = options.output === undefined ? undefined : await open(options.output, 'w');
  try {
    // Languages other than English would change what is read from the output.
    const env = { ...process.env, LC_ALL: 'C.UTF-8' };
    const child = spawn(command, args, { stdio: ['ignore', file?.fd ?? 'pipe', 'pipe'], env });
    const [said, complaints]: string[][] = [[], []];
    child.stdout?.setEncoding('utf8').on('data', (text: string) => said!.push(text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => complaints!.push(text));
    const code = await new Promise<number | null>((done, fail) => {
      child.on('error', fail);
      child.on('close', done);
    });
    if (code !== 0)
      throw failed(command, args, `ended with ${code}: ${complaint(complaints!.join(''))}`, options.action);
    return said!.join('');
  } catch (error) {
    if (!isSystemError(error) || error.code !== 'ENOENT') throw error;
    throw failed(command, args, `the program ${command} is not there`, options.action);
  } finally {
    await file?.close();
  }
}

function failed(command: string, args: readonly string[], what: string, action: string): UserError {
  const shown = args.filter((arg, i) => !arg.includes('::') && args[i - 1] !== '-o' && arg !== '-o');
  return new UserError('download_failed', { where: [command, ...shown].join(' '), what, action });
}

/** What the program names as an error, else the last it said. */
function complaint(text: string): string {
  const lines = text.trim().split('\n');
  const errors = lines.filter((line) => /^(E:|npm error \S)/.test(line)).slice(0, 4);
  return (errors.length > 0 ? errors : lines.slice(-4)).join('\n  ');
}
