/** The engines that every operation is tested on; the native one where its addon is built. */

import { existsSync } from 'node:fs';
import { ADDON_PATH } from '../src/engine/native/addon.ts';

export const ENGINES: readonly ('cpu' | 'wasm' | 'native')[] = existsSync(ADDON_PATH)
  ? ['cpu', 'wasm', 'native']
  : ['cpu', 'wasm'];
