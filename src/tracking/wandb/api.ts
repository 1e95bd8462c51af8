/** The requests of Weights & Biases' HTTP interface that a run needs, one try each: whoever calls tries again. */

import { isSystemError } from '../../errors.ts';
import type { RunAbout } from './records.ts';
import type { Server } from './server.ts';

/** Lines that the server has of a run, and where its history stands. */
export interface RunOnServer {
  history: number;
  events: number;
  output: number;
  /** Last step of the history; −1: none. */
  step: number;
  summary: Record<string, unknown>;
}

export interface RunAddress {
  entity: string;
  project: string;
  id: string;
}

/** Files of the stream by name: lines from a line on. */
export type StreamFiles = Record<string, { offset: number; content: string[] }>;

export interface StreamRequest {
  files?: StreamFiles;
  complete?: boolean;
  exitcode?: number;
}

const VIEWER = 'query Viewer { viewer { id entity username } }';
const RESUME_STATUS = `query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) {
      id name historyLineCount eventsLineCount logLineCount historyTail summaryMetrics wandbConfig(keys: ["t"])
    }
  }
}`;
const UPSERT_BUCKET = `mutation UpsertBucket($name: String, $project: String, $entity: String, $groupName: String,
    $displayName: String, $notes: String, $config: JSONString, $host: String, $tags: [String!]) {
  upsertBucket(input: { name: $name, modelName: $project, entityName: $entity, groupName: $groupName,
      displayName: $displayName, notes: $notes, config: $config, host: $host, tags: $tags }) {
    bucket { id name historyLineCount project { name entity { name } } }
  }
}`;
const CREATE_RUN_FILES = `mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) {
  createRunFiles(input: { entityName: $entity, projectName: $project, runName: $run, files: $files }) {
    runID uploadHeaders files { name uploadUrl }
  }
}`;

export class WandbApi {
  readonly #server: Server;
  readonly #timeoutMs: number;
  readonly #closing = new AbortController();

  constructor(server: Server, timeoutMs: number) {
    this.#server = server;
    this.#timeoutMs = timeoutMs;
  }

  /** The entity to whose runs the key belongs when none is named. */
  async defaultEntity(): Promise<string> {
    const { viewer } = await this.#graphql<{ viewer: { entity?: string } | null }>('Viewer', VIEWER, {});
    if (!viewer?.entity) throw new Error(`${this.#server.base}: the key belongs to no user`);
    return viewer.entity;
  }

  /** What the server has of a run; undefined when the run has not begun there. */
  async runStatus({ entity, project, id }: RunAddress): Promise<RunOnServer | undefined> {
    const variables = { entity, project, name: id };
    const { model } = await this.#graphql<ResumeStatus>('RunResumeStatus', RESUME_STATUS, variables);
    const bucket = model?.bucket;
    if (!bucket || parseLoosely(bucket.wandbConfig ?? '{}').t === undefined) return undefined;
    const tail: unknown = JSON.parse(bucket.historyTail ?? '[]');
    const last: unknown = Array.isArray(tail) ? tail.at(-1) : undefined;
    return {
      history: bucket.historyLineCount ?? 0,
      events: bucket.eventsLineCount ?? 0,
      output: bucket.logLineCount ?? 0,
      step: typeof last === 'string' ? Number(parseLoosely(last)._step ?? -1) : -1,
      summary: parseLoosely(bucket.summaryMetrics ?? '{}'),
    };
  }

