/** A program that computes in a thread of its own, beside the model that is served or trained. */

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

type Reply<Answer> = { answer: Answer } | { error: string };

/** What goes around a program: it defines `answer(request)` and finds `workerData`. */
const program = (text: string): string => `
const { parentPort, workerData } = require('node:worker_threads');
${text}
parentPort.on('message', async (request) => {
  try {
    parentPort.postMessage({ answer: await answer(request) });
  } catch (error) {
    parentPort.postMessage({ error: String(error) });
  }
});
`;

/** Asked one thing at a time. The thread begins with the first request and keeps the process alive only while it works. */
export class ModelThread<Request, Answer> {
  readonly #name: string;
  readonly #program: string;
  readonly #data: unknown;
  #thread: Worker | undefined;
  /** Settles when the last request is answered. */
  #last: Promise<unknown> = Promise.resolve();

  /**
   * @param name what runs, for messages
   * @param text plain JavaScript, so that it needs no file beside the program
   * @param data what the program finds as `workerData`
   */
  constructor(name: string, text: string, data: unknown) {
    this.#name = name;
    this.#program = program(text);
    this.#data = data;
  }

  /** @throws Error with what the program threw; the next request starts it anew */
  async ask(request: Request): Promise<Answer> {
    const work = this.#last.then(() => this.#ask(request));
    this.#last = work.catch(() => undefined);
    return await work;
  }

  async #ask(request: Request): Promise<Answer> {
    this.#thread ??= new Worker(this.#program, { eval: true, workerData: this.#data });
    const thread = this.#thread;
    thread.ref();
    const given = new AbortController();
    try {
      thread.postMessage(request);
      const ended = once(thread, 'exit', { signal: given.signal }).then(([code]) => {
        throw new Error(`the thread of ${this.#name} ended with ${code}`);
      });
      const answered = once(thread, 'message', { signal: given.signal }) as Promise<[Reply<Answer>]>;
      const [reply] = await Promise.race([answered, ended]);
      if ('error' in reply) throw new Error(`${this.#name}: ${reply.error}`);
      return reply.answer;
    } catch (error) {
      this.#thread = undefined;
      await thread.terminate();
      throw error;
    } finally {
      given.abort();
      thread.unref();
    }
  }
}
