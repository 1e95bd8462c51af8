/**
 * A server that answers as Weights & Biases does, so far as our client and the official one ask it, and that refuses what
 * would damage a run: lines over lines that are there, and gaps. Faults are injected by request.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';

export interface FakeRun {
  id: string;
  displayName: string;
  config: Record<string, { value: unknown }>;
  tags: string[];
  /** Lines by file of the stream. */
  lines: Record<string, string[]>;
  uploads: Map<string, Buffer>;
  complete: boolean;
  exitCode: number | undefined;
}

/**
 * What goes wrong with a request: an error before anything is done, an answer that is lost after it, no answer (the
 * request stored, or not, when nobody waits any more), or a dropped connection before anything is done.
 */
export type Fault =
  | { kind: 'status'; status: number; body?: string }
  | { kind: 'drop-before' }
  | { kind: 'drop-after' }
  | { kind: 'silent-before' }
  | { kind: 'silent-after' }
  | { kind: 'store-late'; after: Promise<void> };

export interface Seen {
  method: string;
  path: string;
  /** Size of the body. */
  bytes: number;
  body: unknown;
}

/** In the addresses for uploads: whoever knows it may write there. */
export const SIGNATURE = 'planted-signature-5e1f';

const HISTORY = 'wandb-history.jsonl';
const EVENTS = 'wandb-events.jsonl';
const OUTPUT = 'output.log';
const SUMMARY = 'wandb-summary.json';

export class FakeServer {
  readonly runs = new Map<string, FakeRun>();
  readonly seen: Seen[] = [];
  /** Called for each request; what it returns happens to it. */
  fault: (request: { path: string; operation: string | undefined; body: unknown }) => Fault | undefined = () =>
    undefined;
  /** Answers of the stream tell the run to stop. */
  stopped = false;
  /** Lines of each file that it has stored and does not count yet. */
  lag = 0;
  /** Requests that would have damaged a run, or were no requests at all. */
  readonly refused: string[] = [];
  readonly #server: Server;
  readonly #authorization: string;

