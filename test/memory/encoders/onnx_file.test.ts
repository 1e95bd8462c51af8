import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.ts';
import { weightFiles } from '../../../src/memory/encoders/onnx_file.ts';
import { temporaryFolder } from '../fixtures.ts';
import { field, tensor, writeTinyEncoder } from './onnx_model.ts';

const graph = (...fields: Buffer[]): Buffer => field(7, Buffer.concat(fields));
const elsewhere = (location: string): Buffer => tensor('t', 1, [2], new Uint8Array(0), location);

describe('weightFiles', () => {
  it('names the files beside a model, those of constants and of inner graphs too', () => {
    const constant = field(5, field(5, elsewhere('constants.bin')));
    const branch = field(5, field(6, field(5, elsewhere('branch.bin'))));
    const model = graph(
      field(5, elsewhere('weights.bin')),
      field(5, elsewhere('weights.bin')),
      field(1, constant),
      field(1, branch),
    );
    expect(weightFiles(model, 'm.onnx')).toEqual(['branch.bin', 'constants.bin', 'weights.bin']);
  });

  it('finds none where the weights are inside', async () => {
    const { model } = await writeTinyEncoder(await temporaryFolder());
    expect(weightFiles(await readFile(model), model)).toEqual([]);
  });

  it('refuses what is cut off or no model, whatever the bytes', async () => {
    const { model } = await writeTinyEncoder(await temporaryFolder(), { location: 'weights.bin' });
    const whole = await readFile(model);
    expect(() => weightFiles(whole.subarray(0, whole.length - 20), 'm.onnx')).toThrow(
      /m\.onnx: the file is not an ONNX/,
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(whole.length), (bytes, cut) => {
        for (const damaged of [bytes, Buffer.concat([whole.subarray(0, cut), bytes])]) {
          try {
            weightFiles(damaged, 'm.onnx');
          } catch (error) {
            expect(error).toBeInstanceOf(UserError);
          }
        }
      }),
    );
  });
});
