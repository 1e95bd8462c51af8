/** The runs of a runs folder, found by names that come from outside. */

import { readdirSync, realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';
import { RunFolder } from '../io/run_folder.ts';
import { Refused } from './refused.ts';
import { isInside } from './run_file.ts';

/** A run of the folder. */
export interface Run {
  name: string;
  folder: RunFolder;
  /** The resolved runs folder, which none of its files may leave. */
  within: string;
}

/** More are not listed. */
const MOST_RUNS = 2000;

/** @throws UserError input_invalid when the folder is that of one run */
function refuseRun(folder: string, where: string): void {
  const parts = readdirSync(folder);
  if (!parts.includes('config.yaml') || !parts.includes('metrics')) return;
  const what = 'it is the folder of one run, not one that holds runs';
  throw new UserError('input_invalid', { where, what, action: `give the folder around it: ${dirname(folder)}` });
}

export class Runs {
  /** The resolved runs folder. */
  readonly root: string;

  /** @throws UserError input_missing when there is no such folder; input_invalid when it is a run itself */
  constructor(root: string) {
    const action = 'give the folder that `runsFolder` of the configuration names';
    try {
      this.root = realpathSync(root);
      if (statSync(this.root).isDirectory()) {
        refuseRun(this.root, root);
        return;
      }
    } catch (error) {
      if (!isSystemError(error)) throw error;
      throw new UserError('input_missing', { where: root, what: 'there is no such folder', action, cause: error });
    }
    throw new UserError('input_missing', { where: root, what: 'it is no folder', action });
  }

  /** The runs, by name. */
  list(): Run[] {
    const names = readdirSync(this.root).sort();
    const runs: Run[] = [];
    for (const name of names) {
      const run = this.#find(name);
      if (run !== undefined && runs.push(run) === MOST_RUNS) break;
    }
    return runs;
  }

  /** @throws Refused 404, also for names that lead elsewhere */
  get(name: string): Run {
    const run = this.#find(name);
    if (run === undefined) throw new Refused(404, 'run_unknown', 'there is no such run');
    return run;
  }

  #find(name: string): Run | undefined {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: names with them are refused
    if (!/^[^./\\\u0000-\u001f][^/\\\u0000-\u001f]{0,254}$/.test(name)) return undefined;
    try {
      const path = realpathSync(join(this.root, name));
      if (path === this.root || !isInside(path, this.root) || !statSync(path).isDirectory()) return undefined;
      const parts = readdirSync(path);
      if (!parts.includes('config.yaml') && !parts.includes('metrics')) return undefined;
      return { name, folder: new RunFolder(path), within: this.root };
    } catch (error) {
      if (isSystemError(error)) return undefined;
      throw error;
    }
  }
}
