/** The engines that every operation is tested on; those with an addon where it is built, `cuda` on an emulated device. */

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ADDON_PATH } from '../src/engine/native/addon.ts';

export type TestedEngine = 'cpu' | 'wasm' | 'native' | 'cuda';

const EMULATED_PATH = fileURLToPath(new URL('../build/native/memory3_cuda_emulated.node', import.meta.url));
/** What MEMORY3_TEST_CUDA names instead, so that the same tests run on a GPU. */
const cudaPath = process.env.MEMORY3_TEST_CUDA ?? EMULATED_PATH;
export const hasCuda = existsSync(cudaPath);
if (hasCuda) process.env.MEMORY3_CUDA_ADDON = cudaPath;

export const ENGINES: readonly TestedEngine[] = [
  'cpu',
  'wasm',
  ...(existsSync(ADDON_PATH) ? (['native'] as const) : []),
  ...(hasCuda ? (['cuda'] as const) : []),
];
