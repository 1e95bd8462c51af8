/**
 * Weights & Biases over the network. The server counts lines, and a request says at which line its own begin. When an
 * answer is lost nobody knows whether the lines arrived: the server is asked before anything is sent again.
 */

import type { Ending, Sink, TrackedRow, TrackedRun } from '../sink.ts';
import type { MetricsRow } from '../values.ts';
import { type RunAddress, type RunOnServer, type StreamFiles, type StreamRequest, WandbApi } from './api.ts';
import { historyLine, historyRow, jsonObject, valueJson, valueObject } from './history.ts';
import { aboutRun, type Identity, identify } from './identity.ts';
import { EXIT_CODES } from './records.ts';
import { findServer } from './server.ts';
import { systemMetrics } from './system_metrics.ts';

/** The files of a run that grow by lines. */
const FILES = { history: 'wandb-history.jsonl', events: 'wandb-events.jsonl', output: 'output.log' } as const;
type StreamName = keyof typeof FILES;
const STREAMS = Object.keys(FILES) as StreamName[];
const SUMMARY_FILE = 'wandb-summary.json';

export interface OnlineOptions {
  anew?: boolean;
  onStop?: (who: string) => void;
  env?: NodeJS.ProcessEnv;
  /** A request without an answer after so long has failed. */
  timeoutMs?: number;
  /** Larger requests are split. */
  mostBytes?: number;
}

/** The end of a file on the server. */
interface Tail {
  /** Lines there. */
  lines: number;
  /** So many of the lines that are being given are among them. */
  given: number;
}

export class OnlineSink implements Sink {
  readonly name = 'wandb';
  readonly every: number;
  readonly #run: TrackedRun;
  readonly #options: Required<Omit<OnlineOptions, 'onStop'>> & Pick<OnlineOptions, 'onStop'>;
  #identity: Identity | undefined;
  #api: WandbApi | undefined;
  #address: RunAddress = { entity: '', project: '', id: '' };
  #place = '';
  #tails: Record<StreamName, Tail> = emptyTails();
  /** False from when a request is sent until its answer is there. */
  #isCertain = false;
  /** Last step of the history on the server. */
  #step = -1;
  /** Time of the last row, seconds since 1970. */
  #time = 0;
  /** Last values, in JSON. */
  #summary = new Map<string, string>();
  #isStopped = false;

