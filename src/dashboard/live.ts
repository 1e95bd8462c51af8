/** Server-sent events: what changes in runs, found by looking at their files about once a second. */

import type { LiveEvent } from './api.ts';
import { eventsOf } from './detail.ts';
import { Refused } from './refused.ts';
import { stampOf, withFile } from './run_file.ts';
import type { Run, Runs } from './runs.ts';
import type { Summaries } from './summary.ts';

const MOST_CLIENTS = 64;
/** Bytes that wait for a client at most; one that is so slow is dropped, and comes again by itself. */
const MOST_WAITING = 2 ** 18;
const TAIL_BYTES = 2 ** 17;
const BEAT_MS = 15_000;
const RETRY_MS = 2000;

export interface LiveOptions {
  /** Milliseconds between two looks. */
  every?: number;
}

/** The lines that are added to a file from now on. */
class Additions {
  readonly #path: string;
  readonly #within: string;
  #offset: number;

  constructor(path: string, within: string) {
    this.#path = path;
    this.#within = within;
    this.#offset = stampOf(path)?.size ?? 0;
  }

  take(): string[] {
    const lines = withFile(this.#path, this.#within, (file) => {
      if (file.size < this.#offset) this.#offset = file.size;
      // Of more than fits only the end is told.
      const from = Math.max(this.#offset, file.size - TAIL_BYTES);
      const bytes = file.read(from, TAIL_BYTES);
      const end = bytes.lastIndexOf(0x0a);
      if (end < 0) return [];
      this.#offset = from + end + 1;
      return bytes.toString('utf8', 0, end).split('\n');
    });
    return lines ?? [];
  }
}

/** One who listens. */
class Client {
  readonly body: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  constructor(onEnd: (client: Client) => void) {
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        cancel: () => {
          this.#controller = undefined;
          onEnd(this);
        },
      },
      { highWaterMark: MOST_WAITING, size: (chunk) => chunk?.byteLength ?? 0 },
    );
  }

  /** @returns false when it is too slow, or gone */
  send(text: string): boolean {
    if ((this.#controller?.desiredSize ?? 0) <= 0) return false;
    this.#controller?.enqueue(new TextEncoder().encode(text));
    return true;
  }

  drop(): void {
    try {
      this.#controller?.error(new Error('too slow'));
    } catch {
      // It has gone already.
    }
    this.#controller = undefined;
  }

  end(): void {
    try {
      this.#controller?.close();
    } catch {
      // It has gone already.
    }
    this.#controller = undefined;
  }
}

/** What one address tells, to all who listen to it. */
interface Channel {
  clients: Set<Client>;
  /** What has changed since the last look, as text to send. */
  look(): string;
  /** What a new listener is told first. @param lastId number of the row it has seen last */
  greeting(lastId: string | undefined): string;
}

export class Live {
  readonly #runs: Runs;
  readonly #summaries: Summaries;
  readonly #every: number;
  readonly #channels = new Map<string, Channel>();
  #timer: NodeJS.Timeout | undefined;
  #beatAt = Date.now() + BEAT_MS;

  constructor(runs: Runs, summaries: Summaries, { every = 1000 }: LiveOptions = {}) {
    this.#runs = runs;
    this.#summaries = summaries;
    this.#every = every;
  }

  get clients(): number {
    return [...this.#channels.values()].reduce((sum, { clients }) => sum + clients.size, 0);
  }

  /** Events of a run. @throws Refused 503 when too many listen */
  listenToRun(run: Run, lastId: string | undefined): ReadableStream<Uint8Array> {
    return this.#listen(`run ${run.name}`, () => this.#runChannel(run), lastId);
  }

  /** Tells when one of the runs has changed. @throws Refused 503 when too many listen */
  listenToList(): ReadableStream<Uint8Array> {
    return this.#listen('list', () => this.#listChannel(), undefined);
  }

  close(): void {
    clearInterval(this.#timer);
    for (const { clients } of this.#channels.values()) for (const client of clients) client.end();
    this.#channels.clear();
  }

  #listen(name: string, make: () => Channel, lastId: string | undefined): ReadableStream<Uint8Array> {
    if (this.clients >= MOST_CLIENTS) throw new Refused(503, 'too_many_listeners', 'too many pages listen already');
    const channel = this.#channels.get(name) ?? make();
    this.#channels.set(name, channel);
    const client = new Client((gone) => this.#remove(name, gone));
    channel.clients.add(client);
    client.send(`retry: ${RETRY_MS}\n\n${channel.greeting(lastId)}`);
    this.#timer ??= setInterval(() => this.#look(), this.#every);
    return client.body;
  }

  #remove(name: string, client: Client): void {
    const channel = this.#channels.get(name);
    channel?.clients.delete(client);
    if (channel?.clients.size === 0) this.#channels.delete(name);
    if (this.#channels.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    const isBeat = Date.now() >= this.#beatAt;
    if (isBeat) this.#beatAt = Date.now() + BEAT_MS;
    for (const [name, channel] of this.#channels) {
      const text = changes(channel) + (isBeat ? ': beat\n\n' : '');
      if (text === '') continue;
      for (const client of channel.clients) {
        if (client.send(text)) continue;
        client.drop();
        this.#remove(name, client);
      }
    }
  }

  #runChannel(run: Run): Channel {
    const { folder, within } = run;
    const [events, log] = [new Additions(folder.events, within), new Additions(folder.log, within)];
    // There is one row a step, so the step of the run is the number of its last row.
    const rows = () => {
      const summary = this.#summaries.summary(run);
      return { id: summary.step, text: JSON.stringify({ rows: summary.step, summary }) };
    };
    let last = rows();
    return {
      clients: new Set(),
      look: () => {
        const now = rows();
        const told = [];
        if (now.text !== last.text) told.push(message('rows', now.text, now.id));
        last = now;
        for (const event of eventsOf(events.take())) told.push(message('happened', JSON.stringify(event)));
        const lines = log.take();
        if (lines.length > 0) told.push(message('log', JSON.stringify({ lines })));
        return told.join('');
      },
      // As it is now: what was seen at the last look is older than what the page has just asked for.
      greeting: (lastId) => {
        const now = rows();
        return lastId === String(now.id) ? '' : message('rows', now.text, now.id);
      },
    };
  }

  #listChannel(): Channel {
    const state = () =>
      new Map(this.#runs.list().map((run) => [run.name, JSON.stringify(this.#summaries.summary(run))]));
    let last = state();
    return {
      clients: new Set(),
      look: () => {
        const now = state();
        const names = new Set([...now.keys(), ...last.keys()]);
        const changed = [...names].filter((name) => now.get(name) !== last.get(name));
        last = now;
        return changed.length > 0 ? message('runs', JSON.stringify({ changed })) : '';
      },
      greeting: () => '',
    };
  }
}

/** A run whose files cannot be looked at now is looked at again. */
function changes(channel: Channel): string {
  try {
    return channel.look();
  } catch {
    return '';
  }
}

function message(event: LiveEvent['event'] | 'runs', data: string, id?: number): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`;
}
