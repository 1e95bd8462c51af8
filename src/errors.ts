/**
 * The one table of user errors. A user error says what is wrong, where, and what to do about it; anything
 * else that is thrown is a defect of ours and keeps its stack.
 */

/** Code → what is wrong in general, and the exit status of the command that meets it. */
export const ERRORS = {
  config_invalid: { summary: 'the configuration is not valid', exitCode: 2 },
  usage_invalid: { summary: 'the command line is not valid', exitCode: 2 },
  input_missing: { summary: 'an input file or folder does not exist', exitCode: 3 },
  input_invalid: { summary: 'an input cannot be used', exitCode: 3 },
  input_empty: { summary: 'an input holds nothing usable', exitCode: 3 },
  file_truncated: { summary: 'a file ends too early', exitCode: 4 },
  file_corrupt: { summary: 'a file does not match its checksum or format', exitCode: 4 },
  version_unsupported: { summary: 'a file was written in a format version this program does not read', exitCode: 4 },
  artefact_mismatch: { summary: 'two artefacts do not belong together', exitCode: 5 },
  artefact_missing: { summary: 'an artefact of an earlier stage is not there', exitCode: 5 },
  engine_unavailable: { summary: 'the chosen engine is not available', exitCode: 6 },
  run_locked: { summary: 'another process is using the run folder', exitCode: 7 },
  disk_full: { summary: 'the disk is full', exitCode: 8 },
  device_memory: { summary: 'the memory of the GPU is full', exitCode: 13 },
  training_diverged: { summary: 'training produced a value that is not finite', exitCode: 9 },
  memory_unknown: { summary: 'the bank holds no such memory', exitCode: 10 },
  export_failed: { summary: 'a run could not be exported', exitCode: 12 },
  download_failed: { summary: 'something could not be downloaded', exitCode: 11 },
} as const satisfies Record<string, { summary: string; exitCode: number }>;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetails {
  /** The file, config path, id or flag that is at fault. */
  where?: string;
  /** What exactly is wrong with it. */
  what: string;
  /** What the user can do. */
  action?: string;
  cause?: unknown;
}

/** An error whose message is meant for the user: `where: what. action`. */
export class UserError extends Error {
  readonly code: ErrorCode;
  readonly where: string | undefined;
  readonly what: string;
  readonly action: string | undefined;

  constructor(code: ErrorCode, details: ErrorDetails) {
    const where = details.where === undefined ? '' : `${details.where}: `;
    const action = details.action === undefined ? '' : `\n  → ${details.action}`;
    super(`${where}${details.what}${action}`, { cause: details.cause });
    this.name = 'UserError';
    this.code = code;
    this.where = details.where;
    this.what = details.what;
    this.action = details.action;
  }

  get exitCode(): number {
    return ERRORS[this.code].exitCode;
  }
}

/** For `catch`: what a user error says is damaged or missing is taken as not there. */
export function ignoreUserError(error: unknown): undefined {
  if (error instanceof UserError) return undefined;
  throw error;
}

/** True for errors of the operating system that carry a code such as `ENOENT`. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return (
    error instanceof Error && !(error instanceof UserError) && typeof (error as NodeJS.ErrnoException).code === 'string'
  );
}
