import { it } from 'vitest';
import { describeCuda, expectAsNativeAnywhere, normals, output, STORAGES } from './support.ts';

describeCuda('swiglu on CUDA', () => {
  for (const storage of STORAGES) {
    it.each([[0], [1], [7], [8], [1003], [70_001]])(`%i numbers in ${storage}`, async (count) => {
      const [gate, up, dy] = [normals(count, 1), normals(count, 2), normals(count, 3)];
      for (const [i, extreme] of [0, -200, 200, -30].entries()) if (i < count) gate[i] = extreme;
      const [out, dGate, dUp] = [output(count), output(count), output(count)];
      await expectAsNativeAnywhere({ name: 'swiglu', args: [gate, up, out], outputs: [out], storage });
      const args = [gate, up, dy, dGate, dUp];
      await expectAsNativeAnywhere({ name: 'swigluGrad', args, outputs: [dGate, dUp], storage });
      await expectAsNativeAnywhere({ name: 'swigluGrad', args, outputs: [dGate, dUp], storage, float32: [dy] });
    });
  }
});