  /** Makes the run or brings what is told of it up to date. @returns where it is */
  async upsertRun(run: RunAbout, entity: string): Promise<RunAddress> {
    const config = Object.entries(run.config).map(([name, json]) => [name, { value: JSON.parse(json) as unknown }]);
    // A run without a `t` counts as one that has not begun.
    const own = { _wandb: { value: { t: { 13: run.platform } } } };
    const { upsertBucket } = await this.#graphql<UpsertBucket>('UpsertBucket', UPSERT_BUCKET, {
      name: run.id,
      project: run.project,
      entity,
      groupName: run.group,
      displayName: run.displayName,
      notes: run.notes || undefined,
      config: JSON.stringify({ ...Object.fromEntries(config), ...own }),
      host: run.host,
      tags: run.tags,
    });
    const { name, project } = upsertBucket.bucket;
    return { entity: project?.entity?.name ?? entity, project: project?.name ?? run.project, id: name };
  }

  /** Adds to the run's files. @returns true when people asked the run to stop */
  async stream({ entity, project, id }: RunAddress, request: StreamRequest): Promise<boolean> {
    const path = ['files', entity, project, id].map(encodeURIComponent).join('/');
    const answer = await this.#post(`${this.#server.base}/${path}/file_stream`, request);
    return (answer as { stopped?: unknown } | null)?.stopped === true;
  }

  /** Puts media where the server says. @param files bytes by path */
  async upload({ entity, project, id }: RunAddress, files: ReadonlyMap<string, Buffer>): Promise<void> {
    const variables = { entity, project, run: id, files: [...files.keys()] };
    const answer = await this.#graphql<CreateRunFiles>('CreateRunFiles', CREATE_RUN_FILES, variables);
    const { uploadHeaders, files: places } = answer.createRunFiles;
    const headers = Object.fromEntries((uploadHeaders ?? []).map(splitHeader));
    for (const { name, uploadUrl } of places) {
      const bytes = files.get(name);
      if (bytes === undefined || !uploadUrl) continue;
      const url = new URL(uploadUrl, `${this.#server.base}/`);
      const own = url.origin === new URL(this.#server.base).origin ? this.#authorization() : {};
      await this.#request(url.href, { method: 'PUT', headers: { ...own, ...headers }, body: new Uint8Array(bytes) });
    }
  }

  /** Ends the requests that are under way. */
  close(): void {
    this.#closing.abort();
  }

  async #graphql<Data>(operationName: string, query: string, variables: object): Promise<Data> {
    const answer = (await this.#post(`${this.#server.base}/graphql`, { operationName, query, variables })) as {
      data?: Data | null;
      errors?: { message?: unknown }[];
    };
    const [error] = answer.errors ?? [];
    if (error === undefined && answer.data) return answer.data;
    throw new Error(`${this.#server.base}: ${operationName}: ${this.#shorten(String(error?.message ?? 'no answer'))}`);
  }

  async #post(url: string, body: object): Promise<unknown> {
    const headers = { 'content-type': 'application/json', ...this.#authorization() };
    const text = await this.#request(url, { method: 'POST', headers, body: JSON.stringify(body) });
    try {
      return JSON.parse(text || '{}');
    } catch {
      throw new Error(`${this.#server.base}: the answer is not JSON; is this the address of an API?`);
    }
  }

  /** Messages name the server alone: an address may hold a signature, and what goes wrong below names the address. */
  async #request(url: string, options: RequestInit): Promise<string> {
    const signal = AbortSignal.any([AbortSignal.timeout(this.#timeoutMs), this.#closing.signal]);
    let response: Response;
    let text: string;
    try {
      response = await fetch(url, { ...options, redirect: 'manual', signal });
      text = await response.text();
    } catch (error) {
      throw new Error(`${this.#server.base}: ${this.#shorten(reasonOf(error))}`);
    }
    if (response.ok) return text;
    throw new Error(`${this.#server.base}: HTTP ${response.status}${this.#hint(response.status, text)}`);
  }

  #authorization(): { authorization: string } {
    return { authorization: `Basic ${Buffer.from(`api:${this.#server.key}`).toString('base64')}` };
  }

  #hint(status: number, text: string): string {
    if (status === 401) return ': the server does not know the key; see WANDB_API_KEY and the netrc file';
    if (status === 403) return ': the key may not write there; see WANDB_ENTITY and WANDB_PROJECT';
    if (status === 409) return ': a run of this id was deleted; delete metrics/wandb.json for a new id';
    if (status >= 300 && status < 400) return ': the server is elsewhere; see WANDB_BASE_URL';
    return status >= 500 || text === '' ? '' : `: ${this.#shorten(text)}`;
  }

  /** What others wrote, in one short line, and without the key should they repeat it. */
  #shorten(text: string): string {
    const { key } = this.#server;
    const encoded = Buffer.from(`api:${key}`).toString('base64');
    const line = text.replaceAll(key, '…').replaceAll(encoded, '…').replace(/\s+/g, ' ');
    return line.length > 200 ? `${line.slice(0, 200)}…` : line;
  }
}

interface ResumeStatus {
  model: {
    bucket: {
      historyLineCount?: number;
      eventsLineCount?: number;
      logLineCount?: number;
      historyTail?: string;
      summaryMetrics?: string;
      wandbConfig?: string;
    } | null;
  } | null;
}

interface UpsertBucket {
  upsertBucket: { bucket: { name: string; project?: { name?: string; entity?: { name?: string } } } };
}

interface CreateRunFiles {
  createRunFiles: { uploadHeaders?: string[]; files: { name: string; uploadUrl?: string }[] };
}

/** An object in JSON in which numbers may be NaN or infinite, as the service writes them; those become null. */
function parseLoosely(text: string): Record<string, unknown> {
  const strict = text.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (part) => (part[0] === '"' ? part : 'null'));
  const value: unknown = JSON.parse(strict);
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {};
}

function splitHeader(line: string): [string, string] {
  const colon = line.indexOf(':');
  return [line.slice(0, colon), line.slice(colon + 1).trim()];
}

/** `fetch failed` says nothing; its cause does. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return 'no answer in time';
  if (error.name === 'AbortError') return 'the request was given up';
  const { cause } = error;
  if (isSystemError(cause)) {
    const broke = /^(UND_ERR|ECONNRESET|EPIPE)/.test(cause.code ?? '');
    return `${broke ? 'the connection broke off' : 'cannot be reached'} (${cause.code})`;
  }
  return cause instanceof Error ? cause.message : error.message;
}
