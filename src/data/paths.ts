/** Where everything of a run's data is. */

import { basename, dirname, join } from 'node:path';

/** Paths inside a data folder. */
export function dataPaths(folder: string) {
  return {
    tokenizer: join(folder, 'tokenizer.json'),
    tokens: join(folder, 'tokens'),
    /** Text of its own for stage two; absent without `data.continual.sources`. */
    continualTokens: join(folder, 'continual-tokens'),
    references: join(folder, 'references'),
    /** Settings, input files and report of the build; written last. */
    build: join(folder, 'build.json'),
    /** What a build that is under way needs to go on; gone when it is complete. */
    underWay: join(folder, 'under-way'),
  };
}

/** Where a build of `folder` is made. */
export function workFolder(folder: string): string {
  return join(dirname(folder), `.${basename(folder)}.building`);
}
