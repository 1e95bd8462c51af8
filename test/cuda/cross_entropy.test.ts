import { beforeAll, expect, it } from 'vitest';
import { normalisedError } from '../../bench/gpu/compare.ts';
import { cudaAddon, describeCuda, expectAsNative, normals, openBlas, output, runOnCuda } from './support.ts';

const NONE = new Float32Array();

/** Every third is ignored, the others go over the whole vocabulary. */
const targetsOf = (tokens: number, vocabulary: number): Int32Array =>
  Int32Array.from({ length: tokens }, (_, i) => (i % 3 === 1 ? -1 : (i * 7919 + vocabulary - 1) % vocabulary));

describeCuda('crossEntropy on CUDA', () => {
  beforeAll(() => {
    openBlas();
  });

  for (const storage of ['float32', 'bfloat16'] as const) {
    it.each([
      [1, 1, 1],
      [1, 2, 3],
      [5, 8, 63],
      [9, 16, 64],
      [7, 24, 1025],
      [3, 8, 4099],
    ])(`%i tokens of %i over %i words in ${storage}`, async (tokens, width, vocabulary) => {
      const hidden = normals(tokens * width, 1);
      const weight = normals(vocabulary * width, 2);
      const targets = targetsOf(tokens, vocabulary);
      const [sum, losses, dHidden, dWeight] = [1, tokens, tokens * width, vocabulary * width].map(output) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      const [withGradients] = await expectAsNative({
        name: 'crossEntropy',
        args: [hidden, weight, targets, sum, losses, dHidden, dWeight],
        outputs: [sum, losses, dHidden, dWeight],
        storage,
        float32: [weight, sum, losses, dHidden, dWeight],
      });
      const [without] = await expectAsNative({
        name: 'crossEntropy',
        args: [hidden, weight, targets, sum, losses, NONE, NONE],
        outputs: [sum, losses],
        storage,
        float32: [weight, sum, losses],
      });
      expect(without).toEqual(withGradients);
    });
  }

  it('bears logits far from zero', async () => {
    const [tokens, width, vocabulary] = [4, 4, 70];
    const hidden = normals(tokens * width, 1, 100);
    const weight = normals(vocabulary * width, 2, 100);
    const [sum, losses] = [output(1), output(tokens)];
    const args = [hidden, weight, targetsOf(tokens, vocabulary), sum, losses, NONE, NONE];
    await expectAsNative({ name: 'crossEntropy', args, outputs: [sum, losses], storage: 'float32' });
  });

  // More rows than fit into a block need a vocabulary for which the emulated device would take minutes: the size of blocks
  // is a setting for this test.
  it.each([
    [1, 3],
    [3, 7],
    [150, 130],
  ])('gives the same in blocks of %i rows at most for %i tokens', async (rows, tokens) => {
    const [width, vocabulary] = [4, 5];
    const [hidden, weight] = [normals(tokens * width, 1), normals(vocabulary * width, 2)];
    const targets = targetsOf(tokens, vocabulary);
    const [sum, losses, dHidden, dWeight] = [output(1), output(tokens), output(tokens * width), output(20)];
    process.env.MEMORY3_CUDA_LOGITS_BYTES = String(rows * 64 * 4);
    try {
      await expectAsNative({
        name: 'crossEntropy',
        args: [hidden, weight, targets, sum, losses, dHidden, dWeight],
        outputs: [sum, losses, dHidden, dWeight],
        storage: 'float32',
      });
    } finally {
      delete process.env.MEMORY3_CUDA_LOGITS_BYTES;
    }
  });

  it('writes gradients into parts of one tensor', async () => {
    const [tokens, width, vocabulary] = [3, 5, 7];
    const addon = cudaAddon();
    const [hidden, weight, targets] = [normals(15, 1), normals(35, 2), targetsOf(tokens, vocabulary)];
    const [sum, losses, dHidden, dWeight] = [output(1), output(tokens), output(15), output(35)];
    const outputs = [sum, losses, dHidden, dWeight];
    const args = [hidden, weight, targets, ...outputs];
    const [, , ofHidden, ofWeight] = await runOnCuda({ name: 'crossEntropy', args, outputs, storage: 'float32' });

    const handles = [15, 35, 3, 1, 3, 50].map((count, i) => addon.allocate(count, i === 2 ? 1 : 0)!);
    const [h, w, t, s, l, state] = handles as [number, number, number, number, number, number];
    addon.write(hidden, h);
    addon.write(weight, w);
    addon.write(targets, t);
    addon.crossEntropy!(h, w, t, s, l, [state, 0, 15], [state, 15, 35]);
    const both = await addon.read(state, output(tokens * width + vocabulary * width));
    // A product into a place that is less aligned may be computed by another algorithm.
    expect(normalisedError(both.slice(0, 15), ofHidden as Float32Array)).toBeLessThan(1e-5);
    expect(normalisedError(both.slice(15), ofWeight as Float32Array)).toBeLessThan(1e-5);
    for (const handle of handles) addon.release(handle);
  });

  it.each([
    [7, '7 is no token below 7'],
    [-2, '-2 is no token below 7'],
  ])('says that target %i is no token', async (target, message) => {
    const [sum, losses] = [output(1), output(2)];
    const args = [normals(10, 1), normals(35, 2), Int32Array.of(1, target), sum, losses, NONE, NONE];
    await expect(runOnCuda({ name: 'crossEntropy', args, outputs: [sum, losses], storage: 'float32' })).rejects.toThrow(
      message,
    );
  });

  it('gives nothing without tokens', async () => {
    const addon = cudaAddon();
    const [weight, sum, dWeight] = [addon.allocate(6, 0)!, addon.allocate(1, 0)!, addon.allocate(6, 0)!];
    addon.crossEntropy!(0, weight, 0, sum, 0, 0, dWeight);
    expect(await addon.read(sum, output(1))).toEqual(Float32Array.of(0));
    expect(await addon.read(dWeight, output(6))).toEqual(new Float32Array(6));
    for (const handle of [weight, sum, dWeight]) addon.release(handle);
  });
});
