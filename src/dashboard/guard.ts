/** Who is answered, and what every answer tells the browser it may do. */

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { getCookie } from 'hono/cookie';
import { Refused } from './refused.ts';

/** Nothing from elsewhere, no inline code, nobody may frame the page. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "connect-src 'self'",
  "font-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

const HEADERS: readonly [string, string][] = [
  ['Content-Security-Policy', POLICY],
  ['X-Content-Type-Options', 'nosniff'],
  ['X-Frame-Options', 'DENY'],
  ['Referrer-Policy', 'no-referrer'],
  ['Cross-Origin-Resource-Policy', 'same-origin'],
];

/** Longer addresses are refused. */
const LONGEST_ADDRESS = 8192;

export function newToken(): string {
  return randomBytes(24).toString('base64url');
}

/** Headers of every answer; what is asked for by other methods than GET and HEAD is refused. */
export function harden(): MiddlewareHandler {
  return async (c, next) => {
    for (const [name, value] of HEADERS) c.header(name, value);
    c.header('Cache-Control', 'no-store');
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD') {
      throw new Refused(405, 'method_refused', 'the dashboard only shows: GET and HEAD');
    }
    if (c.req.url.length > LONGEST_ADDRESS) throw new Refused(413, 'address_too_long', 'the address is too long');
    await next();
  };
}

/**
 * On this machine alone: the request must name it as such, since a page from elsewhere can have its own name point here (DNS
 * rebinding), but cannot choose what the browser sends as the host.
 */
export function onlyLocal(): MiddlewareHandler {
  return async (c, next) => {
    const host = (c.req.header('host') ?? '').replace(/:\d+$/, '').toLowerCase();
    if (!['127.0.0.1', 'localhost', '[::1]'].includes(host)) {
      throw new Refused(403, 'host_refused', 'open the dashboard by the address that it printed');
    }
    await next();
  };
}

/**
 * Only those who have the token: given once in the address, it is kept in a cookie. The page takes it out of the address; a
 * redirect could not, for the browser keeps the cookie back on one that began at another site.
 */
export function onlyWithToken(token: string, port: () => number): MiddlewareHandler {
  const expected = digest(token);
  const isRight = (given: string | undefined) => given !== undefined && timingSafeEqual(digest(given), expected);
  return async (c, next) => {
    const name = `memory3-${port()}`;
    if (isRight(c.req.query('token'))) {
      c.header('Set-Cookie', `${name}=${token}; Path=/; HttpOnly; SameSite=Strict`);
    } else if (!isRight(getCookie(c, name))) {
      throw new Refused(403, 'token_missing', 'open the dashboard by the link that it printed, with its token');
    }
    await next();
  };
}

/** Of equal length, so that comparing takes equal time. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
