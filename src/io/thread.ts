/** Threads of JavaScript, and errors on their way between them. */

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type ErrorCode, type ErrorDetails, UserError } from '../errors.ts';

/**
 * Runs a module of this program in a thread of its own.
 * @param name path of the module beside the caller's, without extension
 * @param caller `import.meta.url` of the caller
 * @param workerData what the module finds as `workerData`
 */
export function startThread(name: string, caller: string, workerData: unknown): Worker {
  const { pathname } = new URL(caller);
  if (!pathname.endsWith('.ts')) return new Worker(new URL(`${name}.js`, caller), { workerData, execArgv: [] });
  // From the sources: the thread starts as plain JavaScript, which then learns to load TypeScript.
  const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx/esm/api')).href;
  const module = new URL(`${name}.ts`, caller).href;
  const program = `import(${JSON.stringify(loader)}).then(({ register }) => {
    register();
    return import(${JSON.stringify(module)});
  });`;
  return new Worker(program, { eval: true, workerData, execArgv: [] });
}

/** An error in a form that crosses between threads, where an object loses its class. */
export type PackedError = { code: ErrorCode; details: ErrorDetails } | { error: Error };

export function packError(error: unknown): PackedError {
  if (!(error instanceof UserError)) return { error: error instanceof Error ? error : new Error(String(error)) };
  const { code, where, what, action } = error;
  return { code, details: { where, what, action, cause: String(error.cause ?? '') || undefined } };
}

/** The error that `packError` was given; one that is no UserError comes as an Error with message and stack. */
export function unpackError(packed: PackedError): Error {
  return 'error' in packed ? packed.error : new UserError(packed.code, packed.details);
}
