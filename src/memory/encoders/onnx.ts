/**
 * Retrieval by an encoder that the user brings as an ONNX file with its tokenizer, such as BGE-M3 (Chen et al. 2024), whose
 * `<cls>` vector the paper retrieves by. The runtime is an optional package; it computes in a thread of its own.
 *
 * Legend: n texts, L tokens of the longest text of a batch, d dimensions.
 */

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { Tokenizer } from 'tokenizers';
import { z } from 'zod';
import type { RetrievalConfig, RunConfig } from '../../config/schema.ts';
import { padToken, parseTokenizer } from '../../data/tokenizer.ts';
import { isSystemError, UserError } from '../../errors.ts';
import { sha256, sha256File } from '../../io/files.ts';
import { normalised } from '../index.ts';
import type { StoredEncoder } from '../layout.ts';
import type { DecodeChunk, RetrievalEncoder, WrittenReferences } from './encoder.ts';
import { ModelThread } from './model_thread.ts';
import { weightFiles } from './onnx_file.ts';
import { pooled, type TokenBatch, tokenBatches } from './token_batches.ts';

const RUNTIME = 'onnxruntime-node';
const VERSION = '1.30.0';

/** Where the files lie, and how many threads compute. */
export type OnnxFiles = Pick<NonNullable<RetrievalConfig['onnx']>, 'model' | 'tokenizer'> & Pick<RunConfig, 'threads'>;

/** What the vectors depend on: the bank keeps it, so that queries are encoded as the references were. */
const recipeSchema = z.strictObject({
  kind: z.literal('onnx'),
  dimensions: z.int().min(1),
  /** sha256 of the model's file, and of the files beside it that hold its weights, by name. */
  model: z.string(),
  weights: z.record(z.string(), z.string()),
  /** sha256 of the `tokenizer.json`. */
  tokenizer: z.string(),
  pooling: z.enum(['cls', 'mean', 'none']),
  maxTokens: z.int().min(1),
  queryPrefix: z.string(),
  documentPrefix: z.string(),
});
type Recipe = z.infer<typeof recipeSchema>;

/** What the model takes and gives, as the runtime describes it. */
interface Signature {
  inputs: TensorDescription[];
  outputs: TensorDescription[];
}

interface TensorDescription {
  name: string;
  type: string;
  /** Numbers, and names of what is free. */
  shape: (number | string)[];
}

interface Computation {
  inputs: { name: string; type: string; data: Int32Array | BigInt64Array }[];
  shape: [number, number];
  output: string;
}

interface Computed {
  data: unknown;
  shape: number[];
}

/** Runs in the thread; without a computation it describes the model. */
const THREAD = `
const { InferenceSession, Tensor } = require(workerData.runtime);
let opened;
async function answer(computation) {
  const session = await (opened ??= InferenceSession.create(workerData.model, workerData.options));
  if (computation === undefined) return { inputs: session.inputMetadata, outputs: session.outputMetadata };
  const { inputs, shape, output } = computation;
  const feeds = Object.fromEntries(inputs.map(({ name, type, data }) => [name, new Tensor(type, data, shape)]));
  const { data, dims } = (await session.run(feeds, [output]))[output];
  return { data, shape: [...dims] };
}
`;

/** The model in its thread, with the tokenizer. */
interface Opened {
  tokenizer: Tokenizer;
  thread: ModelThread<Computation | undefined, Computed | Signature>;
  inputs: TensorDescription[];
  output: string;
}

export class OnnxEncoder implements RetrievalEncoder {
  readonly dimensions: number;
  readonly readsMemories = false;
  readonly #recipe: Recipe;
  readonly #files: OnnxFiles;
  readonly #decode: DecodeChunk;
  #opened: Promise<Opened> | undefined;

  private constructor(recipe: Recipe, files: OnnxFiles, decode: DecodeChunk) {
    this.dimensions = recipe.dimensions;
    this.#recipe = recipe;
    this.#files = files;
    this.#decode = decode;
  }

