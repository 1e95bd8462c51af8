/** The engines that every operation is tested on; those with an addon where it is built, `cuda` on an emulated device. */

import { existsSync } from 'node:fs';
import { ADDON_PATH } from '../src/engine/native/addon.ts';
import { CUDA_PATH } from './cuda/support.ts';

export type TestedEngine = 'cpu' | 'wasm' | 'native' | 'cuda';

/** Whether the cuda engine can be tested; importing this makes the engine open the addon under test. */
export const hasCuda = existsSync(CUDA_PATH);
if (hasCuda) process.env.MEMORY3_CUDA_ADDON = CUDA_PATH;

export const ENGINES: readonly TestedEngine[] = [
  'cpu',
  'wasm',
  ...(existsSync(ADDON_PATH) ? (['native'] as const) : []),
  ...(hasCuda ? (['cuda'] as const) : []),
];
