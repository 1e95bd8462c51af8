/** Shows in the tests of attention that kernels read no more than they may. */

import type { KernelCall } from './support.ts';

/** The call with what nobody may read, tokens behind Tk and behind the lengths of memories, not a number. */
export function poisoned(call: KernelCall): KernelCall {
  const [, k, v, memoryKeys, memoryValues, lengths] = call.args as [...Float32Array[], Int32Array];
  const [batch, , keyTokens, , kvHeads, dim, kept, , , , , room] = call.args[8] as number[];
  for (const x of [k!, v!]) {
    for (let b = 0; b < batch!; b++) {
      x.fill(Number.NaN, (b * room! + keyTokens!) * kvHeads! * dim!, (b + 1) * room! * kvHeads! * dim!);
    }
  }
  for (const x of [memoryKeys!, memoryValues!]) {
    for (let i = 0; i < lengths!.length * kvHeads!; i++) {
      const length = lengths![Math.floor(i / kvHeads!)]!;
      x.fill(Number.NaN, (i * kept! + length) * dim!, (i + 1) * kept! * dim!);
    }
  }
  return call;
}