  /**
   * A new encoder from the configured files; encodes one text to learn the dimensions.
   * @param decode text of the tokens of a query
   * @throws UserError config_invalid (runtime not installed, outputs that do not fit the pooling), input_missing,
   * input_invalid
   */
  static async create(
    { retrieval, threads }: Pick<RunConfig, 'retrieval' | 'threads'>,
    decode: DecodeChunk,
  ): Promise<OnnxEncoder> {
    if (retrieval.onnx === undefined) throw new Error('retrieval.onnx is not set');
    onnxRuntime();
    const { model, tokenizer, ...settings } = retrieval.onnx;
    const files = { model, tokenizer, threads };
    const recipe: Recipe = { kind: 'onnx', dimensions: 1, ...(await hashes(files)), ...settings };
    const probe = new OnnxEncoder(recipe, files, decode);
    const [first] = tokenBatches(await probe.#tokens(['a']), 0);
    const vectors = await probe.#vectors(first!);
    const encoder = new OnnxEncoder({ ...recipe, dimensions: vectors.length }, files, decode);
    encoder.#opened = probe.#opened;
    return encoder;
  }

  /**
   * The encoder of a bank. That the files are still those it was made with is checked when it is first used.
   * @param files undefined when the configuration names none
   * @throws UserError artefact_missing without files, version_unsupported for a description of another program
   */
  static restore(stored: StoredEncoder, files: OnnxFiles | undefined, decode: DecodeChunk): OnnxEncoder {
    const recipe = recipeSchema.safeParse(stored.description);
    if (!recipe.success || recipe.data.dimensions !== stored.dimensions) {
      const what = 'the bank describes its onnx encoder in a way that this program does not know';
      throw new UserError('version_unsupported', { what, action: 'delete the bank folder and run `memory3 compile`' });
    }
    if (files === undefined) {
      throw new UserError('artefact_missing', {
        where: 'retrieval.onnx',
        what: `the bank is searched with an onnx encoder (sha256 ${recipe.data.model.slice(0, 12)}…), and the configuration names no file`,
        action: 'set retrieval.encoder: onnx with retrieval.onnx.model and retrieval.onnx.tokenizer',
      });
    }
    return new OnnxEncoder(recipe.data, files, decode);
  }

  /** @throws UserError config_invalid, input_missing, artefact_mismatch when the files are not those of the bank */
  async encodeReferences({ texts }: Pick<WrittenReferences, 'texts'>): Promise<Float32Array> {
    return await this.#encode(texts.map((text) => this.#recipe.documentPrefix + text));
  }

  /** @throws as `encodeReferences` */
  async encodeQueries(chunks: readonly Int32Array[]): Promise<Float32Array> {
    const texts = await Promise.all(chunks.map((chunk) => this.#decode(chunk)));
    return await this.#encode(texts.map((text) => this.#recipe.queryPrefix + text));
  }

  describe(): Record<string, unknown> {
    return { ...this.#recipe };
  }

  state(): Uint8Array {
    return new Uint8Array(0);
  }

  async #encode(texts: readonly string[]): Promise<Float32Array> {
    const { tokenizer } = await this.#open();
    const out = new Float32Array(texts.length * this.dimensions);
    for (const batch of tokenBatches(await this.#tokens(texts), padToken(tokenizer) ?? 0)) {
      const vectors = await this.#vectors(batch);
      batch.texts.forEach((text, row) => {
        out.set(vectors.subarray(row * this.dimensions, (row + 1) * this.dimensions), text * this.dimensions);
      });
    }
    return normalised(out, this.dimensions);
  }

  /** Token ids with the special tokens that the tokenizer puts around a text, at most `maxTokens`. */
  async #tokens(texts: readonly string[]): Promise<number[][]> {
    const { tokenizer } = await this.#open();
    const encodings = await tokenizer.encodeBatch([...texts], { addSpecialTokens: true });
    return encodings.map((encoding) => encoding.getIds());
  }

  /** Vectors of a batch as the model and the pooling give them, [n, d]. */
  async #vectors(batch: TokenBatch): Promise<Float32Array> {
    const { thread, inputs, output } = await this.#open();
    const feeds = inputs.map(({ name, type }) => ({ name, type, data: typed(inputData(name, batch), type) }));
    const { data, shape } = (await thread.ask({ inputs: feeds, shape: batch.shape, output })) as Computed;
    const { pooling } = this.#recipe;
    const expected = pooling === 'none' ? batch.shape.slice(0, 1) : batch.shape;
    const fits = shape.length === expected.length + 1 && expected.every((size, i) => shape[i] === size);
    if (!(data instanceof Float32Array) || !fits) {
      const what = `output ${output} is no float32 [${expected.join(', ')}, d] but [${shape.join(', ')}]`;
      throw unfit(this.#files.model, what);
    }
    return pooling === 'none' ? data : pooled(data, batch, pooling);
  }

  async #open(): Promise<Opened> {
    this.#opened ??= this.#load();
    return await this.#opened;
  }

  async #load(): Promise<Opened> {
    const runtime = onnxRuntime();
    const { model, threads } = this.#files;
    requireSame(this.#recipe, await hashes(this.#files), this.#files);
    const { native: tokenizer } = parseTokenizer(this.#files.tokenizer, await readFile(this.#files.tokenizer, 'utf8'));
    tokenizer.setTruncation(this.#recipe.maxTokens);
    const options = {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionProviders: ['cpu'],
      logSeverityLevel: 3,
    };
    const thread: Opened['thread'] = new ModelThread(RUNTIME, THREAD, { runtime, model, options });
    const signature = (await thread.ask(undefined).catch((cause: unknown) => {
      throw unfit(model, `${RUNTIME} cannot open it: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
    })) as Signature;
    return { tokenizer, thread, inputs: chooseInputs(signature, model), output: this.#chooseOutput(signature) };
  }

  /** The output with the vectors of tokens, [n, L, d], or, when the model pools by itself, of texts, [n, d]. */
  #chooseOutput({ outputs }: Signature): string {
    const { pooling } = this.#recipe;
    const rank = pooling === 'none' ? 2 : 3;
    const usual = pooling === 'none' ? 'sentence_embedding' : 'last_hidden_state';
    const fitting = outputs.filter(({ shape }) => shape.length === rank);
    const chosen = fitting.find(({ name }) => name === usual) ?? fitting[0];
    if (chosen !== undefined) return chosen.name;
    const there = outputs.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).join(' and ');
    const needed = rank === 2 ? 'an output [texts, d]' : 'an output [texts, tokens, d]';
    throw new UserError('config_invalid', {
      where: 'retrieval.onnx.pooling',
      what: `${pooling} needs ${needed}; ${this.#files.model} has ${there}`,
      action: rank === 2 ? 'set it to cls or mean' : 'set it to none for a model that gives one vector a text itself',
    });
  }
}

/** The path of the installed runtime. @throws UserError config_invalid when it is not installed */
export function onnxRuntime(): string {
  try {
    return createRequire(import.meta.url).resolve(RUNTIME);
  } catch (cause) {
    throw new UserError('config_invalid', {
      where: 'retrieval.encoder',
      what: `onnx needs ${RUNTIME}, which is not installed`,
      action: `run \`npm install ${RUNTIME}@${VERSION}\` (offline: with ONNXRUNTIME_NODE_INSTALL=skip before it), or choose another encoder`,
      cause,
    });
  }
}

/** sha256 of everything that the vectors depend on. @throws UserError input_missing, input_invalid */
async function hashes({ model, tokenizer }: OnnxFiles): Promise<Pick<Recipe, 'model' | 'weights' | 'tokenizer'>> {
  const bytes = await given(model, 'model', (path) => readFile(path));
  const weights: Record<string, string> = {};
  for (const name of weightFiles(bytes, model)) {
    weights[name] = await given(join(dirname(model), name), 'model', sha256File);
  }
  return { model: sha256(bytes), weights, tokenizer: await given(tokenizer, 'tokenizer', sha256File) };
}

async function given<T>(path: string, key: 'model' | 'tokenizer', read: (path: string) => Promise<T>): Promise<T> {
  try {
    return await read(path);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    const what = cause.code === 'ENOENT' ? 'the file does not exist' : cause.message;
    throw new UserError('input_missing', { where: path, what, action: `correct retrieval.onnx.${key}`, cause });
  }
}

function requireSame(
  recipe: Recipe,
  { model, weights, tokenizer }: Pick<Recipe, 'model' | 'weights' | 'tokenizer'>,
  files: OnnxFiles,
): void {
  const refuse = (key: 'model' | 'tokenizer', where: string, expected: string, found: string): never => {
    throw new UserError('artefact_mismatch', {
      where,
      what: `the bank was made with another file (sha256 ${expected.slice(0, 12)}…, this one has ${found.slice(0, 12)}…)`,
      action: `give the one it was made with under retrieval.onnx.${key}, or delete the bank folder and run \`memory3 compile\``,
    });
  };
  if (model !== recipe.model) refuse('model', files.model, recipe.model, model);
  for (const [name, hash] of Object.entries(weights)) {
    const expected = recipe.weights[name] ?? 'none';
    if (hash !== expected) refuse('model', join(dirname(files.model), name), expected, hash);
  }
  if (tokenizer !== recipe.tokenizer) refuse('tokenizer', files.tokenizer, recipe.tokenizer, tokenizer);
}

/** The inputs of the model, all of which must be known here. */
function chooseInputs({ inputs }: Signature, model: string): TensorDescription[] {
  for (const { name, type } of inputs) {
    if (!INPUTS.includes(name)) throw unfit(model, `it wants the input ${name}, known are ${INPUTS.join(', ')}`);
    if (type !== 'int64' && type !== 'int32') throw unfit(model, `its input ${name} is of type ${type}`);
  }
  if (!inputs.some(({ name }) => name === 'input_ids')) throw unfit(model, 'it has no input input_ids');
  return inputs;
}

const INPUTS = ['input_ids', 'attention_mask', 'token_type_ids'];

function inputData(name: string, { ids, mask }: TokenBatch): Int32Array {
  if (name === 'input_ids') return ids;
  return name === 'attention_mask' ? mask : new Int32Array(ids.length);
}

function typed(data: Int32Array, type: string): Int32Array | BigInt64Array {
  return type === 'int64' ? BigInt64Array.from(data, BigInt) : data;
}

function unfit(where: string, what: string, cause?: unknown): UserError {
  const action = 'export the encoder with inputs input_ids and attention_mask and float32 vectors as its output';
  return new UserError('input_invalid', { where, what, action, cause });
}
