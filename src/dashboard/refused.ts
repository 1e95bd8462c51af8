/** Why a request is not answered, in words that may leave this machine: no stack, no path outside of the run. */

import { relative } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';

export type RefusalStatus = 400 | 403 | 404 | 405 | 409 | 413 | 429 | 500 | 503;

export class Refused extends Error {
  readonly status: RefusalStatus;
  readonly code: string;

  constructor(status: RefusalStatus, code: string, message: string) {
    super(message);
    this.name = 'Refused';
    this.status = status;
    this.code = code;
  }
}

/** A file of the run that cannot be used. */
export function damaged(what: string): Refused {
  return new Refused(409, 'file_damaged', what);
}

const MISSING = ['artefact_missing', 'memory_unknown', 'input_missing'];

/**
 * Any error as a refusal.
 * @param root the run folder or the runs folder: paths inside it are told relative to it, others not at all
 */
export function refusalOf(error: unknown, root: string): Refused {
  if (error instanceof Refused) return error;
  if (error instanceof UserError) {
    const where = error.where === undefined ? '' : shown(error.where, root);
    const message = `${where}${error.what.replaceAll(`${root}/`, '')}`;
    return new Refused(MISSING.includes(error.code) ? 404 : 409, error.code, message);
  }
  if (isSystemError(error))
    return new Refused(409, 'file_unreadable', `a file of the run cannot be read (${error.code})`);
  return new Refused(500, 'defect', 'the dashboard met a defect of its own; the terminal it runs in says more');
}

function shown(where: string, root: string): string {
  const path = relative(root, where);
  return path.startsWith('..') ? '' : `${path}: `;
}
