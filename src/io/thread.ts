/** Threads of JavaScript, and errors on their way between them. */

import { type ResourceLimits, Worker } from 'node:worker_threads';
import { type ErrorCode, type ErrorDetails, UserError } from '../errors.ts';

/**
 * Runs a module of this program in a thread of its own.
 * @param name path of the module beside the caller's, without extension
 * @param caller `import.meta.url` of the caller
 * @param workerData what the module finds as `workerData`
 * @param resourceLimits of its heap; a thread that needs more ends with an error
 */
export function startThread(
  name: string,
  caller: string,
  workerData: unknown,
  resourceLimits?: ResourceLimits,
): Worker {
  const { pathname } = new URL(caller);
  if (!pathname.endsWith('.ts')) {
    return new Worker(new URL(`${name}.js`, caller), { workerData, execArgv: [], resourceLimits });
  }
  // From the sources, as tests are: the thread starts as plain JavaScript, which then learns to load TypeScript.
  const program = `import('tsx/esm/api').then(({ register }) => {
    register();
    return import(${JSON.stringify(new URL(`${name}.ts`, caller).href)});
  });`;
  return new Worker(program, { eval: true, workerData, execArgv: [], resourceLimits });
}

/** An error in a form that crosses between threads, where an object loses its class. */
export type PackedError = { code: ErrorCode; details: ErrorDetails } | { message: string; stack: string | undefined };

export function packError(error: unknown): PackedError {
  if (error instanceof UserError) {
    const { code, where, what, action, cause } = error;
    return { code, details: { where, what, action, cause: cause === undefined ? undefined : String(cause) } };
  }
  return error instanceof Error
    ? { message: error.message, stack: error.stack }
    : { message: String(error), stack: undefined };
}

/** The error that `packError` was given; one that is no UserError comes as an Error with its message and stack. */
export function unpackError(packed: PackedError): Error {
  if ('code' in packed) return new UserError(packed.code, packed.details);
  const error = new Error(packed.message);
  if (packed.stack !== undefined) error.stack = packed.stack;
  return error;
}
