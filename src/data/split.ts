/** Which documents are held out. */

import { sha256 } from '../io/files.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import type { Split } from './token_dataset.ts';

/** 48 bits of a hash of the text: the number under which a document's random choices are looked up. */
export function documentKey(text: string): number {
  return Number.parseInt(sha256(text).slice(0, 12), 16);
}

/**
 * Chosen by the text alone: the same text is never both trained on and held out, whatever file it stands in.
 * @param key `documentKey` of the text
 */
export function splitOf(key: number, seed: number, validationShare: number): Split {
  return randomUniform(seed, PURPOSE.split, 0, key) < validationShare ? 'validation' : 'train';
}
