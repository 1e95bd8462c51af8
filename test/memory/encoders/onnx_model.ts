/** Tiny ONNX models, written byte by byte: each token has a vector of its own in a table. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export const DIMENSIONS = 4;
export const WORDS = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', 'euro', 'dog', 'barks', 'coin'];

/** The vector of token `id`. */
export function tokenVector(id: number): number[] {
  return Array.from({ length: DIMENSIONS }, (_, i) => Math.sin(1 + id * DIMENSIONS + i));
}

const [FLOAT, INT64] = [1, 7];

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) + 128);
  }
}

/** Field `number` of a protobuf message. */
export function field(number: number, value: number | string | Uint8Array): Buffer {
  if (typeof value === 'number') return Buffer.concat([varint(number * 8), varint(value)]);
  const content = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([varint(number * 8 + 2), varint(content.length), content]);
}

const message = (...fields: Buffer[]): Buffer => Buffer.concat(fields);

/** A tensor with its numbers inside, or in the file `location` beside the model. */
export function tensor(name: string, type: number, dims: number[], data: Uint8Array, location?: string): Buffer {
  const shape = dims.map((dim) => field(1, dim));
  if (location === undefined) return message(...shape, field(2, type), field(8, name), field(9, data));
  const entry = message(field(1, 'location'), field(2, location));
  return message(...shape, field(2, type), field(8, name), field(13, entry), field(14, 1));
}

function node(type: string, inputs: string[], output: string, attributes: Buffer[] = []): Buffer {
  const [ins, attrs] = [inputs.map((name) => field(1, name)), attributes.map((each) => field(5, each))];
  return message(...ins, field(2, output), field(4, type), ...attrs);
}

const integer = (name: string, value: number): Buffer => message(field(1, name), field(3, value), field(20, 2));

function value(name: string, type: number, dims: (number | string)[]): Buffer {
  const shape = dims.map((dim) => field(1, field(typeof dim === 'number' ? 1 : 2, dim)));
  return message(field(1, name), field(2, field(1, message(field(1, type), field(2, message(...shape))))));
}

export interface TinyModel {
  /** The table lies in this file beside the model. */
  location?: string;
  /** Another input than those of encoders. */
  strangeInput?: boolean;
  /** Also takes `token_type_ids`, and adds them to the ids. */
  tokenTypes?: boolean;
  /** Leaves out the vectors of texts. */
  tokensOnly?: boolean;
}

/** `last_hidden_state`: a row of the table for each token that is not masked; `sentence_embedding`: their sum. */
function tinyModel(table: Uint8Array, { location, strangeInput, tokenTypes, tokensOnly }: TinyModel): Buffer {
  const one = Buffer.from(BigInt64Array.of(1n).buffer);
  const two = Buffer.from(BigInt64Array.of(2n).buffer);
  const inputs = [
    'input_ids',
    'attention_mask',
    ...(strangeInput ? ['pixels'] : []),
    ...(tokenTypes ? ['token_type_ids'] : []),
  ];
  const outputs = [value('last_hidden_state', FLOAT, ['n', 'L', DIMENSIONS])];
  if (!tokensOnly) outputs.unshift(value('sentence_embedding', FLOAT, ['n', DIMENSIONS]));
  const nodes = [
    tokenTypes ? node('Add', ['input_ids', 'token_type_ids'], 'ids') : node('Identity', ['input_ids'], 'ids'),
    node('Gather', ['table', 'ids'], 'rows'),
    node('Cast', ['attention_mask'], 'real', [integer('to', FLOAT)]),
    node('Unsqueeze', ['real', 'two'], 'mask'),
    node('Mul', ['rows', 'mask'], 'last_hidden_state'),
    node('ReduceSum', ['last_hidden_state', 'one'], 'sentence_embedding', [integer('keepdims', 0)]),
  ];
  const graph = message(
    ...nodes.map((each) => field(1, each)),
    field(2, 'tiny'),
    field(5, tensor('table', FLOAT, [WORDS.length, DIMENSIONS], table, location)),
    field(5, tensor('one', INT64, [1], one)),
    field(5, tensor('two', INT64, [1], two)),
    ...inputs.map((name) => field(11, value(name, INT64, ['n', 'L']))),
    ...outputs.map((each) => field(12, each)),
  );
  return message(field(1, 8), field(7, graph), field(8, field(2, 13)));
}

/** Writes `model.onnx` and `tokenizer.json`, which puts [CLS] and [SEP] around the words of a text. */
export async function writeTinyEncoder(
  folder: string,
  options: TinyModel = {},
): Promise<{ model: string; tokenizer: string }> {
  const files = { model: join(folder, 'model.onnx'), tokenizer: join(folder, 'tokenizer.json') };
  const table = new Uint8Array(Float32Array.from(WORDS.flatMap((_, id) => tokenVector(id))).buffer);
  await writeFile(files.model, tinyModel(table, options));
  if (options.location !== undefined) await writeFile(join(folder, options.location), table);
  const special = (id: number) => ({ SpecialToken: { id: WORDS[id], type_id: 0 } });
  const json = {
    version: '1.0',
    added_tokens: WORDS.slice(0, 3).map((content, id) => ({
      ...{ id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
    })),
    normalizer: null,
    pre_tokenizer: { type: 'Whitespace' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [special(1), { Sequence: { id: 'A', type_id: 0 } }, special(2)],
      pair: [special(1), { Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 0 } }],
      special_tokens: Object.fromEntries(
        [1, 2].map((id) => [WORDS[id], { id: WORDS[id], ids: [id], tokens: [WORDS[id]] }]),
      ),
    },
    decoder: null,
    model: { type: 'WordLevel', vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])), unk_token: '[UNK]' },
  };
  await writeFile(files.tokenizer, JSON.stringify(json));
  return files;
}