  constructor(run: TrackedRun, options: OnlineOptions = {}) {
    this.#run = run;
    this.#options = { anew: false, env: process.env, timeoutMs: 60_000, mostBytes: 10 * 2 ** 20, ...options };
    // The service counts requests; the variable is the official client's.
    const every = Number(this.#options.env.WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL);
    this.every = every > 0 ? every : 10;
  }

  get place(): string {
    return this.#place;
  }

  /** Goes on behind the rows that the server has, also those after `lastStep`: what is there stays as it is. */
  async open(): Promise<number> {
    await this.close();
    const { anew, env, timeoutMs } = this.#options;
    const server = await findServer(env);
    this.#identity ??= await identify(this.#run.root, anew);
    const about = aboutRun(this.#run, this.#identity, env);
    this.#api = new WandbApi(server, timeoutMs);
    const entity = about.entity ?? (await this.#api.defaultEntity());
    const known = await this.#api.runStatus({ entity, project: about.project, id: about.id });
    this.#address = await this.#api.upsertRun(about, entity);
    const { project, id } = this.#address;
    this.#place = `${server.app}/${[this.#address.entity, project, 'runs', id].map(encodeURIComponent).join('/')}`;
    this.#tails = emptyTails();
    this.#step = -1;
    this.#summary = new Map(Object.entries(known?.summary ?? {}).map(([name, value]) => [name, valueJson(value)]));
    if (known !== undefined) this.#take(known);
    this.#time = Number(known?.summary._timestamp ?? this.#identity.startedAt);
    for (const name of STREAMS) this.#tails[name].given = 0;
    this.#isCertain = true;
    return this.#step;
  }

  async write(rows: readonly TrackedRow[]): Promise<void> {
    await this.#settle();
    const lines: string[] = [];
    const fresh = rows.filter(({ step }) => step > this.#step);
    for (const row of fresh) {
      const history = historyRow(row, this.#identity!.startedAt);
      const files = new Map(history.files.map(({ path, bytes }) => [path, bytes]));
      if (files.size > 0) await this.#api!.upload(this.#address, files);
      lines.push(historyLine(history));
      for (const [name, value] of history.values) {
        this.#summary.set(name, typeof value === 'string' ? value : valueObject(value));
      }
    }
    let sent = 0;
    await this.#add('history', lines, this.#summaryFile(), (count) => {
      sent += count;
      const { step, time } = fresh[sent - 1]!;
      [this.#step, this.#time] = [step, time];
    });
  }

  async hardware(rows: readonly MetricsRow[]): Promise<void> {
    const { startedAt } = this.#identity!;
    await this.#give(
      'events',
      rows.map((row) => {
        const time = Number(row.time ?? 0);
        const values = Object.entries(systemMetrics(row)).map(([name, value]) => [`system.${name}`, value]);
        const own = { _wandb: true, _timestamp: time, _runtime: Math.max(0, time - startedAt) };
        return JSON.stringify({ ...own, ...Object.fromEntries(values) });
      }),
    );
  }

  async lines(lines: readonly string[]): Promise<void> {
    const time = new Date().toISOString().replace('Z', '000');
    await this.#give(
      'output',
      lines.map((line) => `${time} ${line}`),
    );
  }

  async summary(values: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#settle();
    for (const [name, value] of Object.entries(values)) this.#summary.set(name, valueJson(value));
    await this.#send({ files: this.#summaryFile() });
  }

  async beat(): Promise<void> {
    await this.#settle();
    await this.#send({});
  }

  async finish(ending: Ending): Promise<void> {
    await this.#settle();
    const runtime = Math.max(0, Math.round(this.#time - this.#identity!.startedAt));
    this.#summary.set('_wandb', JSON.stringify({ runtime }));
    await this.#send({ files: this.#summaryFile(), complete: true, exitcode: EXIT_CODES[ending] });
  }

  async close(): Promise<void> {
    this.#api?.close();
    this.#api = undefined;
  }

  /** Asks the server where it stands, when that is not known. */
  async #settle(): Promise<void> {
    if (this.#isCertain) return;
    const known = await this.#api!.runStatus(this.#address);
    if (known === undefined) throw new Error(`${this.#place}: the server has lost the run; start the command again`);
    this.#take(known);
    this.#isCertain = true;
  }

  /** What was acknowledged is there, also when the server counts its lines late. */
  #take(known: RunOnServer): void {
    for (const name of STREAMS) {
      const tail = this.#tails[name];
      const lines = Math.max(tail.lines, known[name]);
      tail.given += lines - tail.lines;
      tail.lines = lines;
    }
    this.#step = Math.max(this.#step, known.step);
  }

  /** Adds lines that come again from the first when this throws. */
  async #give(name: StreamName, lines: readonly string[]): Promise<void> {
    await this.#settle();
    await this.#add(name, lines.slice(this.#tails[name].given));
    this.#tails[name].given = 0;
  }

  /**
   * @param beside other files that go with each request
   * @param onSent told how many lines of a request were acknowledged
   */
  async #add(
    name: StreamName,
    lines: readonly string[],
    beside: StreamFiles = {},
    onSent: (count: number) => void = () => {},
  ): Promise<void> {
    const tail = this.#tails[name];
    const most = this.#options.mostBytes - Buffer.byteLength(JSON.stringify(beside));
    for (const content of split(lines, most)) {
      await this.#send({ files: { [FILES[name]]: { offset: tail.lines, content }, ...beside } });
      tail.lines += content.length;
      tail.given += content.length;
      onSent(content.length);
    }
  }

  /** The summary is one line, written over each time. */
  #summaryFile(): StreamFiles {
    return { [SUMMARY_FILE]: { offset: 0, content: [jsonObject(this.#summary)] } };
  }

  async #send(request: StreamRequest): Promise<void> {
    this.#isCertain = false;
    const stopped = await this.#api!.stream(this.#address, request);
    this.#isCertain = true;
    if (!stopped || this.#isStopped) return;
    this.#isStopped = true;
    this.#options.onStop?.('Weights & Biases');
  }
}

function emptyTails(): Record<StreamName, Tail> {
  const tail = (): Tail => ({ lines: 0, given: 0 });
  return { history: tail(), events: tail(), output: tail() };
}

/** Groups of lines of at most `most` bytes as a request has them, or of one line. */
function* split(lines: readonly string[], most: number): Generator<string[]> {
  let group: string[] = [];
  let size = 0;
  for (const line of lines) {
    const bytes = Buffer.byteLength(JSON.stringify(line)) + 1;
    if (group.length > 0 && size + bytes > most) {
      yield group;
      [group, size] = [[], 0];
    }
    group.push(line);
    size += bytes;
  }
  if (group.length > 0) yield group;
}
