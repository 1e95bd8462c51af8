import { expect, it } from 'vitest';
import { packHalf } from '../../src/ops/half.ts';
import { describeCuda, expectAsNativeAnywhere, normals, output, runOnCuda, STORAGES, TOLERANCE } from './support.ts';

/** Numbers of each size that a stored type has, as the words of a bank. */
function stored(type: number, count: number): Int32Array {
  const values = normals(count, 1).map((x, i) => x * 2 ** -(i % 30));
  values.set([0, 65504, -65504, 2 ** -14, 2 ** -24, -(2 ** -15)].slice(0, count));
  const words = type === 0 ? values : packHalf(values, type === 1 ? 'float16' : 'bfloat16');
  return new Int32Array(words.buffer, words.byteOffset, words.byteLength / 4);
}

describeCuda('unpackMemories on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([
      [0, 3, 4, 6],
      [1, 3, 4, 6],
      [2, 2, 2, 640],
      [1, 5, 6, 40],
      [0, 1, 2, 8],
      [2, 2, 130, 2],
    ])(`type %i, %i memories of %i parts of %i, ${storage}`, async (type, memories, count, size) => {
      const parts = Array.from({ length: count }, () => output(memories * size));
      const args = [stored(type, memories * count * size), type, memories, parts];
      const call = { name: 'unpackMemories', args, outputs: parts, storage };
      await expectAsNativeAnywhere(call, storage === 'float32' ? 1e-7 : TOLERANCE.bfloat16);
    });
  }

  it('keeps every number of float16', async () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const part = output(65536);
    const args = [new Int32Array(bits.buffer), 1, 1, [part]];
    const [values] = await runOnCuda({ name: 'unpackMemories', args, outputs: [part], storage: 'float32' });
    for (let i = 0; i < 65536; i++) {
      const [sign, exponent, fraction] = [i >> 15 ? -1 : 1, (i >> 10) & 31, i & 1023];
      const small = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
      const value = exponent === 31 ? (fraction ? Number.NaN : Infinity) : small;
      if (!Object.is(values![i], sign * value)) expect(values![i], `bits ${i}`).toBe(sign * value);
    }
  });
});
