import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type RunConfig, runSchema } from '../../../src/config/schema.ts';
import { UserError } from '../../../src/errors.ts';
import { sha256 } from '../../../src/io/files.ts';
import { storedEncoder } from '../../../src/memory/encoders/encoder.ts';
import { OnnxEncoder, onnxRuntime } from '../../../src/memory/encoders/onnx.ts';
import { DIMENSIONS, type TinyModel, tokenVector, WORDS, writeTinyEncoder } from './onnx_model.ts';

const isInstalled = ((): boolean => {
  try {
    return onnxRuntime() !== '';
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
})();

type Settings = Partial<NonNullable<RunConfig['retrieval']['onnx']>>;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-onnx-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function configOf(settings: Settings = {}, model: TinyModel = {}): Promise<RunConfig> {
  const onnx = { ...(await writeTinyEncoder(folder, model)), ...settings };
  return runSchema.parse({ name: 'test', retrieval: { encoder: 'onnx', onnx }, threads: 1 });
}

const decode = async (chunk: Int32Array): Promise<string> => [...chunk].map((id) => WORDS[id]).join(' ');
const encoderOf = async (settings?: Settings, model?: TinyModel): Promise<OnnxEncoder> =>
  await OnnxEncoder.create(await configOf(settings, model), decode);

/** Vectors of token ids added up and brought to length one. */
function unit(ids: readonly number[]): number[] {
  const sum = Array.from({ length: DIMENSIONS }, (_, i) => ids.reduce((total, id) => total + tokenVector(id)[i]!, 0));
  const length = Math.hypot(...sum);
  return sum.map((value) => value / length);
}

function expectVectors(found: Float32Array, expected: readonly (readonly number[])[]): void {
  expect(found).toHaveLength(expected.length * DIMENSIONS);
  expected.forEach((vector, text) => {
    vector.forEach((value, i) => {
      expect(found[text * DIMENSIONS + i]).toBeCloseTo(value, 5);
    });
  });
}

const [CLS, SEP, EURO, DOG, BARKS, COIN] = [1, 2, 4, 5, 6, 7];
const TEXTS = ['dog barks', 'euro', 'coin coin dog barks euro', ''];
const IDS = [[DOG, BARKS], [EURO], [COIN, COIN, DOG, BARKS, EURO], []].map((ids) => [CLS, ...ids, SEP]);

describe.skipIf(!isInstalled)('OnnxEncoder', () => {
  it('averages the vectors of the tokens, special ones included', async () => {
    const encoder = await encoderOf({ pooling: 'mean' });
    expect(encoder.dimensions).toBe(DIMENSIONS);
    expectVectors(await encoder.encodeReferences({ texts: TEXTS }), IDS.map(unit));
    expectVectors(await encoder.encodeQueries([Int32Array.of(DOG, BARKS)]), [unit(IDS[0]!)]);
    expect(await encoder.encodeReferences({ texts: [] })).toHaveLength(0);
  });

  it('takes the vector of the first token, or the one that the model gives', async () => {
    const first = await encoderOf();
    expectVectors(
      await first.encodeReferences({ texts: TEXTS }),
      TEXTS.map(() => unit([CLS])),
    );
    const own = await encoderOf({ pooling: 'none' }, { tokenTypes: true });
    expectVectors(await own.encodeReferences({ texts: TEXTS }), IDS.map(unit));
  });

  it('reads at most maxTokens and puts the prefixes in front', async () => {
    const encoder = await encoderOf({ pooling: 'mean', maxTokens: 8, queryPrefix: 'coin ', documentPrefix: 'euro ' });
    const long = 'dog '.repeat(100);
    expectVectors(await encoder.encodeReferences({ texts: [long] }), [unit([CLS, EURO, ...Array(5).fill(DOG), SEP])]);
    expectVectors(await encoder.encodeQueries([Int32Array.of(DOG)]), [unit([CLS, COIN, DOG, SEP])]);
  });

  it('gives the same bits again, for many texts and for calls at the same time', async () => {
    const encoder = await encoderOf({ pooling: 'mean' });
    const texts = Array.from({ length: 3000 }, (_, i) => `dog ${'barks '.repeat(i % 7)}`);
    const [one, other] = await Promise.all([encoder.encodeReferences({ texts }), encoder.encodeReferences({ texts })]);
    expect(one).toEqual(other);
    expect(one.slice(7 * DIMENSIONS, 14 * DIMENSIONS)).toEqual(one.slice(0, 7 * DIMENSIONS));
  });

  it('is made again from what a bank stores, wherever the files lie now', async () => {
    const encoder = await encoderOf({ pooling: 'mean', queryPrefix: 'coin ' });
    const moved = { model: join(folder, 'm.onnx'), tokenizer: join(folder, 't.json'), threads: 1 };
    await copyFile(join(folder, 'model.onnx'), moved.model);
    await copyFile(join(folder, 'tokenizer.json'), moved.tokenizer);
    const restored = OnnxEncoder.restore(storedEncoder(encoder), moved, decode);
    expect(restored.describe()).toEqual(encoder.describe());
    expect(restored.describe()).toMatchObject({ model: sha256(await readFile(moved.model)), weights: {} });
    expect(JSON.stringify(restored.describe())).not.toContain(folder);
    const chunks = [Int32Array.of(DOG), Int32Array.of(EURO, COIN)];
    expect(await restored.encodeQueries(chunks)).toEqual(await encoder.encodeQueries(chunks));
  });

  it('refuses files that are not those of the bank', async () => {
    const stored = storedEncoder(await encoderOf({}, { location: 'weights.bin' }));
    const files = { model: join(folder, 'model.onnx'), tokenizer: join(folder, 'tokenizer.json'), threads: 1 };
    for (const path of ['tokenizer.json', 'weights.bin', 'model.onnx'].map((name) => join(folder, name))) {
      const whole = await readFile(path);
      await writeFile(path, Buffer.concat([whole, Buffer.from('\n')]));
      const changed = OnnxEncoder.restore(stored, files, decode).encodeReferences({ texts: TEXTS });
      if (path.endsWith('.onnx')) await expect(changed).rejects.toBeInstanceOf(UserError);
      else await expect(changed).rejects.toMatchObject({ code: 'artefact_mismatch', where: path });
      await writeFile(path, whole);
    }
    expectVectors(await OnnxEncoder.restore(stored, files, decode).encodeReferences({ texts: ['dog'] }), [unit([CLS])]);
    await writeTinyEncoder(folder, { location: 'weights.bin', tokensOnly: true });
    await expect(OnnxEncoder.restore(stored, files, decode).encodeQueries([])).rejects.toThrow(
      /made with another file \(sha256 .*\n.*retrieval\.onnx\.model.*memory3 compile/,
    );
  });

  it('says what does not fit in a model', async () => {
    await expect(encoderOf({ pooling: 'none' }, { tokensOnly: true })).rejects.toThrow(
      /retrieval\.onnx\.pooling: none needs an output \[texts, d\];.* has last_hidden_state \[n, L, 4\]/,
    );
    await expect(encoderOf({}, { strangeInput: true })).rejects.toThrow(/wants the input pixels/);
    const config = await configOf();
    await writeFile(join(folder, 'model.onnx'), '');
    await expect(OnnxEncoder.create(config, decode)).rejects.toMatchObject({ code: 'input_invalid' });
  });

  it('says which file is missing or no tokenizer', async () => {
    await expect(encoderOf({ model: join(folder, 'nowhere.onnx') })).rejects.toMatchObject({
      code: 'input_missing',
      message: expect.stringMatching(/nowhere\.onnx: the file does not exist\n.*retrieval\.onnx\.model/),
    });
    const tokenizer = join(folder, 'broken.json');
    await writeFile(tokenizer, '{}');
    await expect(encoderOf({ tokenizer })).rejects.toMatchObject({ code: 'input_invalid', where: tokenizer });
  });
});

describe.skipIf(isInstalled)('OnnxEncoder without its runtime', () => {
  it('says how to install it', async () => {
    await expect(encoderOf()).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringMatching(/not installed\n.*npm install onnxruntime-node@1\.30\.0/),
    });
  });
});

describe('OnnxEncoder.restore', () => {
  const description = {
    ...{ kind: 'onnx', dimensions: 4, model: 'a'.repeat(64), weights: {}, tokenizer: 'b'.repeat(64) },
    ...{ pooling: 'cls', maxTokens: 512, queryPrefix: '', documentPrefix: '' },
  };
  const stored = { dimensions: 4, description, state: new Uint8Array(0) };
  const files = { model: 'm.onnx', tokenizer: 't.json', threads: 1 };

  it('keeps what the bank says', () => {
    expect(OnnxEncoder.restore(stored, files, decode).describe()).toEqual(description);
  });

  it('wants to know where the files are', () => {
    expect(() => OnnxEncoder.restore(stored, undefined, decode)).toThrow(/names no file\n.*retrieval\.onnx\.model/);
  });

  it('refuses a description of another program', () => {
    const later = { ...stored, description: { ...description, pooling: 'last' } };
    expect(() => OnnxEncoder.restore(later, files, decode)).toThrow(/does not know\n.*memory3 compile/);
  });
});
