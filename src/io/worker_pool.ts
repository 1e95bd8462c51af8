/** Threads of this program that work off a queue of jobs, with answers in the order of the jobs. */

import { once } from 'node:events';
import { parentPort, type ResourceLimits, type Worker } from 'node:worker_threads';
import { type PackedError, packError, startThread, unpackError } from './thread.ts';

type Reply<Result> = { result: Result } | { error: PackedError };

export interface WorkerPoolOptions {
  /** Path of the module that works, beside the caller's, without extension; it calls `serveJobs`. */
  module: string;
  /** `import.meta.url` of the caller. */
  caller: string;
  /** What the module finds as `workerData`. */
  data?: unknown;
  /** Threads, at least 1. */
  size: number;
  /** Of the heap of each thread. */
  limits?: ResourceLimits;
}

/** A fixed number of threads; each works on one job at a time. */
export class WorkerPool<Job, Result> {
  readonly #size: number;
  readonly #idle: Worker[];
  readonly #all: Worker[];
  readonly #waiting: ((worker: Worker) => void)[] = [];
  /** Threads that ended, and why. */
  readonly #ended = new Map<Worker, Error>();
  #closed = false;

  constructor({ module, caller, data, size, limits }: WorkerPoolOptions) {
    this.#size = size;
    this.#all = Array.from({ length: size }, () => startThread(module, caller, data, limits));
    // A thread that fails between jobs is told by the next job that it gets.
    for (const worker of this.#all) {
      worker.once('error', (error) => this.#ended.set(worker, error));
      worker.once('exit', (code) => {
        if (!this.#ended.has(worker)) this.#ended.set(worker, new Error(`a thread ended with ${code}`));
      });
    }
    this.#idle = [...this.#all];
  }

  /**
   * Waits for a free thread and gives it the job.
   * @param transfer buffers that are handed over instead of copied
   * @throws what the job threw; Error when its thread ended
   */
  async run(job: Job, transfer: readonly ArrayBuffer[] = []): Promise<Result> {
    const worker = this.#idle.pop() ?? (await new Promise<Worker>((free) => this.#waiting.push(free)));
    try {
      const ended = this.#ended.get(worker);
      if (ended) throw ended;
      const reply = await ask<Job, Result>(worker, job, transfer);
      if ('error' in reply) throw unpackError(reply.error);
      return reply.result;
    } finally {
      const next = this.#waiting.shift();
      if (next) next(worker);
      else this.#idle.push(worker);
    }
  }

  /**
   * The results of `jobs` in their order. Twice as many jobs as threads are under way at most, so that a slow consumer
   * holds the jobs back.
   * @throws what a job threw, after the results of the jobs before it
   */
  async *map(jobs: AsyncIterable<Job> | Iterable<Job>): AsyncGenerator<Result> {
    const underWay: Promise<Result>[] = [];
    try {
      for await (const job of jobs) {
        const result = this.run(job);
        result.catch(() => undefined);
        underWay.push(result);
        if (underWay.length >= 2 * this.#size) yield await underWay.shift()!;
      }
      while (underWay.length > 0) yield await underWay.shift()!;
    } finally {
      await Promise.allSettled(underWay);
    }
  }

  /** Ends the threads, whatever they are doing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(this.#all.map((worker) => worker.terminate()));
  }
}

async function ask<Job, Result>(worker: Worker, job: Job, transfer: readonly ArrayBuffer[]): Promise<Reply<Result>> {
  const given = new AbortController();
  try {
    worker.postMessage(job, transfer);
    const failed = once(worker, 'exit', { signal: given.signal }).then(([code]) => {
      throw new Error(`a thread ended with ${code}`);
    });
    // `once` rejects with what the thread threw outside of a job.
    const answered = once(worker, 'message', { signal: given.signal }) as Promise<[Reply<Result>]>;
    const [reply] = await Promise.race([answered, failed]);
    return reply;
  } finally {
    given.abort();
  }
}

/** In a module that a `WorkerPool` started: answers jobs one after the other. */
export function serveJobs<Job, Result>(
  work: (job: Job) => Promise<Result>,
  transferOf?: (result: Result) => ArrayBuffer[],
): void {
  let last: Promise<void> = Promise.resolve();
  parentPort?.on('message', (job: Job) => {
    last = last.then(async () => {
      try {
        const result = await work(job);
        parentPort?.postMessage({ result } satisfies Reply<Result>, transferOf?.(result) ?? []);
      } catch (error) {
        parentPort?.postMessage({ error: packError(error) } satisfies Reply<Result>);
      }
    });
  });
}