  private constructor(
    readonly key: string,
    readonly entity: string,
  ) {
    this.#authorization = `Basic ${Buffer.from(`api:${key}`).toString('base64')}`;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        this.refused.push(String(error));
        response.destroy();
      });
    });
  }

  static async start(key: string, { entity = 'somebody', port = 0 } = {}): Promise<FakeServer> {
    const fake = new FakeServer(key, entity);
    await new Promise<void>((done) => fake.#server.listen(port, '127.0.0.1', done));
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  /** The only run. */
  get run(): FakeRun {
    const [run, ...others] = this.runs.values();
    if (run === undefined || others.length > 0) throw new Error(`${this.runs.size} runs`);
    return run;
  }

  history(run = this.run): ({ _step: number } & Record<string, unknown>)[] {
    return (run.lines[HISTORY] ?? []).map(
      (line) => JSON.parse(line.replace(/:NaN/g, ':null')) as { _step: number } & Record<string, unknown>,
    );
  }

  steps(run = this.run): number[] {
    return this.history(run).map(({ _step }) => _step);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? '/', this.url).pathname;
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const raw = Buffer.concat(parts);
    const bytes = request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw;
    // A place to upload to is signed, as in a cloud's store.
    const isSigned = path.startsWith('/upload/') && request.url?.endsWith(`signature=${SIGNATURE}`);
    if (request.headers.authorization !== this.#authorization && !isSigned) {
      response.writeHead(401).end('{"error":"unauthorized"}');
      return;
    }
    const isJson = path.startsWith('/upload/')
      ? false
      : String(request.headers['content-type']).includes('json') && request.method === 'POST';
    const body: unknown = isJson ? JSON.parse(bytes.toString() || '{}') : bytes;
    this.seen.push({ method: request.method ?? '', path, bytes: raw.length, body });
    const operation = operationOf(body);
    const fault = this.fault({ path, operation, body });
    if (fault === undefined) return this.#reply(response, this.#act(path, operation, body, request));
    if (fault.kind === 'status') response.writeHead(fault.status).end(fault.body ?? '');
    else if (fault.kind === 'store-late') {
      // The client has given up by then.
      await fault.after;
      this.#act(path, operation, body, request);
      response.destroy();
    } else {
      if (fault.kind === 'drop-after' || fault.kind === 'silent-after') this.#act(path, operation, body, request);
      if (fault.kind === 'drop-before' || fault.kind === 'drop-after') response.destroy();
    }
  }

  #reply(response: ServerResponse, { status, body }: Reply): void {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  #act(path: string, operation: string | undefined, body: unknown, request: IncomingMessage): Reply {
    if (path === '/graphql') return this.#graphql(operation, body as GraphqlBody);
    const stream = /^\/files\/([^/]+)\/([^/]+)\/([^/]+)\/file_stream$/.exec(path);
    if (stream !== null && request.method === 'POST') {
      const run = this.runs.get(stream.slice(1).map(decodeURIComponent).join('/'));
      if (run === undefined) return this.#refuse(`${path}: no such run`, 404);
      return this.#stream(run, body as StreamBody);
    }
    const upload = /^\/upload\/([^/]+)\/([^/]+)\/([^/]+)\/(.+)$/.exec(path);
    if (upload !== null && request.method === 'PUT') {
      const [entity, project, id, name] = upload.slice(1).map(decodeURIComponent);
      this.runs.get(`${entity}/${project}/${id}`)?.uploads.set(name!, body as Buffer);
      return { status: 200, body: {} };
    }
    return this.#refuse(`${request.method} ${path}: unknown`, 404);
  }

  #refuse(what: string, status = 400): Reply {
    this.refused.push(what);
    return { status, body: { error: what } };
  }

  /** Stores all of a request or nothing. */
  #stream(run: FakeRun, { files = {}, complete, exitcode }: StreamBody): Reply {
    for (const [name, { offset, content }] of Object.entries(files)) {
      const there = run.lines[name]?.length ?? 0;
      if (name !== SUMMARY && offset !== there) {
        return this.#refuse(`${name}: lines from ${offset} on, but there are ${there}`);
      }
      if (!content.every((line) => typeof line === 'string')) return this.#refuse(`${name}: lines must be texts`);
    }
    for (const [name, { content }] of Object.entries(files)) {
      if (name === SUMMARY) run.lines[name] = [...content];
      else run.lines[name] = [...(run.lines[name] ?? []), ...content];
    }
    if (complete === true) [run.complete, run.exitCode] = [true, exitcode];
    return { status: 200, body: { exitcode: null, limits: {}, ...(this.stopped && { stopped: true }) } };
  }

  #graphql(operation: string | undefined, { variables = {}, query = '' }: GraphqlBody): Reply {
    const data = this.#data(operation ?? '', variables, query);
    if (data !== undefined) return { status: 200, body: { data } };
    this.refused.push(`${operation}: unknown`);
    return { status: 200, body: { data: null, errors: [{ message: `unknown operation ${operation}` }] } };
  }

  #data(operation: string, variables: Variables, query: string): unknown {
    const text = (name: string): string => String(variables[name] ?? '');
    const project = text('project') || 'uncategorized';
    const entity = text('entity') || this.entity;
    switch (operation) {
      case 'Viewer':
        return {
          viewer: {
            id: 'user',
            entity: this.entity,
            username: this.entity,
            email: '',
            flags: '{}',
            teams: { edges: [] },
          },
        };
      case 'ServerFeaturesQuery':
        return { serverInfo: { features: [] } };
      case 'RunResumeStatus':
        return { model: this.#status(entity, project, this.runs.get(`${entity}/${project}/${text('name')}`)) };
      case 'UpsertBucket':
        return this.#upsert(entity, project, variables);
      case 'CreateRunFiles': {
        const files = (variables.files as string[]).map((name) => ({
          name,
          uploadUrl: `${this.url}/upload/${[entity, project, text('run'), name].map(encodeURIComponent).join('/')}?signature=${SIGNATURE}`,
        }));
        return { createRunFiles: { runID: text('run'), uploadHeaders: ['x-upload: yes'], files } };
      }
      case 'MarkRunFilesUploaded':
        return { markRunFilesUploaded: { success: true } };
      default:
        // The official client looks at the schema to see what the server can do.
        return query.includes('__type') || query.includes('__schema') ? {} : undefined;
    }
  }

  #status(entity: string, project: string, run: FakeRun | undefined): unknown {
    if (run === undefined) return { id: 'p', name: project, entity: { id: 'e', name: entity }, bucket: null };
    const lines = (name: string): string[] => {
      const stored = run.lines[name] ?? [];
      return stored.slice(0, Math.max(0, stored.length - this.lag));
    };
    const t = (run.config._wandb?.value as { t?: unknown } | undefined)?.t;
    const bucket = {
      id: `id-${run.id}`,
      name: run.id,
      displayName: run.displayName,
      historyLineCount: lines(HISTORY).length,
      eventsLineCount: lines(EVENTS).length,
      logLineCount: lines(OUTPUT).length,
      historyTail: JSON.stringify(lines(HISTORY).slice(-1)),
      eventsTail: JSON.stringify(lines(EVENTS).slice(-1)),
      summaryMetrics: run.lines[SUMMARY]?.at(-1) ?? '{}',
      config: JSON.stringify(run.config),
      tags: run.tags,
      notes: '',
      wandbConfig: JSON.stringify(t === undefined ? {} : { t }),
    };
    return { id: 'p', name: project, entity: { id: 'e', name: entity }, bucket };
  }

  #upsert(entity: string, project: string, variables: Variables): unknown {
    const id = String(variables.name);
    const key = `${entity}/${project}/${id}`;
    const inserted = !this.runs.has(key);
    const run: FakeRun = this.runs.get(key) ?? {
      id,
      displayName: '',
      config: {},
      tags: [],
      lines: {},
      uploads: new Map(),
      complete: false,
      exitCode: undefined,
    };
    this.runs.set(key, run);
    if (typeof variables.config === 'string') run.config = JSON.parse(variables.config) as FakeRun['config'];
    if (typeof variables.displayName === 'string') run.displayName = variables.displayName;
    if (Array.isArray(variables.tags)) run.tags = variables.tags as string[];
    run.complete = false;
    const bucket = {
      id: `id-${id}`,
      name: id,
      displayName: run.displayName,
      description: '',
      config: JSON.stringify(run.config),
      sweepName: null,
      project: { id: 'p', name: project, entity: { id: 'e', name: entity } },
      historyLineCount: run.lines[HISTORY]?.length ?? 0,
    };
    return { upsertBucket: { bucket, inserted } };
  }
}

interface Reply {
  status: number;
  body: unknown;
}
type Variables = Record<string, unknown>;
interface GraphqlBody {
  query?: string;
  variables?: Variables;
}
interface StreamBody {
  files?: Record<string, { offset: number; content: string[] }>;
  complete?: boolean;
  exitcode?: number;
}

function operationOf(body: unknown): string | undefined {
  const { operationName, query } = (body ?? {}) as { operationName?: string; query?: string };
  return operationName ?? /(?:query|mutation)\s+(\w+)/.exec(query ?? '')?.[1];
}
