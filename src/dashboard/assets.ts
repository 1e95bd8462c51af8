/** The files of the page: whatever is listed at the start, nothing else. */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.map': 'application/json; charset=utf-8',
};
const UPLOT = ['uPlot.esm.js', 'uPlot.min.css'];

export interface Asset {
  body: Uint8Array<ArrayBuffer>;
  type: string;
}

/** Names under `/assets/` and the files that they stand for. */
export class Assets {
  readonly #paths = new Map<string, string>();

  constructor() {
    const here = dirname(fileURLToPath(import.meta.url));
    // From the sources: what was compiled, over what needs no compiling.
    for (const folder of [join(here, '..', '..', 'dist', 'dashboard', 'page'), join(here, 'page')]) {
      for (const path of filesIn(folder)) this.#paths.set(relative(folder, path).replaceAll(sep, '/'), path);
    }
    const uplot = dirname(createRequire(import.meta.url).resolve('uplot/package.json'));
    for (const name of UPLOT) this.#paths.set(name, join(uplot, 'dist', name));
  }

  get(name: string): Asset | undefined {
    const path = this.#paths.get(name);
    const type = TYPES[extname(name)];
    if (path === undefined || type === undefined) return undefined;
    return { body: new Uint8Array(readFileSync(path)), type };
  }
}

function filesIn(folder: string): string[] {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && TYPES[extname(entry.name)] !== undefined)
    .map((entry) => join(entry.parentPath, entry.name));
}
