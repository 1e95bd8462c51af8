/** The dashboard as a server: started, answering, ended. */

import type { Server } from 'node:http';
import { type AddressInfo, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createAdaptorServer } from '@hono/node-server';
import { isSystemError, UserError } from '../errors.ts';
import { makeApp } from './app.ts';
import { CacheFolder, type CacheOptions } from './cache_folder.ts';
import { newToken } from './guard.ts';
import { Indexes } from './indexes.ts';
import { Live, type LiveOptions } from './live.ts';
import { Memories } from './memories.ts';
import { Runs } from './runs.ts';
import { Summaries } from './summary.ts';

export interface DashboardOptions {
  runsFolder: string;
  /** 0: any that is free. */
  port: number;
  /** Default: this machine alone. Another one answers only those who have the token of the link. */
  host?: string;
  cache?: CacheOptions;
  live?: LiveOptions;
  /** Told of defects of our own. */
  onDefect?: (error: unknown) => void;
}

export interface Dashboard {
  /** To be opened in a browser, by any of these; with the token where there is one. */
  addresses: string[];
  /** Resolves when no row waits to be indexed any more. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

const LOCAL = '127.0.0.1';
const LIMITS = { connections: 256, headersMs: 10_000, requestMs: 30_000, silenceMs: 60_000, headerBytes: 16_384 };

/** @throws UserError input_missing without such a folder; usage_invalid when the port or host cannot be used */
export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { runsFolder, port, host = LOCAL, onDefect = () => undefined } = options;
  const runs = new Runs(runsFolder);
  const cache = await CacheFolder.open(options.cache);
  let isClosing = false;
  // Questions that the end cut short are no defects.
  const defect = (error: unknown) => isClosing || onDefect(error);
  const indexes = new Indexes(cache, defect);
  const summaries = new Summaries((run) => indexes.problem(run));
  const memories = new Memories(indexes);
  const live = new Live(runs, summaries, options.live);
  const token = host === LOCAL ? undefined : newToken();
  let listening = port;
  const app = makeApp({
    ...{ runs, summaries, indexes, live, memories, token },
    port: () => listening,
    onDefect: defect,
  });
  const server = createAdaptorServer({
    fetch: app.fetch,
    overrideGlobalObjects: false,
    serverOptions: { maxHeaderSize: LIMITS.headerBytes },
  }) as Server;
  server.maxConnections = LIMITS.connections;
  server.headersTimeout = LIMITS.headersMs;
  server.requestTimeout = LIMITS.requestMs;
  // Of a client that takes nothing more; live events are sent oftener.
  server.timeout = LIMITS.silenceMs;
  const close = async (): Promise<void> => {
    isClosing = true;
    live.close();
    await indexes.close();
    await memories.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    cache.close();
  };
  try {
    listening = await listen(server, port, host);
    // Such as a connection that could not be taken.
    server.on('error', defect);
  } catch (error) {
    await close();
    throw error;
  }
  const query = token === undefined ? '' : `?token=${token}`;
  const addresses = namesOf(host).map((name) => `http://${name}:${listening}/${query}`);
  return { addresses, settled: () => indexes.settled(), close };
}

/** By what others reach a host: one that stands for all addresses of this machine by each of them, others first. */
function namesOf(host: string): string[] {
  const isAll = ['0.0.0.0', '::', ''].includes(host);
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const found = own
    .filter(({ address, family }) => !address.startsWith('fe80:') && (host !== '0.0.0.0' || family === 'IPv4'))
    .sort((a, b) => Number(a.internal) - Number(b.internal))
    .map(({ address }) => address);
  return (isAll && found.length > 0 ? found : [host]).map((name) => (isIPv6(name) ? `[${name}]` : name));
}

async function listen(server: Server, port: number, host: string): Promise<number> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
  } catch (error) {
    throw isSystemError(error) ? unusable(error, port, host) : error;
  }
  return (server.address() as AddressInfo).port;
}

function unusable(error: NodeJS.ErrnoException, port: number, host: string): UserError {
  const [what, action] = {
    EADDRINUSE: [
      `port ${port} is in use, perhaps by another dashboard`,
      `choose another: --port ${port + 1}, or --port 0 for any`,
    ],
    EACCES: [`port ${port} may not be used by you`, 'choose one from 1024 on, such as --port 8000'],
    EADDRNOTAVAIL: [
      `${host} is no address of this machine`,
      'give an address of this machine, or 0.0.0.0 for all of them',
    ],
    ENOTFOUND: [`there is no host ${host}`, 'give an address of this machine, or 0.0.0.0 for all of them'],
  }[error.code ?? ''] ?? [error.message, 'choose another --port or --host'];
  return new UserError('usage_invalid', { where: `${host}:${port}`, what: what!, action, cause: error });
}
