/** Writing to a run that is open for reading, where that can be done. */

import { isSystemError, UserError } from '../errors.ts';
import { lockRunFolder } from '../io/run_folder.ts';

export class RunWriter {
  readonly #root: string;
  readonly #say: (line: string) => void;
  #hasRefused = false;

  /**
   * @param root folder of the run
   * @param say told once why nothing can be written
   */
  constructor(root: string, say: (line: string) => void) {
    this.#root = root;
    this.#say = say;
  }

  /** Does `work` as the one writer of the run. @returns false when another process has it or it cannot be written to */
  async attempt(work: () => Promise<void>): Promise<boolean> {
    try {
      const lock = await lockRunFolder(this.#root);
      try {
        await work();
      } finally {
        lock.release();
      }
      return true;
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (!this.#hasRefused) this.#say(`what is written is used and not stored: ${error.message.split('\n')[0]}`);
      this.#hasRefused = true;
      return false;
    }
  }
}

function isRefusal(error: unknown): error is Error {
  if (error instanceof UserError) return error.code === 'run_locked' || error.code === 'disk_full';
  return isSystemError(error) && ['EROFS', 'EACCES', 'EPERM'].includes(error.code ?? '');
}
