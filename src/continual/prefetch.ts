/**
 * Micro-batches read ahead in a thread of their own while the model computes. The thread has a bank, an index, a row cache
 * and an engine of its own and runs the code that would run in the step, so that what it reads has the same bits. Readings
 * belong to the version of the bank that was open when they were asked for; those of an older one are never handed out.
 */

import type { Worker } from 'node:worker_threads';
import type { EngineName, RunConfig } from '../config/schema.ts';
import { type PackedError, startThread, unpackError } from '../io/thread.ts';
import type { CacheStats } from '../memory/row_cache.ts';
import type { Place, Reading } from './batch_reader.ts';

/** What the thread works with. */
export interface PrefetchSetup {
  config: RunConfig;
  /** The engine that searches in the step, so that scores are rounded alike. */
  engine: EngineName;
  /** Folders of the bank and of the token dataset of the steps with memories, and the file of the tokenizer. */
  bank: string;
  tokens: string;
  tokenizer: string;
  /** Token ids of `<s>Reference:`. */
  prefix: Int32Array;
}

type Work = { open: { version: number } } | { read: { place: Place; version: number } };
export type Request = { number: number } & Work;
export type Answer = { number: number } & (
  | { opened: true }
  | { reading: Reading; cache: CacheStats }
  | { failed: PackedError }
);

interface Waiting {
  resolve(answer: Answer): void;
  reject(error: Error): void;
}

export class Prefetcher {
  /** Use of the thread's row cache. */
  cache: CacheStats = { hits: 0, misses: 0, hitRate: 0, bytes: 0 };
  private readonly thread: Worker;
  private readonly ahead: number;
  /** Readings of the open version that were asked for, by place. */
  private readonly readings = new Map<string, Promise<Reading>>();
  private readonly waiting = new Map<number, Waiting>();
  private version: number | undefined;
  private requests = 0;
  private ended: Error | undefined;

  /** Starts the thread. @param ahead micro-batches that are read ahead */
  constructor(setup: PrefetchSetup, ahead: number) {
    this.ahead = ahead;
    this.thread = startThread('./prefetch_thread', import.meta.url, setup);
    this.thread.on('message', (answer: Answer) => this.receive(answer));
    this.thread.on('error', (error) => this.end(error));
    this.thread.on('exit', (code) => this.end(new Error(`the thread that reads ahead ended with ${code}`)));
    // It keeps the process alive only while something is waited for.
    this.thread.unref();
  }

  /**
   * Goes over to a version of the bank; nothing that was read of another one is used from now on.
   * @throws UserError as `Bank.open` and `Retriever.fromBank`
   */
  async open(version: number): Promise<void> {
    if (version === this.version) return;
    this.readings.clear();
    this.version = undefined;
    await this.ask({ open: { version } });
    this.version = version;
  }

  /**
   * The reading of `place`, made now if it was not made ahead, and asks for the first of `next`.
   * @throws UserError of a damaged dataset or bank, as in the step
   */
  async read(place: Place, next: Iterable<Place>): Promise<Reading> {
    const reading = this.request(place);
    let asked = 0;
    for (const later of next) {
      if (asked++ === this.ahead) break;
      void this.request(later);
    }
    this.readings.delete(keyOf(place));
    return await reading;
  }

  /** The reading of `place`, when it was asked for ahead and is still to be handed out. */
  coming(place: Place): Promise<Reading> | undefined {
    return this.readings.get(keyOf(place));
  }

  /** Ends the thread, whatever it does. Harmless when it has ended. */
  async close(): Promise<void> {
    await this.thread.terminate();
  }

  private request(place: Place): Promise<Reading> {
    const { version } = this;
    if (version === undefined) throw new Error('no version of the bank is open');
    const known = this.readings.get(keyOf(place));
    if (known !== undefined) return known;
    const reading = this.ask({ read: { place, version } }).then((answer) => {
      if (!('reading' in answer)) throw new Error('the thread that reads ahead answered something else');
      this.cache = answer.cache;
      return answer.reading;
    });
    // One that fails before its step comes is reported then.
    reading.catch(() => undefined);
    this.readings.set(keyOf(place), reading);
    return reading;
  }

  private ask(work: Work): Promise<Answer> {
    if (this.ended !== undefined) return Promise.reject(this.ended);
    const number = this.requests++;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, { resolve, reject });
      this.thread.ref();
      this.thread.postMessage({ number, ...work } satisfies Request);
    });
  }

  private receive(answer: Answer): void {
    const waiting = this.waiting.get(answer.number);
    this.waiting.delete(answer.number);
    if (this.waiting.size === 0) this.thread.unref();
    if ('failed' in answer) waiting?.reject(unpackError(answer.failed));
    else waiting?.resolve(answer);
  }

  private end(error: Error): void {
    this.ended ??= error;
    for (const { reject } of this.waiting.values()) reject(this.ended);
    this.waiting.clear();
  }
}

function keyOf(place: Place): string {
  return place.kind === 'training' ? `${place.step}:${place.micro}` : `validation:${place.batch}`;
}
