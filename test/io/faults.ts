/**
 * Faults of the file system for tests: a process killed before its n-th operation, or a disk that is full from the n-th
 * on. The functions of `node:fs/promises` are replaced for the time of one call.
 */

import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

/** Thrown in place of the death of a process. */
export class Killed extends Error {}

const OPERATIONS = ['mkdir', 'open', 'rename', 'rm', 'readdir', 'truncate', 'unlink'] as const;
const HANDLE_OPERATIONS = ['write', 'writeFile', 'sync', 'truncate'] as const;
type Operation = (...parameters: unknown[]) => Promise<unknown>;

/**
 * Runs `action` while `before` is called ahead of every file-system operation, with its number from 1 on; what it
 * throws takes the operation's place.
 * @returns the number of operations, and what `action` threw
 */
export async function intercept(
  action: () => Promise<unknown>,
  before: (operation: string, number: number) => void | Promise<void>,
): Promise<{ operations: number; error?: unknown }> {
  const probe = await fs.open(import.meta.filename, 'r');
  const prototype = Object.getPrototypeOf(probe) as Record<string, Operation>;
  await probe.close();
  const module = fs as unknown as Record<string, Operation>;
  let operations = 0;
  const restore: (() => void)[] = [];
  const replace = (owner: Record<string, Operation>, name: string) => {
    const original = owner[name]!;
    owner[name] = async function (this: unknown, ...parameters: unknown[]) {
      operations += 1;
      await before(name, operations);
      return original.apply(this, parameters);
    };
    restore.push(() => {
      owner[name] = original;
    });
  };
  for (const name of OPERATIONS) replace(module, name);
  for (const name of HANDLE_OPERATIONS) replace(prototype, name);
  syncBuiltinESMExports();
  try {
    await action();
    return { operations };
  } catch (error) {
    return { operations, error };
  } finally {
    for (const undo of restore) undo();
    syncBuiltinESMExports();
  }
}

/** Runs `action` as if the process died before operation `at`: neither it nor any later one happens. */
export async function killedBefore(at: number, action: () => Promise<unknown>): Promise<{ killed: boolean }> {
  const { operations, error } = await intercept(action, (_, number) => {
    if (number >= at) throw new Killed(`killed before operation ${number}`);
  });
  if (operations < at && error !== undefined) throw error;
  return { killed: operations >= at };
}

/** Runs `action` on a disk that has no space left from the `at`-th operation on that needs some. */
export async function diskFullFrom(
  at: number,
  action: () => Promise<unknown>,
): Promise<{ full: boolean; error?: unknown }> {
  let needing = 0;
  const { error } = await intercept(action, (operation) => {
    if (operation === 'write' || operation === 'writeFile' || operation === 'mkdir' || operation === 'sync')
      needing += 1;
    else return;
    if (needing >= at) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  });
  return { full: needing >= at, error };
}
