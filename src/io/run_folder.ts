/** Where the parts of a run lie, and the lock that keeps a second process out of it. */

import { randomUUID } from 'node:crypto';
import { existsSync, linkSync, readdirSync, readFileSync, readlinkSync, rmSync, truncateSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { isSystemError, UserError } from '../errors.ts';
import { cleanLeftovers, diskError, makeFolder, writeAll } from './files.ts';

/** The stages that train, in their order. */
export const STAGES = ['warmup', 'continual'] as const;
export type StageName = (typeof STAGES)[number];

/** The paths of one run folder, `<runsFolder>/<name>`. Creates nothing. */
export class RunFolder {
  readonly root: string;
  /** The resolved configuration. */
  readonly config: string;
  /** Tokenizer, token datasets and references. */
  readonly data: string;
  readonly warmup: string;
  readonly bank: string;
  readonly continual: string;
  readonly metrics: string;

  constructor(root: string) {
    this.root = resolve(root);
    this.config = join(this.root, 'config.yaml');
    this.data = join(this.root, 'data');
    this.warmup = join(this.root, 'warmup');
    this.bank = join(this.root, 'bank');
    this.continual = join(this.root, 'continual');
    this.metrics = join(this.root, 'metrics');
  }

  /** The folder of a stage's checkpoints. */
  checkpoints(stage: StageName): string {
    return join(this[stage], 'checkpoints');
  }

  /** The metrics file of a stage: JSON Lines, one row a step. */
  metricsFile(stage: StageName): string {
    return join(this.metrics, `${stage}.jsonl`);
  }

  /** What happened and when: JSON Lines. */
  get events(): string {
    return join(this.metrics, 'events.jsonl');
  }

  /** Load of the machine and the process over time: JSON Lines. */
  get hardware(): string {
    return join(this.metrics, 'hardware.jsonl');
  }

  /** Generated answers with their traces: JSON Lines. */
  get answers(): string {
    return join(this.metrics, 'answers.jsonl');
  }

  /** What was told to the user, each line behind its time. */
  get log(): string {
    return join(this.metrics, 'log.txt');
  }

  /** Heartbeat of the process that works on the run, and the state of its sinks. */
  get status(): string {
    return join(this.metrics, 'status.json');
  }

  /** Final values of the run. */
  get summary(): string {
    return join(this.metrics, 'summary.json');
  }
}

/** Who holds a lock, told so exactly that a re-used process id is not taken for the holder. */
interface Owner {
  pid: number;
  /** Host name, and the machine's id where it has one. */
  machine: string;
  /** Changes at each start of the machine. */
  boot: string;
  /** Namespace of process ids: a pid of another container says nothing here. */
  namespace: string;
  /** Start of the process in clock ticks after boot; empty where the system does not tell. */
  start: string;
  command: string;
  since: string;
}

export interface RunLock {
  /** The lock file. */
  path: string;
  /** What a killed process had left in the run folder, removed or put back when the lock was taken. */
  cleaned: string[];
  /** Gives the run folder free; a second call does nothing. */
  release(): void;
}

/**
 * Takes the run folder for this process, creating it when needed, and cleans what a killed process left there. The
 * lock is released when the process exits.
 *
 * Lock files are numbered, `.lock-1`, `.lock-2`, …; the highest decides, and it is never deleted. Whoever finds it
 * released or its holder dead creates the next number, which the file system lets only one process do; then it looks
 * again, lest it was so slow that a later number came and went by. A single file could not be taken over safely: a slow
 * process would delete the new holder's file, taking it for the dead one's.
 * @throws UserError run_locked when a living process (or one that cannot be judged from here) holds the folder
 */
export async function lockRunFolder(root: string): Promise<RunLock> {
  const folder = resolve(root);
  await makeFolder(folder);
  const owner = thisProcess();
  for (;;) {
    const highest = Math.max(0, ...lockNumbers(folder));
    if (highest > 0) refuseIfHeld(lockPath(folder, highest), folder);
    const path = lockPath(folder, highest + 1);
    if (!(await createExclusively(path, owner))) continue;
    const numbers = lockNumbers(folder);
    if (numbers.some((number) => number > highest + 1)) {
      rmSync(path, { force: true });
      continue;
    }
    for (const number of numbers) if (number <= highest) rmSync(lockPath(folder, number), { force: true });
    const lock = hold(path);
    try {
      return { ...lock, cleaned: await cleanLeftovers(folder) };
    } catch (error) {
      lock.release();
      throw error;
    }
  }
}

function lockPath(folder: string, number: number): string {
  return join(folder, `.lock-${number}`);
}

function lockNumbers(folder: string): number[] {
  return readdirSync(folder).flatMap((name) => /^\.lock-(\d+)$/.exec(name)?.slice(1).map(Number) ?? []);
}

/** Creates `path` with its content, in one step; false when it exists (or another taker swept our draft away). */
async function createExclusively(path: string, owner: Owner): Promise<boolean> {
  const draft = join(dirname(path), `.${randomUUID()}.tmp`);
  try {
    const handle = await open(draft, 'w');
    try {
      await writeAll(handle, Buffer.from(`${JSON.stringify(owner, null, 2)}\n`));
      await handle.sync();
    } finally {
      await handle.close();
    }
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (isSystemError(error) && (error.code === 'EEXIST' || error.code === 'ENOENT')) return false;
    throw diskError(error, path);
  } finally {
    rmSync(draft, { force: true });
  }
}

/** An emptied lock file is a released one: that needs no space on the disk, and no moment in which it is half done. */
function hold(path: string): RunLock {
  let held = true;
  // Synchronous, since it also runs while the process exits.
  const release = () => {
    if (!held) return;
    held = false;
    process.off('exit', release);
    if (existsSync(path)) truncateSync(path, 0);
  };
  process.on('exit', release);
  return { path, cleaned: [], release };
}

function refuseIfHeld(path: string, folder: string): void {
  const owner = readOwner(path);
  if (owner === 'released') return;
  if (owner === 'unreadable') {
    throw new UserError('run_locked', {
      where: folder,
      what: `the lock file ${path} cannot be read`,
      action: `if no memory3 process uses this run, delete ${path}`,
    });
  }
  const verdict = judge(owner);
  if (verdict === 'dead') return;
  const holder = `process ${owner.pid} on ${owner.machine} (${owner.command}), since ${owner.since}`;
  throw new UserError('run_locked', {
    where: folder,
    what: verdict === 'alive' ? `in use by ${holder}` : `taken by ${holder}, which cannot be seen from here`,
    action:
      verdict === 'alive'
        ? `wait for it, or look at it with: ps -fp ${owner.pid}`
        : `look at it there with: ps -fp ${owner.pid}; if it no longer runs, delete ${path}`,
  });
}

function readOwner(path: string): Owner | 'released' | 'unreadable' {
  try {
    const text = readFileSync(path, 'utf8');
    if (text === '') return 'released';
    const owner: unknown = JSON.parse(text);
    return isOwner(owner) ? owner : 'unreadable';
  } catch (error) {
    return isSystemError(error) && error.code === 'ENOENT' ? 'released' : 'unreadable';
  }
}

function isOwner(value: unknown): value is Owner {
  if (typeof value !== 'object' || value === null) return false;
  const owner = value as Record<string, unknown>;
  const texts = ['machine', 'boot', 'namespace', 'start', 'command', 'since'];
  return (
    Number.isInteger(owner.pid) && (owner.pid as number) > 0 && texts.every((key) => typeof owner[key] === 'string')
  );
}

/** `unknown`: another machine or container, whose processes are not seen from here. */
function judge(owner: Owner): 'alive' | 'dead' | 'unknown' {
  const here = thisProcess();
  if (owner.machine !== here.machine) return 'unknown';
  if (owner.boot !== here.boot) return 'dead';
  if (owner.namespace !== here.namespace) return 'unknown';
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if (isSystemError(error) && error.code === 'ESRCH') return 'dead';
  }
  const start = processStart(owner.pid);
  return start === undefined || start === owner.start ? 'alive' : 'dead';
}

function thisProcess(): Owner {
  return {
    pid: process.pid,
    machine: [hostname(), readText('/etc/machine-id')].filter((part) => part !== '').join(' '),
    boot: readText('/proc/sys/kernel/random/boot_id'),
    namespace: readNamespace(),
    start: processStart(process.pid) ?? '',
    command: process.argv.slice(0, 4).join(' '),
    since: new Date().toISOString(),
  };
}

/**
 * The start time of a process, from Linux' /proc; 'ended' for one that has ended but was not waited for yet;
 * undefined where the system does not tell.
 */
function processStart(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  // The command stands in brackets and may hold spaces and brackets itself; state is field 3, start time field 22.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return 'ended';
  return fields[19];
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

function readNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return '';
  }
}
