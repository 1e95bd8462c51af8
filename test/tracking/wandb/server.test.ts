/** Where the server's address and the key come from, and that no message tells a secret. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findServer, passwordIn } from '../../../src/tracking/wandb/server.ts';

const KEY = 'planted-key-8f2a';
let home: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'memory3-netrc-'));
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

function netrc(text: string, name = '.netrc'): string {
  const path = join(home, name);
  writeFileSync(path, text);
  return path;
}

describe('the server', () => {
  it('is that of the service, or another; its address loses what is no part of it', async () => {
    const env = { WANDB_API_KEY: KEY, HOME: home };
    expect(await findServer(env)).toEqual({ base: 'https://api.wandb.ai', app: 'https://wandb.ai', key: KEY });
    const other = { ...env, WANDB_BASE_URL: 'https://user:planted-password@wandb.example:8443/sub/?x=1' };
    expect(await findServer(other)).toEqual({
      base: 'https://wandb.example:8443/sub',
      app: 'https://wandb.example:8443/sub',
      key: KEY,
    });
  });

  it.each(['ftp://user:planted-password@host', 'planted-password', 'http://', 'javascript:planted-password'])(
    'is not %s, and the message does not repeat it',
    async (url) => {
      const error = await findServer({ WANDB_API_KEY: KEY, WANDB_BASE_URL: url }).catch((reason: unknown) => reason);
      expect(String(error)).toContain('WANDB_BASE_URL: it is not an address');
      expect(String(error)).not.toMatch(/planted|user/);
    },
  );
});

describe('the key', () => {
  it('comes from the environment before the netrc file, and that of NETRC before the one at home', async () => {
    netrc('machine api.wandb.ai login user password at-home');
    const elsewhere = netrc('machine api.wandb.ai login user password elsewhere', 'other');
    expect((await findServer({ HOME: home })).key).toBe('at-home');
    expect((await findServer({ HOME: home, NETRC: elsewhere })).key).toBe('elsewhere');
    expect((await findServer({ HOME: home, NETRC: elsewhere, WANDB_API_KEY: KEY })).key).toBe(KEY);
    await expect(findServer({ HOME: home, NETRC: join(home, 'none') })).rejects.toThrow(
      /there is no key for api.wandb.ai/,
    );
    await expect(findServer({ HOME: home, WANDB_BASE_URL: 'http://other.example' })).rejects.toThrow(
      /no key for other.example.*\n.*tracking.wandb.mode=offline/,
    );
  });

  it('with characters that no key has is refused without being shown', async () => {
    const error = await findServer({ WANDB_API_KEY: `${KEY}\nx` }).catch((reason: unknown) => reason);
    expect(String(error)).toContain('the key holds characters that no key has');
    expect(String(error)).not.toContain(KEY);
  });
});

describe('a netrc file', () => {
  it.each([
    ['one line', 'machine a.b login user password secret', 'secret'],
    ['several lines', 'machine a.b\n  login user\n  password secret\n', 'secret'],
    ['another machine first', 'machine x login user password no machine a.b login user password secret', 'secret'],
    ['quotes', 'machine a.b login user password "se \\"cret"', 'se "cret'],
    ['a default', 'default login user password secret', 'secret'],
    ['a default before the machine', 'default login u password no\nmachine a.b login u password secret', 'secret'],
    ['a comment', '# machine a.b password no\nmachine a.b login user password secret', 'secret'],
    ['a macro', 'macdef init\nmachine a.b password no\n\nmachine a.b login user password secret', 'secret'],
    ['a login named password', 'machine a.b login password password secret', 'secret'],
    ['no such machine', 'machine x login user password no', undefined],
    ['nothing', '', undefined],
    ['half an entry', 'machine a.b login user password', undefined],
  ])('with %s', (_name, text, password) => {
    expect(passwordIn(text, 'a.b')).toBe(password);
  });
});
