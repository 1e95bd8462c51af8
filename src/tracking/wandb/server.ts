/** Which server of Weights & Biases is spoken to, and with which key. The key stays in memory: it is never written anywhere. */

import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { UserError } from '../../errors.ts';

export interface Server {
  /** Address of the API, without a slash at its end and without credentials. */
  base: string;
  /** Where people look at it. */
  app: string;
  key: string;
}

const CLOUD = 'https://api.wandb.ai';

/**
 * WANDB_BASE_URL, and the key of WANDB_API_KEY or of the netrc file (NETRC, else ~/.netrc, ~/_netrc).
 * @throws UserError input_invalid or input_missing
 */
export async function findServer(env: NodeJS.ProcessEnv = process.env): Promise<Server> {
  const url = parseBase(env.WANDB_BASE_URL || CLOUD);
  const base = `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
  const key = env.WANDB_API_KEY?.trim() || (await netrcPassword(url.hostname, env));
  if (key === undefined) {
    throw new UserError('input_missing', {
      where: 'WANDB_API_KEY',
      what: `there is no key for ${url.host}, neither here nor in the netrc file`,
      action: 'set it to the key from the settings of your account, or choose tracking.wandb.mode=offline',
    });
  }
  if (!/^[\x21-\x7e]+$/.test(key)) {
    throw new UserError('input_invalid', {
      where: 'WANDB_API_KEY',
      what: 'the key holds characters that no key has',
      action: 'copy it again from the settings of your account',
    });
  }
  return { base, app: base === CLOUD ? 'https://wandb.ai' : base, key };
}

/** The text may hold a password, so no message repeats it. */
function parseBase(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url;
  throw new UserError('input_invalid', {
    where: 'WANDB_BASE_URL',
    what: 'it is not an address that begins with http:// or https://',
    action: `give one such as ${CLOUD}, or unset it`,
  });
}

async function netrcPassword(host: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const home = env.HOME || homedir();
  for (const path of env.NETRC ? [env.NETRC] : [join(home, '.netrc'), join(home, '_netrc')]) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text !== undefined) return passwordIn(text, host);
  }
  return undefined;
}

/** The password of a machine in a netrc file, or that of `default`. */
export function passwordIn(netrc: string, host: string): string | undefined {
  // A macro goes to the next empty line; a comment to the end of its line.
  const text = netrc.replace(/(^|\s)macdef\s[\s\S]*?(\n[ \t\r]*\n|$)/g, '$1').replace(/^\s*#.*$/gm, '');
  const words = [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) =>
    quoted === undefined ? plain! : quoted.replace(/\\(.)/g, '$1'),
  );
  let [machine, fallback]: (string | undefined)[] = [];
  for (let i = 0; i < words.length; i++) {
    if (words[i] === 'machine') machine = words[++i];
    else if (words[i] === 'default') machine = '';
    else if (words[i] === 'login' || words[i] === 'account') i += 1;
    else if (words[i] === 'password') {
      const password = words[++i];
      if (machine === host) return password;
      if (machine === '') fallback ??= password;
    }
  }
  return fallback;
}
